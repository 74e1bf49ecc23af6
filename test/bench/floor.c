/*
 * floor.c
 *		For the benchmark's floor: the signature and the hashes of a login, of a
 *		refresh, and nothing else. Loaded into the same server as the ledger.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "core/digest.h"
#include "core/encoding.h"
#include "core/key.h"
#include "core/refresh.h"
#include "core/token.h"

PG_MODULE_MAGIC;

static const unsigned char refresh_key[SA_KEY_LEN] = {1};

PG_FUNCTION_INFO_V1(floor_mint);

/*
 * mint(tenant_id, user_id, epoch, tenant_epoch, parent text) → session_id, access_token, refresh_token, refresh_hash, salt.
 * With a parent (a refresh token made here): checks it and makes its successor, as a rotation does.
 */
Datum
floor_mint(PG_FUNCTION_ARGS)
{
	static SaKey *key = NULL;
	static char kid[SA_KID_LEN + 1];
	SaTokenDraft draft = {.issuer = "sessauth", .audience = "sessauth"};
	pg_uuid_t	sid;
	char		sid_text[SA_UUID_SIZE];
	char		refresh_text[SA_REFRESH_TEXT_LEN + 1];
	char	   *token;
	SaRefresh	refresh;
	bytea	   *hash = palloc(VARHDRSZ + SA_DIGEST_LEN);
	bytea	   *salt = palloc(VARHDRSZ + SA_SALT_LEN);
	bool		ok;
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (key == NULL)
	{
		key = sa_key_generate(SA_ALG_ES256);
		if (key == NULL || !sa_key_thumbprint(key, kid))
			elog(ERROR, "no key");
	}
	SET_VARSIZE(hash, VARHDRSZ + SA_DIGEST_LEN);
	SET_VARSIZE(salt, VARHDRSZ + SA_SALT_LEN);
	if (PG_ARGISNULL(4))
	{
		uint64		ms = (uint64) (GetCurrentTimestamp() / 1000 + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000));

		ok = sa_random(sid.data, sizeof(sid.data));
		for (int i = 0; i < 6; i++)
			sid.data[i] = (unsigned char) (ms >> (40 - 8 * i));
		sid.data[6] = (sid.data[6] & 0x0F) | 0x70;
		sid.data[8] = (sid.data[8] & 0x3F) | 0x80;
		ok = ok && sa_refresh_first(sid.data, &refresh);
	}
	else
	{
		text	   *parent = PG_GETARG_TEXT_PP(4);
		SaRefresh	old;
		unsigned char old_hash[SA_DIGEST_LEN];

		ok = sa_refresh_decode(refresh_key, VARDATA_ANY(parent), VARSIZE_ANY_EXHDR(parent), &old) &&
			sa_sha256(VARDATA_ANY(parent), VARSIZE_ANY_EXHDR(parent), old_hash) &&
			sa_random(VARDATA(salt), SA_SALT_LEN) &&
			sa_refresh_next(refresh_key, &old, (unsigned char *) VARDATA(salt), &refresh);
		if (ok)
			memcpy(sid.data, old.sid, sizeof(sid.data));
	}
	ok = ok && sa_refresh_encode(refresh_key, &refresh, refresh_text) &&
		sa_sha256(refresh_text, SA_REFRESH_TEXT_LEN, (unsigned char *) VARDATA(hash));
	if (!ok)
		elog(ERROR, "no refresh token");

	sa_uuid_encode(sid.data, sid_text);
	draft.tid = text_to_cstring(PG_GETARG_TEXT_PP(0));
	draft.uid = text_to_cstring(PG_GETARG_TEXT_PP(1));
	draft.sid = sid_text;
	draft.epoch = PG_GETARG_INT64(2);
	draft.tepoch = PG_GETARG_INT64(3);
	draft.iat = (int64_t) time(NULL);
	draft.exp = draft.iat + 300;
	token = sa_token_mint(key, kid, &draft);
	if (token == NULL)
		elog(ERROR, "no access token");

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "not a row");
	values[0] = UUIDPGetDatum(&sid);
	values[1] = CStringGetTextDatum(token);
	values[2] = CStringGetTextDatum(refresh_text);
	values[3] = PointerGetDatum(hash);
	nulls[4] = PG_ARGISNULL(4);
	values[4] = PointerGetDatum(salt);
	free(token);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

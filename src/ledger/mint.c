/*
 * mint.c
 *		Access tokens of a session, and the row that carries them to the caller.
 *
 * A token's lifetime is counted from a moment before the epochs were read. The
 * worker remembers a revocation for one token lifetime from when it saw it committed. Were the lifetime counted from
 * the signing, a login that read the epochs just before a revocation and
 * signed just after would outlive the memory of it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "core/encoding.h"
#include "core/token.h"
#include "ledger/ledger.h"
#include "ledger/session.h"
#include "ledger/signing.h"
#include "server/settings.h"

TimestampTz
access_token_end(TimestampTz now, const Policy *policy, TimestampTz expires_at, TimestampTz idle_expires_at)
{
	int64		end = unix_seconds(now) + policy->access_ttl;

	end = Min(end, unix_seconds(expires_at));
	return from_unix_seconds(Min(end, unix_seconds(idle_expires_at)));
}

char *
access_token_mint(const pg_uuid_t *session_id, const char *tenant_id, const char *user_id,
				  int64 epoch, int64 tenant_epoch, const char *claims, TimestampTz now, TimestampTz end)
{
	SaTokenDraft draft = {0};
	const SaKey *key;
	const char *kid;
	char		sid[SA_UUID_SIZE];
	char	   *token;
	char	   *result;

	key = signing_active(&kid);
	sa_uuid_encode(session_id->data, sid);
	draft.issuer = setting_issuer;
	draft.audience = setting_audience;
	draft.tid = tenant_id;
	draft.uid = user_id;
	draft.sid = sid;
	draft.epoch = epoch;
	draft.tepoch = tenant_epoch;
	draft.iat = unix_seconds(now);
	draft.exp = unix_seconds(end);
	draft.claims = claims;

	token = sa_token_mint(key, kid, &draft);
	if (token == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not sign an access token"),
				 errdetail("Either it would pass %d bytes or OpenSSL refused.", SA_TOKEN_MAX)));
	result = MemoryContextAllocExtended(CurrentMemoryContext, strlen(token) + 1, MCXT_ALLOC_NO_OOM);
	if (result)
		strcpy(result, token);
	sa_wipe(token, strlen(token));
	free(token);
	if (result == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
				 errdetail("Failed while signing an access token.")));
	return result;
}

Datum
session_answer(FunctionCallInfo fcinfo, const SessionAnswer *answer)
{
	bool		ok = answer->session_id != NULL;
	TupleDesc	desc;
	Datum		values[8] = {0};
	bool		nulls[8];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != lengthof(values))
		elog(ERROR, "sessauth: the function's result type is not what the library was built for");
	memset(nulls, !ok, sizeof(nulls));
	nulls[0] = false;
	values[0] = CStringGetTextDatum(answer->outcome);
	nulls[7] = answer->evicted == (Datum) 0;
	values[7] = answer->evicted;
	if (ok)
	{
		values[1] = UUIDPGetDatum(answer->session_id);
		values[2] = CStringGetTextDatum(answer->access_token);
		values[3] = TimestampTzGetDatum(answer->access_expires_at);
		values[4] = CStringGetTextDatum(answer->refresh_token);
		values[5] = TimestampTzGetDatum(answer->refresh_expires_at);
		values[6] = Int64GetDatum(answer->epoch);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

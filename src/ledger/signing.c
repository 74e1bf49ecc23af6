/*
 * signing.c
 *		Signing keys: making them, publishing them, and the opened copies that
 *		this process keeps.
 *
 * Opening a key costs a decryption and a decoding of several hundred
 * microseconds, so each process does it once and is told by the table's
 * invalidation when to look again. Private keys live in OpenSSL's memory, which it wipes when
 * it frees, and are freed when the process exits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "catalog/namespace.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "core/seal.h"
#include "ledger/ledger.h"
#include "ledger/signing.h"
#include "server/keyring.h"
#include "server/master_key.h"

#define KEYS_MAX	256			/* more than a key set may hold (core/key.h) */

typedef struct CachedKey
{
	char		kid[128];
	SaKey	   *key;
	bool		revoked;
} CachedKey;

static struct
{
	bool		valid;
	bool		registered;
	uint64		changes;		/* invalidations seen so far */
	Oid			relid;
	int			count;
	CachedKey	keys[KEYS_MAX];
	char		active_kid[128];	/* empty: not opened yet */
	SaKey	   *active;
	bool		has_refresh_key;
	unsigned char refresh_key[SA_KEY_LEN];
} cache;

static Datum create_key(SaAlg alg);
static Datum change_key(FunctionCallInfo fcinfo, LedgerQuery *query);
static bool is_fresh(void);
static void forget_keys(Datum arg, Oid relid);
static void wipe_keys(int code, Datum arg);
static void drop_cached(void);
static void key_label(const char *kid, char *label, size_t size);

PG_FUNCTION_INFO_V1(sessauth_create_signing_key);

/*
 * create_signing_key(alg text default 'ES256') → kid text: signs from now on.
 * Throws F0000 without a usable master key, 22023 for an unknown algorithm.
 */
Datum
sessauth_create_signing_key(PG_FUNCTION_ARGS)
{
	text	   *name;
	SaAlg		alg;
	Datum		kid;
	LedgerCall	call;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "alg");
	name = PG_GETARG_TEXT_PP(0);
	if (!sa_alg_parse(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), &alg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown signature algorithm"),
				 errhint("Use ES256, EdDSA or RS256.")));
	ledger_begin(&call, fcinfo);
	kid = create_key(alg);
	ledger_end(&call);
	return kid;
}

PG_FUNCTION_INFO_V1(sessauth_rotate_signing_key);

/*
 * rotate_signing_key(alg text default null) → kid text: a new key (of the same algorithm unless named) signs from now on,
 * the keys before it are retired: their tokens stay good. Nodes that meet the new kid fetch it; none is refused meanwhile.
 */
Datum
sessauth_rotate_signing_key(PG_FUNCTION_ARGS)
{
	static LedgerQuery newest = {
		"SELECT alg FROM sessauth.signing_key WHERE retired_at IS NULL AND revoked_at IS NULL ORDER BY created_at DESC, kid LIMIT 1"
	};
	static LedgerQuery retire = {
		"UPDATE sessauth.signing_key SET retired_at = sessauth.ledger_time() WHERE kid <> $1 AND retired_at IS NULL AND revoked_at IS NULL",
		1, {TEXTOID}
	};
	LedgerCall	call;
	SaAlg		alg = SA_ALG_ES256;
	Datum		kid;

	access_require_owner(fcinfo);
	if (!PG_ARGISNULL(0) && !sa_alg_parse(VARDATA_ANY(PG_GETARG_TEXT_PP(0)), VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)), &alg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown signature algorithm"),
				 errhint("Use ES256, EdDSA or RS256.")));
	ledger_begin(&call, fcinfo);
	if (PG_ARGISNULL(0) && ledger_run(&newest, NULL, NULL) > 0)
		(void) sa_alg_parse(ledger_text(0, 1), strlen(ledger_text(0, 1)), &alg);
	kid = create_key(alg);
	ledger_run(&retire, &kid, NULL);
	ledger_end(&call);
	return kid;
}

PG_FUNCTION_INFO_V1(sessauth_retire_signing_key);

/* retire_signing_key(kid) → event id; null when retired or revoked already. It signs no more; its tokens stay good. Throws 42704. */
Datum
sessauth_retire_signing_key(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.signing_key SET retired_at = sessauth.ledger_time()"
		" WHERE kid = $1 AND retired_at IS NULL AND revoked_at IS NULL", 1, {TEXTOID}
	};

	return change_key(fcinfo, &update);
}

PG_FUNCTION_INFO_V1(sessauth_revoke_signing_key);

/* revoke_signing_key(kid) → event id; null when revoked already. Every token it signed stops at once, everywhere. Throws 42704. */
Datum
sessauth_revoke_signing_key(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.signing_key SET revoked_at = sessauth.ledger_time(), sealed = NULL WHERE kid = $1 AND revoked_at IS NULL",
		1, {TEXTOID}
	};

	return change_key(fcinfo, &update);
}

static Datum
change_key(FunctionCallInfo fcinfo, LedgerQuery *query)
{
	static LedgerQuery known = {"SELECT 1 FROM sessauth.signing_key WHERE kid = $1", 1, {TEXTOID}};
	LedgerCall	call;
	Datum		value;
	bool		done;
	int64		event_id;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "kid");
	value = PG_GETARG_DATUM(0);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	if (ledger_run(&known, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no such signing key"),
				 errhint("SELECT kid FROM sessauth.keys shows them.")));
	done = ledger_run(query, &value, NULL) > 0;
	event_id = ledger_action.event_id;
	ledger_end(&call);
	if (!done)
		PG_RETURN_NULL();
	PG_RETURN_INT64(event_id);
}

/* Inside a frame. The new key's kid as a text datum in the current memory context. */
static Datum
create_key(SaAlg alg)
{
	static LedgerQuery insert = {
		"INSERT INTO sessauth.signing_key (kid, alg, public_jwk, sealed) VALUES ($1, $2, $3::jsonb, $4)",
		4, {TEXTOID, TEXTOID, TEXTOID, BYTEAOID}
	};
	SaKey	   *key;
	char		kid[SA_KID_LEN + 1];
	char		label[192];
	unsigned char *der = NULL;
	size_t		derlen = 0;
	char	   *jwk = NULL;
	bytea	   *sealed;
	bool		ok;
	Datum		values[4];
	const unsigned char *master;

	master = master_key();
	ledger_activate();
	keyring_ensure_secrets();

	/* From here to the last free nothing throws but palloc, so OpenSSL's memory is never lost. */
	sealed = palloc(VARHDRSZ + 8192);
	key = sa_key_generate(alg);
	ok = key != NULL && sa_key_thumbprint(key, kid) && sa_key_private_der(key, &der, &derlen) &&
		derlen + SA_SEAL_OVERHEAD <= 8192 && (jwk = sa_key_public_jwk(key, kid)) != NULL;
	if (ok)
	{
		key_label(kid, label, sizeof(label));
		ok = sa_seal(master, label, der, derlen, (unsigned char *) VARDATA(sealed));
		SET_VARSIZE(sealed, VARHDRSZ + derlen + SA_SEAL_OVERHEAD);
	}
	if (der)
	{
		sa_wipe(der, derlen);
		free(der);
	}
	sa_key_free(key);
	if (ok)
		values[2] = CStringGetTextDatum(jwk);
	free(jwk);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make a signing key with %s", sa_alg_name(alg)),
				 errdetail("OpenSSL refused, or memory is short.")));

	values[0] = CStringGetTextDatum(kid);
	values[1] = CStringGetTextDatum(sa_alg_name(alg));
	values[3] = PointerGetDatum(sealed);
	ledger_run(&insert, values, NULL);
	return CStringGetTextDatum(kid);
}

PG_FUNCTION_INFO_V1(sessauth_jwks);

/* jwks() → jsonb: the public keys whose tokens are good (RFC 7517); the newest first. */
Datum
sessauth_jwks(PG_FUNCTION_ARGS)
{
	static LedgerQuery query = {
		"SELECT jsonb_build_object('keys', coalesce(jsonb_agg(public_jwk ORDER BY created_at DESC, kid), '[]'))"
		" FROM sessauth.signing_key WHERE revoked_at IS NULL"
	};
	LedgerCall	call;
	Jsonb	   *result;
	bool		isnull;

	access_require(ACCESS_SERVICE | ACCESS_NODE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR, NULL);
	ledger_begin(&call, fcinfo);
	ledger_run(&query, NULL, NULL);
	result = DatumGetJsonbPCopy(ledger_datum(0, 1, &isnull));
	ledger_end(&call);
	PG_RETURN_JSONB_P(result);
}

PG_FUNCTION_INFO_V1(sessauth_link_key);

/* link_key() → bytea: what authenticates worker and nodes to each other. Throws 55000 when there is none yet. */
Datum
sessauth_link_key(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	bytea	   *result;
	unsigned char key[SA_KEY_LEN];
	bool		found;

	access_require(ACCESS_NODE, NULL);
	ledger_begin(&call, fcinfo);
	found = keyring_open_secret("link", key);
	ledger_end(&call);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the ledger has no link key yet"),
				 errhint("It is made with the first signing key: SELECT sessauth.create_signing_key().")));
	result = palloc(VARHDRSZ + SA_KEY_LEN);
	SET_VARSIZE(result, VARHDRSZ + SA_KEY_LEN);
	memcpy(VARDATA(result), key, SA_KEY_LEN);
	sa_wipe(key, sizeof(key));
	PG_RETURN_BYTEA_P(result);
}

const SaKey *
signing_active(const char **kid)
{
	static LedgerQuery query = {
		"SELECT kid, alg, sealed FROM sessauth.signing_key"
		" WHERE retired_at IS NULL AND revoked_at IS NULL AND sealed IS NOT NULL"
		" ORDER BY created_at DESC, kid LIMIT 1"
	};

	signing_refresh();
	if (cache.active == NULL)
	{
		const unsigned char *master;
		char	   *alg_name;
		SaAlg		alg;
		bytea	   *sealed;
		size_t		len;
		unsigned char *der;
		char		label[192];
		bool		isnull;
		bool		opened;

		if (ledger_run(&query, NULL, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("there is no signing key"),
					 errhint("Create one: SELECT sessauth.create_signing_key().")));
		strlcpy(cache.active_kid, ledger_text(0, 1), sizeof(cache.active_kid));
		alg_name = ledger_text(0, 2);
		sealed = DatumGetByteaPP(ledger_datum(0, 3, &isnull));
		len = VARSIZE_ANY_EXHDR(sealed);
		master = master_key();
		key_label(cache.active_kid, label, sizeof(label));
		der = palloc(len);
		opened = len > SA_SEAL_OVERHEAD && sa_alg_parse(alg_name, strlen(alg_name), &alg) &&
			sa_unseal(master, label, (unsigned char *) VARDATA_ANY(sealed), len, der);
		if (opened)
			cache.active = sa_key_from_private_der(alg, der, len - SA_SEAL_OVERHEAD);
		sa_wipe(der, len);
		if (cache.active == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("the master key does not open signing key \"%s\"", cache.active_kid),
					 errdetail("It was sealed under another master key, or its bytes were changed."),
					 errhint(KEYRING_HINT)));
	}
	*kid = cache.active_kid;
	return cache.active;
}

const SaKey *
signing_lookup(void *arg, const char *kid, size_t kidlen)
{
	for (int i = 0; i < cache.count; i++)
		if (strlen(cache.keys[i].kid) == kidlen && memcmp(cache.keys[i].kid, kid, kidlen) == 0)
			return cache.keys[i].key;
	return NULL;
}

bool
signing_is_revoked(const char *kid)
{
	for (int i = 0; i < cache.count; i++)
		if (strcmp(cache.keys[i].kid, kid) == 0)
			return cache.keys[i].revoked;
	return false;
}

const unsigned char *
signing_refresh_key(void)
{
	signing_refresh();
	if (!cache.has_refresh_key)
		cache.has_refresh_key = keyring_open_secret("refresh", cache.refresh_key);
	return cache.has_refresh_key ? cache.refresh_key : NULL;
}

void
signing_prepare(FunctionCallInfo fcinfo, bool refresh_key)
{
	LedgerCall	call;

	ledger_check_library();
	if (is_fresh() && (cache.has_refresh_key || !refresh_key))
		return;
	ledger_begin(&call, fcinfo);
	signing_refresh();
	if (refresh_key)
		(void) signing_refresh_key();
	ledger_end(&call);
}

uint64
signing_changes(void)
{
	return cache.changes;
}

/* A key that was revoked since the last statement must count now. */
static bool
is_fresh(void)
{
	AcceptInvalidationMessages();
	return cache.valid && cache.relid == ledger_relid("signing_key");
}

void
signing_refresh(void)
{
	static LedgerQuery query = {
		"SELECT kid, public_jwk::text, revoked_at IS NOT NULL FROM sessauth.signing_key ORDER BY created_at DESC LIMIT 256"
	};
	uint64		count;
	uint64		changes;

	if (is_fresh())
		return;
	if (!cache.registered)
	{
		CacheRegisterRelcacheCallback(forget_keys, (Datum) 0);
		on_proc_exit(wipe_keys, (Datum) 0);
		cache.registered = true;
	}
	cache.relid = ledger_relid("signing_key");
	changes = cache.changes;
	drop_cached();
	count = ledger_run(&query, NULL, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		char	   *jwk = ledger_text(i, 2);
		CachedKey  *cached = &cache.keys[cache.count];
		bool		isnull;

		strlcpy(cached->kid, ledger_text(i, 1), sizeof(cached->kid));
		cached->revoked = DatumGetBool(ledger_datum(i, 3, &isnull));
		cached->key = sa_key_from_jwk(jwk, strlen(jwk));
		if (cached->key)
			cache.count++;
	}
	cache.valid = cache.changes == changes;
}

static void
forget_keys(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cache.relid)
	{
		cache.valid = false;
		cache.changes++;
	}
}

static void
wipe_keys(int code, Datum arg)
{
	drop_cached();
}

static void
drop_cached(void)
{
	for (int i = 0; i < cache.count; i++)
		sa_key_free(cache.keys[i].key);
	cache.count = 0;
	sa_key_free(cache.active);
	cache.active = NULL;
	sa_wipe(cache.refresh_key, sizeof(cache.refresh_key));
	cache.has_refresh_key = false;
}

static void
key_label(const char *kid, char *label, size_t size)
{
	snprintf(label, size, "sessauth/1/key/%s", kid);
}

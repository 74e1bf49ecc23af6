/*
 * login.c
 *		issue_session: one login on one device.
 *
 * What must never happen: a session that a revocation, committed before or
 * during the login, does not kill; more live sessions than the limit; a login that waits for
 * another tenant, another user, or Redis.
 *
 * The epochs are read without a lock. A revocation that commits after the read
 * raises them, and the session is born dead: it carries the old ones. Only a limit
 * needs a lock, on the user's row, so that logins of that user count one after the other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "core/refresh.h"
#include "core/token.h"
#include "ledger/ledger.h"
#include "ledger/session.h"
#include "ledger/signing.h"
#include "server/clock.h"
#include "server/handover.h"

#define DEVICE_MAX		512
#define USER_AGENT_MAX	1024

typedef struct Epochs
{
	int64		tenant_epoch;
	int64		user_epoch;		/* 0: the user has no row yet */
	bool		suspended;
	bool		blocked;
	Policy		policy;
} Epochs;

static char *claims_arg(FunctionCallInfo fcinfo, int n);
static void read_epochs(const char *tenant_id, const char *user_id, Epochs *out);
static void create_user(const char *tenant_id, const char *user_id, Epochs *epochs);
static bool make_room(const char *tenant_id, const char *user_id, Epochs *epochs, Datum *evicted);
static Datum session_ids(uint64 count);
static void insert_session(FunctionCallInfo fcinfo, const char *tenant_id, const char *user_id, const Epochs *epochs,
						   const char *claims, TimestampTz now, SessionAnswer *answer);

PG_FUNCTION_INFO_V1(sessauth_issue_session);

/*
 * issue_session(tenant_id, user_id, device, ip, user_agent, claims) → one row.
 * Outcomes ok, limit_reached, user_blocked, tenant_suspended. Throws 42704 for an unknown tenant, 22023 for
 * a bad argument, 42501 without access, 55000 without a signing key.
 */
Datum
sessauth_issue_session(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	SessionAnswer answer = {.outcome = "ok"};
	Epochs		epochs;
	TimestampTz now;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	char	   *claims = claims_arg(fcinfo, 5);

	access_require(ACCESS_SERVICE, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();

	now = ledger_now();	/* before the epochs are read: see mint.c */
	read_epochs(tenant_id, user_id, &epochs);
	if (epochs.user_epoch == 0)
		create_user(tenant_id, user_id, &epochs);

	if (epochs.suspended)
		answer.outcome = "tenant_suspended";
	else if (epochs.blocked)
		answer.outcome = "user_blocked";
	else if (epochs.policy.max_sessions > 0 && !make_room(tenant_id, user_id, &epochs, &answer.evicted))
		answer.outcome = epochs.blocked ? "user_blocked" : "limit_reached";
	else
		insert_session(fcinfo, tenant_id, user_id, &epochs, claims, now, &answer);

	ledger_end(&call);
	return session_answer(fcinfo, &answer);
}

static void
read_epochs(const char *tenant_id, const char *user_id, Epochs *out)
{
	Datum		keys[2] = {CStringGetTextDatum(tenant_id), CStringGetTextDatum(user_id)};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	LedgerRow	tenant;
	LedgerRow	user;
	bool		has_tenant = row_find(&table_tenant, snapshot, keys, &tenant);
	bool		has_user = row_find(&table_user, snapshot, keys, &user);

	UnregisterSnapshot(snapshot);
	if (!has_tenant)
		unknown_tenant(tenant_id);
	out->tenant_epoch = ledger_row_int8(&tenant, TC_EPOCH);
	out->suspended = !ledger_row_is_null(&tenant, TC_SUSPENDED);
	tenant_policy(&tenant, &out->policy);
	out->user_epoch = has_user ? ledger_row_int8(&user, UC_EPOCH) : 0;
	out->blocked = has_user && !ledger_row_is_null(&user, UC_BLOCKED);
}

/* The first login of a user. A second one at the same moment waits for this transaction; nobody else does. */
static void
create_user(const char *tenant_id, const char *user_id, Epochs *epochs)
{
	static LedgerQuery insert = {
		"INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
		2, {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {CStringGetTextDatum(tenant_id), CStringGetTextDatum(user_id)};

	if (epochs->suspended)
		return;
	ledger_action.kind = "user_created";
	ledger_run(&insert, values, NULL);
	ledger_action.kind = NULL;
	read_epochs(tenant_id, user_id, epochs);	/* somebody else's row, or ours, with the epoch it got in the end */
}

/* Holds the user's row until the transaction ends. False when the limit is reached (or the user was blocked meanwhile). */
static bool
make_room(const char *tenant_id, const char *user_id, Epochs *epochs, Datum *evicted)
{
	static LedgerQuery lock = {
		"SELECT 1 FROM sessauth.tenant_user WHERE tenant_id = $1 AND user_id = $2 FOR NO KEY UPDATE", 2, {TEXTOID, TEXTOID}
	};
	static LedgerQuery live = {
		"SELECT session_id FROM sessauth.session"
		" WHERE tenant_id = $1 AND user_id = $2 AND sessauth.session_state(ended_at, expires_at, idle_expires_at,"
		"  epoch, $3, tenant_epoch, $4) = 'live' ORDER BY created_at, session_id",
		4, {TEXTOID, TEXTOID, INT8OID, INT8OID}
	};
	/* One that is ended by somebody else while we wait for its row makes room, too, but was not evicted. */
	static LedgerQuery evict = {
		"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = 'evicted by a newer login'"
		" WHERE session_id IN (SELECT session_id FROM sessauth.session WHERE session_id = ANY ($1) AND ended_at IS NULL"
		"  ORDER BY session_id FOR UPDATE) RETURNING session_id", 1, {UUIDARRAYOID}
	};
	Datum		values[4] = {CStringGetTextDatum(tenant_id), CStringGetTextDatum(user_id)};
	Datum		victims;
	uint64		count;

	ledger_run(&lock, values, NULL);
	read_epochs(tenant_id, user_id, epochs);	/* another login or a revocation may have committed while we waited */
	if (epochs->blocked || epochs->suspended)
		return false;
	values[2] = Int64GetDatum(epochs->user_epoch);
	values[3] = Int64GetDatum(epochs->tenant_epoch);
	count = ledger_run(&live, values, NULL);
	if (count < (uint64) epochs->policy.max_sessions)
		return true;
	if (epochs->policy.on_limit == ON_LIMIT_REJECT)
		return false;

	victims = session_ids(count - epochs->policy.max_sessions + 1);
	ledger_action.kind = "session_evicted";
	count = ledger_run(&evict, &victims, NULL);
	if (count > 0)
		*evicted = session_ids(count);
	ledger_action.kind = NULL;
	return true;
}

/* The first column of the first so many rows of the last statement, as an array. */
static Datum
session_ids(uint64 count)
{
	Datum	   *ids = palloc(sizeof(Datum) * count);

	for (uint64 i = 0; i < count; i++)
	{
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
		bool		isnull;

		*id = *DatumGetUUIDP(ledger_datum(i, 1, &isnull));
		ids[i] = UUIDPGetDatum(id);
	}
	return PointerGetDatum(construct_array(ids, (int) count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

static void
insert_session(FunctionCallInfo fcinfo, const char *tenant_id, const char *user_id, const Epochs *epochs,
			   const char *claims, TimestampTz now, SessionAnswer *answer)
{
	static const int arguments[] = {SC_DEVICE, SC_IP, SC_USER_AGENT, SC_CLAIMS};	/* from the third on */
	const unsigned char *refresh_key = signing_refresh_key();
	pg_uuid_t  *session_id = palloc(sizeof(pg_uuid_t));
	TimestampTz expires = now + (int64) epochs->policy.session_ttl * USECS_PER_SEC;
	TimestampTz idle = now + (int64) epochs->policy.idle_ttl * USECS_PER_SEC;
	TimestampTz access_end = access_token_end(now, &epochs->policy, expires, idle);
	SaRefresh	refresh;
	char		token[SA_REFRESH_TEXT_LEN + 1];
	bytea	   *hash = palloc(VARHDRSZ + SA_DIGEST_LEN);
	Datum		values[SC_COLUMNS] = {0};
	bool		nulls[SC_COLUMNS] = {false};

	session_id_new(session_id);
	answer->access_token = access_token_mint(session_id, tenant_id, user_id, epochs->user_epoch, epochs->tenant_epoch,
											 claims, now, access_end);
	SET_VARSIZE(hash, VARHDRSZ + SA_DIGEST_LEN);
	if (refresh_key == NULL || !sa_refresh_first(session_id->data, &refresh) ||
		!sa_refresh_encode(refresh_key, &refresh, token) ||
		!sa_sha256(token, SA_REFRESH_TEXT_LEN, (unsigned char *) VARDATA(hash)))
		openssl_refused("make a refresh token");

	values[SC_ID] = UUIDPGetDatum(session_id);
	values[SC_TENANT] = CStringGetTextDatum(tenant_id);
	values[SC_USER] = CStringGetTextDatum(user_id);
	values[SC_EPOCH] = Int64GetDatum(epochs->user_epoch);
	values[SC_TENANT_EPOCH] = Int64GetDatum(epochs->tenant_epoch);
	values[SC_VERSION] = Int64GetDatum(1);
	values[SC_CREATED] = values[SC_REFRESHED] = TimestampTzGetDatum(now);
	values[SC_EXPIRES] = TimestampTzGetDatum(expires);
	values[SC_IDLE_EXPIRES] = TimestampTzGetDatum(idle);
	values[SC_ACCESS_EXPIRES] = TimestampTzGetDatum(access_end);
	nulls[SC_ENDED_AT] = nulls[SC_END_REASON] = true;
	values[SC_COUNTER] = Int64GetDatum(1);
	values[SC_HASH] = PointerGetDatum(hash);
	nulls[SC_PARENT_HASH] = nulls[SC_SALT] = true;
	for (int i = 0; i < lengthof(arguments); i++)
	{
		nulls[arguments[i]] = PG_ARGISNULL(i + 2);
		values[arguments[i]] = PG_GETARG_DATUM(i + 2);
	}
	row_insert(&table_session, values, nulls);

	handover_note(HANDOVER_MINTED, session_id, tenant_id, user_id, access_end);

	answer->session_id = session_id;
	answer->access_expires_at = access_end;
	answer->refresh_token = pstrdup(token);
	answer->refresh_expires_at = Min(expires, idle);
	answer->epoch = epochs->user_epoch;
}

/* The caller's own claims as JSON text, NULL when there are none. Checks the lengths of the free texts on the way. */
static char *
claims_arg(FunctionCallInfo fcinfo, int n)
{
	const char *reason;
	Jsonb	   *jsonb;
	char	   *claims;

	(void) optional_text_arg(fcinfo, 2, "device", DEVICE_MAX);
	(void) optional_text_arg(fcinfo, 4, "user_agent", USER_AGENT_MAX);
	if (PG_ARGISNULL(n))
		return NULL;
	jsonb = PG_GETARG_JSONB_P(n);
	claims = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	reason = sa_claims_check(claims, strlen(claims));
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid claims"),
				 errdetail("The claims were refused: %s.", reason),
				 errhint("Pass a JSON object of at most %d bytes without registered or sessauth claim names.", SA_CLAIMS_MAX)));
	return claims;
}

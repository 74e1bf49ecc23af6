/*
 * refresh.c
 *		refresh_session: rotation, and noticing theft.
 *
 * One transition under the session's row lock. Whatever two clients do with
 * copies of a token, they come here one after the other:
 *
 *	current token		→ rotated: a successor, the presented one becomes the parent
 *	parent, in grace	→ the same successor again (a lost answer, a second tab)
 *	older genuine token	→ reuse: somebody else has a copy; the session ends
 *	anything else		→ unknown, and nothing changes
 *
 * Reuse is an outcome, not an error, so that the revocation commits with the
 * caller's transaction; should that roll back, the worker ends the session all the same (server/handover.h).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/inet.h"

#include "core/refresh.h"
#include "ledger/identity.h"
#include "ledger/ledger.h"
#include "ledger/session.h"
#include "ledger/signing.h"
#include "server/clock.h"
#include "server/handover.h"

#define USER_AGENT_MAX	1024

static const char *refresh(FunctionCallInfo fcinfo, LedgerCall *call, const SaRefresh *token, text *presented,
						   const unsigned char *key, SessionAnswer *answer);
static void apply_policy(SessionRow *session, const Policy *policy, TimestampTz now);
static void rotate(FunctionCallInfo fcinfo, const SessionRow *session, const Policy *policy, const SaRefresh *token,
				   const unsigned char *key, TimestampTz now, SessionAnswer *answer);
static void answer_again(const SessionRow *session, const Policy *policy, const SaRefresh *token, const unsigned char *key,
						 TimestampTz now, SessionAnswer *answer);
static void end_for_reuse(const SessionRow *session);
static void fill_answer(const SessionRow *session, const Policy *policy, const char *refresh_token, TimestampTz now, TimestampTz idle_end,
						SessionAnswer *answer);
static void encode(const unsigned char *key, const SaRefresh *token, char *out);
static void hash_text(const char *text, size_t len, unsigned char *out);
static bool hash_is(const bytea *stored, const unsigned char *hash);

PG_FUNCTION_INFO_V1(sessauth_refresh_session);

/*
 * refresh_session(refresh_token, ip, user_agent) → one row like issue_session's.
 * Outcomes ok, reused, expired, idle, revoked, unknown. Throws 42501 without access or for another tenant's token
 * in an authenticated transaction, 22004 for a null token.
 */
Datum
sessauth_refresh_session(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	SessionAnswer answer = {.outcome = "unknown"};
	const unsigned char *key;
	text	   *presented;
	SaRefresh	token;

	require_arg(fcinfo, 0, "refresh_token");
	(void) optional_text_arg(fcinfo, 2, "user_agent", USER_AGENT_MAX);
	access_require(ACCESS_SERVICE, NULL);
	presented = PG_GETARG_TEXT_PP(0);

	ledger_begin(&call, fcinfo);
	ledger_activate();
	key = signing_refresh_key();
	if (key != NULL && sa_refresh_decode(key, VARDATA_ANY(presented), VARSIZE_ANY_EXHDR(presented), &token))
		answer.outcome = refresh(fcinfo, &call, &token, presented, key, &answer);
	ledger_end(&call);
	return session_answer(fcinfo, &answer);
}

static const char *
refresh(FunctionCallInfo fcinfo, LedgerCall *call, const SaRefresh *token, text *presented,
		const unsigned char *key, SessionAnswer *answer)
{
	TimestampTz now;
	SessionRow	session;
	Policy		policy;
	pg_uuid_t	session_id;
	unsigned char hash[SA_DIGEST_LEN];

	memcpy(session_id.data, token->sid, UUID_LEN);
	hash_text(VARDATA_ANY(presented), VARSIZE_ANY_EXHDR(presented), hash);

	/* A caller of one tenant must not even lock a session of another. */
	if (!access_is_unlimited(call->caller, ACCESS_SERVICE) || identity_tenant() != NULL)
	{
		if (!session_read(&session_id, ledger_now(), false, &session) ||
			!access_allows(call->caller, ACCESS_SERVICE, session.tenant_id))
			return "unknown";
		access_require_own_tenant(session.tenant_id);
	}

	now = ledger_now();	/* before the row is read: see mint.c */
	if (!session_read(&session_id, now, true, &session))
		return "unknown";

	tenant_policy(session.has_tenant ? &session.tenant : NULL, &policy);
	apply_policy(&session, &policy, now);
	if (session.state == SESSION_EXPIRED)
		return "expired";
	if (session.state == SESSION_IDLE)
		return "idle";
	if (session.state != SESSION_LIVE)
		return "revoked";

	if (token->counter == (uint64) session.refresh_counter)
	{
		if (!hash_is(session_bytea(&session, SC_HASH), hash))
			return "unknown";
		rotate(fcinfo, &session, &policy, token, key, now, answer);
		return "ok";
	}

	/* Genuine, but from a future that a restore has undone. */
	if (token->counter > (uint64) session.refresh_counter)
		return "unknown";

	if (token->counter + 1 == (uint64) session.refresh_counter && hash_is(session_bytea(&session, SC_PARENT_HASH), hash) &&
		session_bytea(&session, SC_SALT) != NULL &&
		Max(now - session.refreshed_at, 0) < (int64) policy.refresh_grace * USECS_PER_SEC)
	{
		answer_again(&session, &policy, token, key, now, answer);
		return "ok";
	}

	if (!PG_ARGISNULL(1))
		ledger_action.ip = PG_GETARG_INET_PP(1);
	end_for_reuse(&session);
	return "reused";
}

/*
 * The lifetimes in the row are of the policy that was in force at the last refresh. One that has become shorter
 * counts from now on; when the session has outlived it, the row says so, for everybody who asks.
 */
static void
apply_policy(SessionRow *session, const Policy *policy, TimestampTz now)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET expires_at = $2, idle_expires_at = $3 WHERE session_id = $1",
		3, {UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	};
	bool		isnull;
	TimestampTz created = DatumGetTimestampTz(ledger_row_datum(&session->row, SC_CREATED, &isnull));
	Datum		values[3];

	if (session->state != SESSION_LIVE)
		return;
	session->expires_at = Min(session->expires_at, created + (int64) policy->session_ttl * USECS_PER_SEC);
	session->idle_expires_at = Min(session->idle_expires_at, session->refreshed_at + (int64) policy->idle_ttl * USECS_PER_SEC);
	session->state = session_state(now, false, session->expires_at, session->idle_expires_at, 0, 0, 0, 0);
	if (session->state == SESSION_LIVE)
		return;
	values[0] = UUIDPGetDatum(&session->session_id);
	values[1] = TimestampTzGetDatum(session->expires_at);
	values[2] = TimestampTzGetDatum(session->idle_expires_at);
	ledger_run(&update, values, NULL);
}

static void
rotate(FunctionCallInfo fcinfo, const SessionRow *session, const Policy *policy, const SaRefresh *token,
	   const unsigned char *key, TimestampTz now, SessionAnswer *answer)
{
	TimestampTz idle = now + (int64) policy->idle_ttl * USECS_PER_SEC;
	bytea	   *salt = palloc(VARHDRSZ + SA_SALT_LEN);
	bytea	   *hash = palloc(VARHDRSZ + SA_DIGEST_LEN);
	char		text[SA_REFRESH_TEXT_LEN + 1];
	SaRefresh	next;
	Datum		values[SC_COLUMNS] = {0};
	bool		nulls[SC_COLUMNS] = {false};
	bool		change[SC_COLUMNS] = {false};

	SET_VARSIZE(salt, VARHDRSZ + SA_SALT_LEN);
	SET_VARSIZE(hash, VARHDRSZ + SA_DIGEST_LEN);
	if (!sa_random(VARDATA(salt), SA_SALT_LEN) ||
		!sa_refresh_next(key, token, (unsigned char *) VARDATA(salt), &next))
		openssl_refused("make a refresh token");
	encode(key, &next, text);
	hash_text(text, SA_REFRESH_TEXT_LEN, (unsigned char *) VARDATA(hash));
	fill_answer(session, policy, text, now, idle, answer);

	values[SC_COUNTER] = Int64GetDatum((int64) next.counter);
	values[SC_PARENT_HASH] = PointerGetDatum(session_bytea(session, SC_HASH));
	values[SC_HASH] = PointerGetDatum(hash);
	values[SC_SALT] = PointerGetDatum(salt);
	values[SC_REFRESHED] = TimestampTzGetDatum(now);
	values[SC_EXPIRES] = TimestampTzGetDatum(session->expires_at);
	values[SC_IDLE_EXPIRES] = TimestampTzGetDatum(idle);
	values[SC_ACCESS_EXPIRES] = TimestampTzGetDatum(Max(session->access_expires_at, answer->access_expires_at));
	values[SC_IP] = PG_GETARG_DATUM(1);
	values[SC_USER_AGENT] = PG_GETARG_DATUM(2);
	change[SC_COUNTER] = change[SC_PARENT_HASH] = change[SC_HASH] = change[SC_SALT] = true;
	change[SC_REFRESHED] = change[SC_EXPIRES] = change[SC_IDLE_EXPIRES] = change[SC_ACCESS_EXPIRES] = true;
	change[SC_IP] = !PG_ARGISNULL(1);
	change[SC_USER_AGENT] = !PG_ARGISNULL(2);
	row_update(&table_session, &session->row, values, nulls, change);
}

static void
answer_again(const SessionRow *session, const Policy *policy, const SaRefresh *token, const unsigned char *key,
			 TimestampTz now, SessionAnswer *answer)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET access_expires_at = greatest(access_expires_at, $2) WHERE session_id = $1",
		2, {UUIDOID, TIMESTAMPTZOID}
	};
	bytea	   *salt = session_bytea(session, SC_SALT);
	char		text[SA_REFRESH_TEXT_LEN + 1];
	SaRefresh	next;
	Datum		values[2];

	if (VARSIZE_ANY_EXHDR(salt) != SA_SALT_LEN ||
		!sa_refresh_next(key, token, (unsigned char *) VARDATA_ANY(salt), &next))
		openssl_refused("make a refresh token");
	encode(key, &next, text);
	fill_answer(session, policy, text, now, session->idle_expires_at, answer);

	values[0] = UUIDPGetDatum(&session->session_id);
	values[1] = TimestampTzGetDatum(answer->access_expires_at);
	ledger_action.kind = "session_refresh_retried";
	ledger_run(&update, values, NULL);
	ledger_action.kind = NULL;
}

static void
end_for_reuse(const SessionRow *session)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = 'a used refresh token was presented again'"
		" WHERE session_id = $1", 1, {UUIDOID}
	};
	Datum		value = UUIDPGetDatum(&session->session_id);

	ledger_action.kind = "refresh_reused";
	ledger_run(&update, &value, NULL);
	ledger_action.kind = NULL;
	handover_note(HANDOVER_THEFT, &session->session_id, session->tenant_id, session->user_id, session->access_expires_at);
}

static void
fill_answer(const SessionRow *session, const Policy *policy, const char *refresh_token, TimestampTz now, TimestampTz idle_end, SessionAnswer *answer)
{
	pg_uuid_t  *session_id = palloc(sizeof(pg_uuid_t));

	*session_id = session->session_id;
	answer->session_id = session_id;
	answer->access_expires_at = access_token_end(now, policy, session->expires_at, idle_end);
	answer->access_token = access_token_mint(session_id, session->tenant_id, session->user_id, session->epoch,
											 session->tenant_epoch, session_claims(session), now, answer->access_expires_at);
	answer->refresh_token = pstrdup(refresh_token);
	answer->refresh_expires_at = Min(session->expires_at, idle_end);
	answer->epoch = session->epoch;
}

static void
encode(const unsigned char *key, const SaRefresh *token, char *out)
{
	if (!sa_refresh_encode(key, token, out))
		openssl_refused("make a refresh token");
}

static void
hash_text(const char *text, size_t len, unsigned char *out)
{
	if (!sa_sha256(text, len, out))
		openssl_refused("hash a refresh token");
}

static bool
hash_is(const bytea *stored, const unsigned char *hash)
{
	return stored != NULL && VARSIZE_ANY_EXHDR(stored) == SA_DIGEST_LEN &&
		sa_equal(VARDATA_ANY(stored), hash, SA_DIGEST_LEN);
}

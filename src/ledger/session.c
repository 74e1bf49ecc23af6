/*
 * session.c
 *		Reading a session, and the one rule that says whether it is live.
 *
 * Refresh, verify, limits and the view all ask session_state(); nothing else
 * compares epochs or times of a session.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "ledger/ledger.h"
#include "ledger/session.h"
#include "server/clock.h"

static bytea *bytea_column(int column);

static const char *const state_names[] = {
	[SESSION_LIVE] = "live",
	[SESSION_ENDED] = "ended",
	[SESSION_USER_REVOKED] = "user revoked",
	[SESSION_TENANT_REVOKED] = "tenant revoked",
	[SESSION_EXPIRED] = "expired",
	[SESSION_IDLE] = "idle",
};

SessionState
session_state(TimestampTz now, bool ended, TimestampTz expires_at, TimestampTz idle_expires_at,
			  int64 epoch, int64 user_epoch, int64 tenant_epoch, int64 tenant_epoch_now)
{
	if (ended)
		return SESSION_ENDED;
	if (tenant_epoch != tenant_epoch_now)
		return SESSION_TENANT_REVOKED;
	if (epoch != user_epoch)
		return SESSION_USER_REVOKED;
	if (now >= expires_at)
		return SESSION_EXPIRED;
	if (now >= idle_expires_at)
		return SESSION_IDLE;
	return SESSION_LIVE;
}

#define SESSION_SELECT \
	"SELECT s.tenant_id, s.user_id, s.epoch, s.tenant_epoch, s.refreshed_at, s.expires_at, s.idle_expires_at," \
	" s.refresh_counter, s.refresh_hash, s.parent_hash, s.refresh_salt, s.client_claims::text," \
	" s.ended_at IS NOT NULL, u.epoch, t.epoch, t.policy, extract(epoch FROM t.access_ttl_max)::bigint" \
	" FROM sessauth.session s" \
	" LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id" \
	" LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id" \
	" WHERE s.session_id = $1"

bool
session_read(const pg_uuid_t *session_id, TimestampTz now, bool lock, SessionRow *out)
{
	static LedgerQuery plain = {SESSION_SELECT, 1, {UUIDOID}};
	static LedgerQuery locking = {SESSION_SELECT " FOR UPDATE OF s", 1, {UUIDOID}};
	Datum		value = UUIDPGetDatum(session_id);
	Datum		policy;
	bool		ended;
	bool		isnull;

	if (ledger_run(lock ? &locking : &plain, &value, NULL) == 0)
		return false;
	out->session_id = *session_id;
	out->tenant_id = ledger_text(0, 1);
	out->user_id = ledger_text(0, 2);
	out->epoch = ledger_int8(0, 3);
	out->tenant_epoch = ledger_int8(0, 4);
	out->refreshed_at = ledger_time(0, 5);
	out->expires_at = ledger_time(0, 6);
	out->idle_expires_at = ledger_time(0, 7);
	out->refresh_counter = ledger_int8(0, 8);
	out->refresh_hash = bytea_column(9);
	out->parent_hash = bytea_column(10);
	out->refresh_salt = bytea_column(11);
	out->claims = ledger_text(0, 12);
	ended = DatumGetBool(ledger_datum(0, 13, &isnull));
	policy = ledger_datum(0, 16, &isnull);
	policy_read(isnull ? NULL : DatumGetJsonbP(policy), &out->policy);
	if (!isnull)
		out->policy.access_ttl = (int) Min((int64) out->policy.access_ttl, ledger_int8(0, 17));
	out->state = session_state(now, ended, out->expires_at, out->idle_expires_at,
							   out->epoch, ledger_int8(0, 14), out->tenant_epoch, ledger_int8(0, 15));
	return true;
}

static bytea *
bytea_column(int column)
{
	bool		isnull;
	Datum		value = ledger_datum(0, column, &isnull);

	return isnull ? NULL : DatumGetByteaPCopy(value);
}

PG_FUNCTION_INFO_V1(sessauth_session_state);

/* session_state(ended_at, expires_at, idle_expires_at, epoch, user_epoch, tenant_epoch, tenant_epoch_now) → text: the rule, for views. */
Datum
sessauth_session_state(PG_FUNCTION_ARGS)
{
	SessionState state = session_state(ledger_now(), !PG_ARGISNULL(0),
									   PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1),
									   PG_ARGISNULL(2) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(2),
									   PG_ARGISNULL(3) ? -1 : PG_GETARG_INT64(3),
									   PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4),
									   PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5),
									   PG_ARGISNULL(6) ? 0 : PG_GETARG_INT64(6));

	PG_RETURN_TEXT_P(cstring_to_text(state_names[state]));
}

/*
 * session.c
 *		Reading a session, and the one rule that says whether it is live.
 *
 * Refresh, verify, limits and the view all ask session_state(); nothing else
 * compares epochs or times of a session.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "ledger/ledger.h"
#include "ledger/session.h"
#include "server/clock.h"

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

bool
session_read(const pg_uuid_t *session_id, TimestampTz now, bool lock, SessionRow *out)
{
	Datum		key = UUIDPGetDatum(session_id);
	Datum		keys[2];
	Snapshot	snapshot;
	LedgerRow	user;
	bool		has_user;
	bool		isnull;

	if (lock && !row_lock(&table_session, &key, &out->row))
		return false;

	/* Epochs are read after the lock: what was revoked while we waited counts. */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (!lock && !row_find(&table_session, snapshot, &key, &out->row))
	{
		UnregisterSnapshot(snapshot);
		return false;
	}
	keys[0] = ledger_row_datum(&out->row, SC_TENANT, &isnull);
	keys[1] = ledger_row_datum(&out->row, SC_USER, &isnull);
	has_user = row_find(&table_user, snapshot, keys, &user);
	out->has_tenant = row_find(&table_tenant, snapshot, keys, &out->tenant);
	UnregisterSnapshot(snapshot);

	out->session_id = *session_id;
	out->tenant_id = ledger_row_text(&out->row, SC_TENANT);
	out->user_id = ledger_row_text(&out->row, SC_USER);
	out->epoch = ledger_row_int8(&out->row, SC_EPOCH);
	out->tenant_epoch = ledger_row_int8(&out->row, SC_TENANT_EPOCH);
	out->refreshed_at = DatumGetTimestampTz(ledger_row_datum(&out->row, SC_REFRESHED, &isnull));
	out->expires_at = DatumGetTimestampTz(ledger_row_datum(&out->row, SC_EXPIRES, &isnull));
	out->idle_expires_at = DatumGetTimestampTz(ledger_row_datum(&out->row, SC_IDLE_EXPIRES, &isnull));
	out->access_expires_at = DatumGetTimestampTz(ledger_row_datum(&out->row, SC_ACCESS_EXPIRES, &isnull));
	out->refresh_counter = ledger_row_int8(&out->row, SC_COUNTER);
	out->state = session_state(now, !ledger_row_is_null(&out->row, SC_ENDED_AT), out->expires_at, out->idle_expires_at,
							   out->epoch, has_user ? ledger_row_int8(&user, UC_EPOCH) : 0,
							   out->tenant_epoch, out->has_tenant ? ledger_row_int8(&out->tenant, TC_EPOCH) : 0);
	return true;
}

void
tenant_policy(const LedgerRow *tenant, Policy *out)
{
	bool		isnull;

	if (tenant == NULL)
	{
		policy_read(NULL, out);
		return;
	}
	policy_read(DatumGetJsonbP(ledger_row_datum(tenant, TC_POLICY, &isnull)), out);
	out->access_ttl = (int) Min((int64) out->access_ttl, tenant_ttl_max(tenant) / USECS_PER_SEC);
}

int64
tenant_ttl_max(const LedgerRow *tenant)
{
	bool		isnull;

	return interval_us(DatumGetIntervalP(ledger_row_datum(tenant, TC_ACCESS_TTL_MAX, &isnull)));
}

bytea *
session_bytea(const SessionRow *session, int column)
{
	bool		isnull;
	Datum		value = ledger_row_datum(&session->row, column, &isnull);

	return isnull ? NULL : DatumGetByteaPP(value);
}

char *
session_claims(const SessionRow *session)
{
	bool		isnull;
	Datum		value = ledger_row_datum(&session->row, SC_CLAIMS, &isnull);
	Jsonb	   *jsonb;

	if (isnull)
		return NULL;
	jsonb = DatumGetJsonbP(value);
	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
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

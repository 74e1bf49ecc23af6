/*
 * revoke.c
 *		Forced logout of a device, a user, all other devices, a tenant; and
 *		blocking a user or suspending a tenant, which also refuses new logins.
 *
 * A mass revocation raises one number and writes no session row: it costs the
 * same for one session and for a million. Each call returns the id of the event it wrote, with
 * which its receipt can be asked for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "ledger/ledger.h"
#include "ledger/tables.h"

#define REASON_MAX	1024
#define ACTOR_MAX	255
#define REVOKERS	(ACCESS_SERVICE | ACCESS_TENANT_ADMIN)

static void require_tenant(const char *tenant_id);
static Datum change_user(FunctionCallInfo fcinfo, LedgerQuery *query, const char *kind, bool revokes);
static Datum change_tenant(FunctionCallInfo fcinfo, LedgerQuery *query);
static Datum event_or_null(FunctionCallInfo fcinfo, LedgerCall *call, bool done);

PG_FUNCTION_INFO_V1(sessauth_revoke_session);

/* revoke_session(tenant_id, session_id, reason, actor) → event id; null when the session is unknown or already ended. */
Datum
sessauth_revoke_session(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = coalesce($3, 'revoked')"
		" WHERE session_id = $2 AND tenant_id = $1 AND ended_at IS NULL", 3, {TEXTOID, UUIDOID, TEXTOID}
	};
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	Datum		values[3];
	bool		nulls[3] = {false, false, PG_ARGISNULL(2)};

	require_arg(fcinfo, 1, "session_id");
	access_require(REVOKERS, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	require_tenant(tenant_id);
	revoke_action_args(fcinfo, 2);
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	return event_or_null(fcinfo, &call, ledger_run(&update, values, nulls) > 0);
}

PG_FUNCTION_INFO_V1(sessauth_revoke_user);

/*
 * revoke_user(tenant_id, user_id, reason, actor) → event id. Raises the epoch even of a user who was never
 * seen: a first login may be in flight. It then waits for that login's transaction, and for nobody else's.
 */
Datum
sessauth_revoke_user(PG_FUNCTION_ARGS)
{
	static LedgerQuery upsert = {
		"INSERT INTO sessauth.tenant_user AS u (tenant_id, user_id) VALUES ($1, $2)"
		" ON CONFLICT (tenant_id, user_id) DO UPDATE SET epoch = u.epoch + 1", 2, {TEXTOID, TEXTOID}
	};
	LedgerCall	call;
	LedgerRow	user;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	Datum		values[2];

	access_require(REVOKERS, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	require_tenant(tenant_id);
	revoke_action_args(fcinfo, 2);
	ledger_action.kind = "user_revoked";
	ledger_action.revokes_user = true;
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = CStringGetTextDatum(user_id);
	if (row_lock(&table_user, values, &user))
	{
		Datum		new[UC_COLUMNS] = {0};
		bool		nulls[UC_COLUMNS] = {false};
		bool		change[UC_COLUMNS] = {false};

		new[UC_EPOCH] = Int64GetDatum(ledger_row_int8(&user, UC_EPOCH) + 1);
		change[UC_EPOCH] = true;
		row_update(&table_user, &user, new, nulls, change);
	}
	else
		ledger_run(&upsert, values, NULL);
	return event_or_null(fcinfo, &call, true);
}

PG_FUNCTION_INFO_V1(sessauth_revoke_other_sessions);

/*
 * revoke_other_sessions(tenant_id, user_id, keep uuid, reason, actor) → id of the last event; null when there
 * are no others. The kept session must live on, so the others end one by one instead of by epoch.
 */
Datum
sessauth_revoke_other_sessions(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = coalesce($4, 'revoked')"
		" WHERE session_id IN (SELECT session_id FROM sessauth.session"
		"  WHERE tenant_id = $1 AND user_id = $2 AND session_id <> $3 AND ended_at IS NULL"
		"  ORDER BY session_id FOR UPDATE)", 4, {TEXTOID, TEXTOID, UUIDOID, TEXTOID}
	};
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	Datum		values[4];
	bool		nulls[4] = {false, false, false, PG_ARGISNULL(3)};

	require_arg(fcinfo, 2, "keep");
	access_require(REVOKERS, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	require_tenant(tenant_id);
	revoke_action_args(fcinfo, 3);
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = CStringGetTextDatum(user_id);
	values[2] = PG_GETARG_DATUM(2);
	values[3] = PG_GETARG_DATUM(3);
	return event_or_null(fcinfo, &call, ledger_run(&update, values, nulls) > 0);
}

PG_FUNCTION_INFO_V1(sessauth_revoke_tenant);

/* revoke_tenant(tenant_id, reason, actor) → event id. */
Datum
sessauth_revoke_tenant(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.tenant SET epoch = epoch + 1 WHERE tenant_id = $1", 1, {TEXTOID}
	};
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	Datum		value;

	access_require(REVOKERS, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	revoke_action_args(fcinfo, 1);
	value = CStringGetTextDatum(tenant_id);
	if (ledger_run(&update, &value, NULL) == 0)
		unknown_tenant(tenant_id);
	return event_or_null(fcinfo, &call, true);
}

PG_FUNCTION_INFO_V1(sessauth_block_user);

/* block_user(tenant_id, user_id, reason, actor) → event id; null when blocked already. Ends every session and refuses new logins. */
Datum
sessauth_block_user(PG_FUNCTION_ARGS)
{
	static LedgerQuery upsert = {
		"INSERT INTO sessauth.tenant_user AS u (tenant_id, user_id, blocked_at) VALUES ($1, $2, sessauth.ledger_time())"
		" ON CONFLICT (tenant_id, user_id) DO UPDATE SET blocked_at = excluded.blocked_at WHERE u.blocked_at IS NULL",
		2, {TEXTOID, TEXTOID}
	};

	return change_user(fcinfo, &upsert, "user_blocked", true);
}

PG_FUNCTION_INFO_V1(sessauth_unblock_user);

/* unblock_user(tenant_id, user_id, reason, actor) → event id; null when not blocked. Sessions of before stay dead. */
Datum
sessauth_unblock_user(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.tenant_user SET blocked_at = NULL WHERE tenant_id = $1 AND user_id = $2 AND blocked_at IS NOT NULL",
		2, {TEXTOID, TEXTOID}
	};

	return change_user(fcinfo, &update, "user_unblocked", false);
}

PG_FUNCTION_INFO_V1(sessauth_suspend_tenant);

/* suspend_tenant(tenant_id, reason, actor) → event id; null when suspended already. */
Datum
sessauth_suspend_tenant(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.tenant SET suspended_at = sessauth.ledger_time() WHERE tenant_id = $1 AND suspended_at IS NULL",
		1, {TEXTOID}
	};

	return change_tenant(fcinfo, &update);
}

PG_FUNCTION_INFO_V1(sessauth_resume_tenant);

/* resume_tenant(tenant_id, reason, actor) → event id; null when not suspended. */
Datum
sessauth_resume_tenant(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.tenant SET suspended_at = NULL WHERE tenant_id = $1 AND suspended_at IS NOT NULL", 1, {TEXTOID}
	};

	return change_tenant(fcinfo, &update);
}

static Datum
change_user(FunctionCallInfo fcinfo, LedgerQuery *query, const char *kind, bool revokes)
{
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	Datum		values[2];

	access_require(REVOKERS, tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	require_tenant(tenant_id);
	revoke_action_args(fcinfo, 2);
	ledger_action.kind = kind;
	ledger_action.revokes_user = revokes;
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = CStringGetTextDatum(user_id);
	return event_or_null(fcinfo, &call, ledger_run(query, values, NULL) > 0);
}

static Datum
change_tenant(FunctionCallInfo fcinfo, LedgerQuery *query)
{
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	Datum		value;

	access_require_owner(fcinfo);
	access_require_own_tenant(tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	require_tenant(tenant_id);
	revoke_action_args(fcinfo, 1);
	value = CStringGetTextDatum(tenant_id);
	return event_or_null(fcinfo, &call, ledger_run(query, &value, NULL) > 0);
}

/* The arguments "reason" and, behind it, "actor". */
void
revoke_action_args(FunctionCallInfo fcinfo, int reason)
{
	ledger_action.reason = optional_text_arg(fcinfo, reason, "reason", REASON_MAX);
	ledger_action.actor = optional_text_arg(fcinfo, reason + 1, "actor", ACTOR_MAX);
}

static void
require_tenant(const char *tenant_id)
{
	Datum		key = CStringGetTextDatum(tenant_id);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	LedgerRow	tenant;
	bool		found = row_find(&table_tenant, snapshot, &key, &tenant);

	UnregisterSnapshot(snapshot);
	if (!found)
		unknown_tenant(tenant_id);
}

static Datum
event_or_null(FunctionCallInfo fcinfo, LedgerCall *call, bool done)
{
	int64		event_id = ledger_action.event_id;

	ledger_end(call);
	if (!done)
		PG_RETURN_NULL();
	PG_RETURN_INT64(event_id);
}

/*
 * logout.c
 *		A user ends an own session, and sees the own devices.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "ledger/bearer.h"
#include "server/rowset.h"

PG_FUNCTION_INFO_V1(sessauth_logout);

/*
 * logout(token) → boolean: ends the session of an access or refresh token, an expired one included (RFC 7009).
 * False, never an error, when the token is not ours or its session has ended. Throws 42501 without access or for
 * another tenant's token in an authenticated transaction.
 */
Datum
sessauth_logout(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = 'logged out'"
		" WHERE session_id = $1 AND ended_at IS NULL", 1, {UUIDOID}
	};
	LedgerCall	call;
	Bearer		bearer;
	bool		ended = false;

	access_require(ACCESS_SERVICE, NULL);
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	bearer_read(fcinfo, call.caller, ACCESS_SERVICE, PG_GETARG_TEXT_PP(0), &bearer);
	if (bearer.has_session)
	{
		Datum		value = UUIDPGetDatum(&bearer.session.session_id);

		access_require_own_tenant(bearer.session.tenant_id);
		ledger_action.kind = "session_logged_out";
		ended = ledger_run(&update, &value, NULL) > 0;
	}
	ledger_end(&call);
	PG_RETURN_BOOL(ended);
}

PG_FUNCTION_INFO_V1(sessauth_list_sessions);

/*
 * list_sessions(tenant_id, user_id) → the live sessions of a user, the newest first. Throws 42501 without access,
 * 22023 for a bad id. An unknown tenant or user has none.
 */
Datum
sessauth_list_sessions(PG_FUNCTION_ARGS)
{
	static LedgerQuery query = {
		"SELECT s.session_id, s.device, s.ip, s.user_agent, s.created_at, s.refreshed_at, least(s.expires_at, s.idle_expires_at)"
		" FROM sessauth.session s"
		" JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id"
		" JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id"
		" WHERE s.tenant_id = $1 AND s.user_id = $2 AND sessauth.session_state(s.ended_at, s.expires_at, s.idle_expires_at,"
		"  s.epoch, u.epoch, s.tenant_epoch, t.epoch) = 'live'"
		" ORDER BY s.created_at DESC, s.session_id", 2, {TEXTOID, TEXTOID}
	};
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	Datum		args[2] = {CStringGetTextDatum(tenant_id), CStringGetTextDatum(user_id)};
	LedgerCall	call;
	Tuplestorestate *rows;
	TupleDesc	desc;
	uint64		count;

	access_require(ACCESS_SERVICE | ACCESS_TENANT_ADMIN, tenant_id);
	rows = rowset_begin(fcinfo, 7, &desc);
	ledger_begin(&call, fcinfo);
	count = ledger_run(&query, args, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		Datum		values[7];
		bool		nulls[7];

		for (int c = 0; c < 7; c++)
			values[c] = ledger_datum(i, c + 1, &nulls[c]);
		tuplestore_putvalues(rows, desc, values, nulls);
	}
	ledger_end(&call);
	return (Datum) 0;
}

/*
 * tenant.c
 *		Tenants and their policies.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "ledger/ledger.h"
#include "ledger/policy.h"

static Datum policy_arg(FunctionCallInfo fcinfo, int n);

PG_FUNCTION_INFO_V1(sessauth_create_tenant);

/* create_tenant(tenant_id text, policy jsonb default '{}') → jsonb: the policy in force. Throws 42710 when it exists, 22023 for a bad id or policy. */
Datum
sessauth_create_tenant(PG_FUNCTION_ARGS)
{
	static LedgerQuery insert = {
		"INSERT INTO sessauth.tenant (tenant_id, policy) VALUES ($1, $2) ON CONFLICT DO NOTHING", 2, {TEXTOID, JSONBOID}
	};
	LedgerCall	call;
	char	   *tenant_id;
	Datum		values[2];

	access_require_owner(fcinfo);
	tenant_id = tenant_id_arg(fcinfo, 0);
	access_require_own_tenant(tenant_id);
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = policy_arg(fcinfo, 1);

	ledger_begin(&call, fcinfo);
	ledger_activate();
	ledger_action.kind = "tenant_created";
	if (ledger_run(&insert, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("tenant \"%s\" already exists", tenant_id),
				 errhint("Change its policy with sessauth.set_policy().")));
	ledger_end(&call);
	PG_RETURN_JSONB_P(policy_effective(DatumGetJsonbP(values[1])));
}

PG_FUNCTION_INFO_V1(sessauth_set_policy);

/* set_policy(tenant_id text, policy jsonb) → jsonb: the policy in force. Replaces the whole policy. */
Datum
sessauth_set_policy(PG_FUNCTION_ARGS)
{
	static LedgerQuery update = {
		"UPDATE sessauth.tenant SET policy = $2 WHERE tenant_id = $1", 2, {TEXTOID, JSONBOID}
	};
	LedgerCall	call;
	char	   *tenant_id;
	Datum		values[2];

	access_require_owner(fcinfo);
	tenant_id = tenant_id_arg(fcinfo, 0);
	access_require_own_tenant(tenant_id);
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = policy_arg(fcinfo, 1);

	ledger_begin(&call, fcinfo);
	ledger_activate();
	if (ledger_run(&update, values, NULL) == 0)
		unknown_tenant(tenant_id);
	ledger_end(&call);
	PG_RETURN_JSONB_P(policy_effective(DatumGetJsonbP(values[1])));
}

PG_FUNCTION_INFO_V1(sessauth_drop_tenant);

/*
 * drop_tenant(tenant_id text) → event id. Ends every session at once; its rows go with it, its history stays.
 * A tenant of the same name that is created later never meets the old tokens. Throws 42704.
 */
Datum
sessauth_drop_tenant(PG_FUNCTION_ARGS)
{
	static LedgerQuery tenant = {"DELETE FROM sessauth.tenant WHERE tenant_id = $1", 1, {TEXTOID}};
	static LedgerQuery users = {"DELETE FROM sessauth.tenant_user WHERE tenant_id = $1", 1, {TEXTOID}};
	static LedgerQuery sessions = {		/* in the order in which everybody locks sessions */
		"DELETE FROM sessauth.session WHERE session_id IN"
		" (SELECT session_id FROM sessauth.session WHERE tenant_id = $1 ORDER BY session_id FOR UPDATE)", 1, {TEXTOID}
	};
	LedgerCall	call;
	char	   *tenant_id;
	Datum		value;
	int64		event_id;

	access_require_owner(fcinfo);
	tenant_id = tenant_id_arg(fcinfo, 0);
	access_require_own_tenant(tenant_id);
	value = CStringGetTextDatum(tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	if (ledger_run(&tenant, &value, NULL) == 0)
		unknown_tenant(tenant_id);
	event_id = ledger_action.event_id;
	ledger_action.part_of_drop = true;	/* the tenant's end says it all */
	ledger_run(&users, &value, NULL);
	ledger_run(&sessions, &value, NULL);
	ledger_end(&call);
	PG_RETURN_INT64(event_id);
}

static Datum
policy_arg(FunctionCallInfo fcinfo, int n)
{
	require_arg(fcinfo, n, "policy");
	policy_check(PG_GETARG_JSONB_P(n));
	return PG_GETARG_DATUM(n);
}

/*
 * access.c
 *		Who may do what.
 *
 * Grants are rows (grants.c); the matching EXECUTE privileges are granted beside
 * them, so that a role without any access is stopped by PostgreSQL itself.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ledger/identity.h"
#include "ledger/ledger.h"

/* Which access may call what. PostgreSQL checks EXECUTE, the functions check the tenant. */
static const struct
{
	const char *object;			/* as GRANT takes it */
	int			accesses;
}			privileges[] = {
	{"EXECUTE ON FUNCTION sessauth.issue_session(text, text, text, inet, text, jsonb)", ACCESS_SERVICE},
	{"EXECUTE ON FUNCTION sessauth.refresh_session(text, inet, text)", ACCESS_SERVICE},
	{"EXECUTE ON FUNCTION sessauth.verify(text)", ACCESS_SERVICE | ACCESS_NODE},
	{"EXECUTE ON FUNCTION sessauth.introspect(text)", ACCESS_SERVICE | ACCESS_NODE},
	{"EXECUTE ON FUNCTION sessauth.logout(text)", ACCESS_SERVICE},
	{"EXECUTE ON FUNCTION sessauth.list_sessions(text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.authenticate(text), sessauth.current_tenant(), sessauth.current_user_id(),"
		" sessauth.current_session_id()", ACCESS_SERVICE | ACCESS_NODE},
	{"EXECUTE ON FUNCTION sessauth.block_user(text, text, text, text), sessauth.unblock_user(text, text, text, text)",
	ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.jwks()", ACCESS_SERVICE | ACCESS_NODE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.link_key(), sessauth.lease(text, interval, uuid, bigint, bigint), sessauth.end_lease(text),"
		" sessauth.revocations_packed(uuid, bigint)", ACCESS_NODE},
	{"EXECUTE ON FUNCTION sessauth.revoke_session(text, uuid, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_user(text, text, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_other_sessions(text, text, uuid, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_tenant(text, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.receipt(bigint), sessauth.await_receipt(bigint, interval)",
	ACCESS_SERVICE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.revocations_since(uuid, bigint)", ACCESS_SERVICE | ACCESS_NODE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.reads_all()", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.reads_tenants(), sessauth.reads_from(), sessauth.reads_to(),"
		" sessauth.in_reach(text)", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.session_state(timestamptz, timestamptz, timestamptz, bigint, bigint, bigint, bigint)",
	ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.mirror_status(), sessauth.node_status(), sessauth.status()", ACCESS_AUDITOR},
	{"SELECT ON sessauth.sessions, sessauth.history, sessauth.revocations", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"SELECT ON sessauth.keys, sessauth.propagation, sessauth.propagation_histogram", ACCESS_AUDITOR},
	{"SELECT (kid, alg, public_jwk, created_at, retired_at, revoked_at) ON sessauth.signing_key", ACCESS_AUDITOR},
	{"SELECT ON sessauth.mirrors, sessauth.nodes, sessauth.mirror, sessauth.mirror_state", ACCESS_AUDITOR},
	{"SELECT ON sessauth.tenant, sessauth.tenant_user, sessauth.event, sessauth.arrival", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"SELECT (session_id, tenant_id, user_id, epoch, tenant_epoch, version, created_at, refreshed_at, expires_at,"
		" idle_expires_at, access_expires_at, ended_at, end_reason, device, ip, user_agent) ON sessauth.session",
	ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
};

static char *role_arg(FunctionCallInfo fcinfo, int n);
static void change_privileges(const char *verb, const char *direction, int accesses, const char *role);
static void forbid(const char *tenant_id) compat_noreturn;

void
access_require(int accesses, const char *tenant_id)
{
	if (!access_allows(GetUserId(), accesses, tenant_id))
		forbid(tenant_id);
	if (tenant_id != NULL)
		access_require_own_tenant(tenant_id);
}

void
access_require_own_tenant(const char *tenant_id)
{
	if (identity_tenant() == NULL || (tenant_id != NULL && strcmp(identity_tenant(), tenant_id) == 0))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 tenant_id ? errmsg("permission denied for tenant \"%s\"", tenant_id) : errmsg("permission denied for every tenant"),
			 errdetail("The transaction is authenticated for another tenant."),
			 errhint("Call it in a transaction of its own.")));
}

void
access_require_owner(FunctionCallInfo fcinfo)
{
	HeapTuple	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Oid			owner = HeapTupleIsValid(proc) ? ((Form_pg_proc) GETSTRUCT(proc))->proowner : InvalidOid;

	if (HeapTupleIsValid(proc))
		ReleaseSysCache(proc);
	if (!superuser() && GetUserId() != owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", get_func_name(fcinfo->flinfo->fn_oid)),
				 errhint("Only superusers and the owner of the extension may call it.")));
}

/* The tenant is named as the caller named it, whether it exists or not. */
static void
forbid(const char *tenant_id)
{
	if (tenant_id)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for tenant \"%s\"", tenant_id),
				 errhint("An administrator grants access with sessauth.grant_access().")));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for this call of sessauth"),
			 errhint("An administrator grants access with sessauth.grant_access().")));
}

PG_FUNCTION_INFO_V1(sessauth_grant_access);

/* grant_access(role text, access text, tenant_id text default null) → void. Throws 42704 for an unknown role or tenant, 22023 for an unknown access. */
Datum
sessauth_grant_access(PG_FUNCTION_ARGS)
{
	static LedgerQuery lock = {"LOCK TABLE sessauth.access IN SHARE ROW EXCLUSIVE MODE"};
	static LedgerQuery insert = {
		"INSERT INTO sessauth.access (role_name, access, tenant_id, role_id) SELECT $1, $2, $3, $4 WHERE NOT EXISTS"
		" (SELECT FROM sessauth.access WHERE role_id = $4 AND access = $2 AND tenant_id IS NOT DISTINCT FROM $3)",
		4, {TEXTOID, TEXTOID, TEXTOID, OIDOID}
	};
	static LedgerQuery tenant = {"SELECT 1 FROM sessauth.tenant WHERE tenant_id = $1", 1, {TEXTOID}};
	LedgerCall	call;
	Datum		values[4];
	bool		nulls[4] = {false, false, PG_ARGISNULL(2), false};
	char	   *role;
	char	   *name;
	int			access;

	access_require_owner(fcinfo);
	role = role_arg(fcinfo, 0);
	values[3] = ObjectIdGetDatum(get_role_oid(role, false));
	require_arg(fcinfo, 1, "access");
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	access = access_parse(name);
	values[0] = CStringGetTextDatum(role);
	values[1] = CStringGetTextDatum(name);
	values[2] = PG_ARGISNULL(2) ? (Datum) 0 : CStringGetTextDatum(tenant_id_arg(fcinfo, 2));
	access_require_own_tenant(nulls[2] ? NULL : TextDatumGetCString(values[2]));
	if (access == ACCESS_TENANT_ADMIN && nulls[2])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("access \"tenant_admin\" needs a tenant"),
				 errhint("Pass the tenant as the third argument.")));
	if (access == ACCESS_NODE && !nulls[2])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("access \"node\" cannot be limited to a tenant"),
				 errdetail("A node verifies the tokens of every tenant.")));

	ledger_begin(&call, fcinfo);
	ledger_activate();
	if (!nulls[2] && ledger_run(&tenant, &values[2], NULL) == 0)
		unknown_tenant(TextDatumGetCString(values[2]));
	ledger_run(&lock, NULL, NULL);
	access_follow_names();
	ledger_run(&insert, values, nulls);
	change_privileges("GRANT", "TO", access, role);
	ledger_end(&call);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sessauth_revoke_access);

/* revoke_access(role text, access text, tenant_id text default null) → boolean: false when there was no such grant. */
Datum
sessauth_revoke_access(PG_FUNCTION_ARGS)
{
	static LedgerQuery delete = {
		"DELETE FROM sessauth.access WHERE role_name = $1 AND access = $2 AND tenant_id IS NOT DISTINCT FROM $3",
		3, {TEXTOID, TEXTOID, TEXTOID}
	};
	static LedgerQuery rest = {
		"SELECT access FROM sessauth.access WHERE role_id = (SELECT oid FROM pg_roles WHERE rolname = $1)", 1, {TEXTOID}
	};
	LedgerCall	call;
	Datum		values[3];
	bool		nulls[3] = {false, false, PG_ARGISNULL(2)};
	char	   *role;
	char	   *name;
	int			access;
	bool		deleted;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "role");
	require_arg(fcinfo, 1, "access");
	role = text_to_cstring(PG_GETARG_TEXT_PP(0));
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	access = access_parse(name);
	values[0] = CStringGetTextDatum(role);
	values[1] = CStringGetTextDatum(name);
	values[2] = PG_ARGISNULL(2) ? (Datum) 0 : CStringGetTextDatum(tenant_id_arg(fcinfo, 2));
	access_require_own_tenant(nulls[2] ? NULL : TextDatumGetCString(values[2]));

	ledger_begin(&call, fcinfo);
	ledger_activate();
	access_follow_names();
	deleted = ledger_run(&delete, values, nulls) > 0;

	/* What another grant of the same role still needs is granted again. A role that was dropped has no privileges left. */
	if (deleted && OidIsValid(get_role_oid(role, true)))
	{
		uint64		count;
		int			left = 0;

		count = ledger_run(&rest, values, NULL);
		for (uint64 i = 0; i < count; i++)
			left |= access_parse(ledger_text(i, 1));
		change_privileges("REVOKE", "FROM", access, role);
		if (left)
			change_privileges("GRANT", "TO", left, role);
	}
	ledger_end(&call);
	PG_RETURN_BOOL(deleted);
}

static void
change_privileges(const char *verb, const char *direction, int accesses, const char *role)
{
	char	   *statement = psprintf("%s USAGE ON SCHEMA sessauth %s %s", verb, direction, quote_identifier(role));

	if (SPI_execute(statement, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not change the privileges on the schema");
	for (int i = 0; i < lengthof(privileges); i++)
	{
		if ((privileges[i].accesses & accesses) == 0)
			continue;
		statement = psprintf("%s %s %s %s", verb, privileges[i].object, direction, quote_identifier(role));
		if (SPI_execute(statement, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not change a privilege");
	}
}

void
access_renew_privileges(void)
{
	static LedgerQuery grants = {
		"SELECT r.rolname, a.access FROM sessauth.access a JOIN pg_roles r ON r.oid = a.role_id ORDER BY 1, 2"
	};
	uint64		count = ledger_run(&grants, NULL, NULL);
	char	  **roles = palloc(count * sizeof(char *));
	int		   *accesses = palloc(count * sizeof(int));

	for (uint64 i = 0; i < count; i++)
	{
		roles[i] = ledger_text(i, 1);
		accesses[i] = access_parse(ledger_text(i, 2));
	}
	for (uint64 i = 0; i < count; i++)
		change_privileges("GRANT", "TO", accesses[i], roles[i]);
}

void
access_withdraw(const char *table)
{
	static LedgerQuery query = {
		"SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
		" FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1::regclass AND a.grantee <> c.relowner", 1, {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(table);
	uint64		count = ledger_run(&query, &value, NULL);
	char	  **strangers = palloc(sizeof(char *) * (count + 1));

	for (uint64 i = 0; i < count; i++)
		strangers[i] = ledger_text(i, 1);
	for (uint64 i = 0; i < count; i++)
		if (SPI_execute(psprintf("REVOKE ALL ON TABLE %s FROM %s", table, strangers[i]), false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not withdraw a privilege");
}

static char *
role_arg(FunctionCallInfo fcinfo, int n)
{
	char	   *role;

	require_arg(fcinfo, n, "role");
	role = text_to_cstring(PG_GETARG_TEXT_PP(n));
	(void) get_role_oid(role, false);
	return role;
}

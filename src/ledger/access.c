/*
 * access.c
 *		Who may do what.
 *
 * Grants are rows (role by name, access, tenant), so that a dump carries them;
 * the matching EXECUTE privileges are granted beside them, so that a role
 * without any access is stopped by PostgreSQL itself. What a row allows holds for every role
 * that has the privileges of the named one, as with any grant in PostgreSQL.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "ledger/identity.h"
#include "ledger/ledger.h"

typedef struct Grant
{
	char	   *role_name;
	int			access;
	char	   *tenant_id;		/* NULL: every tenant */
} Grant;

/* The rows of sessauth.access as this process last read them. */
static struct
{
	bool		valid;
	bool		registered;
	uint64		changes;		/* invalidations seen so far */
	Oid			relid;
	MemoryContext context;
	Grant	   *grants;
	int			count;
} cache;

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
	{"EXECUTE ON FUNCTION sessauth.link_key()", ACCESS_NODE},
	{"EXECUTE ON FUNCTION sessauth.revoke_session(text, uuid, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_user(text, text, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_other_sessions(text, text, uuid, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.revoke_tenant(text, text, text)", ACCESS_SERVICE | ACCESS_TENANT_ADMIN},
	{"EXECUTE ON FUNCTION sessauth.reads_all()", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.reads_tenants()", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.session_state(timestamptz, timestamptz, timestamptz, bigint, bigint, bigint, bigint)",
	ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"EXECUTE ON FUNCTION sessauth.mirror_status(), sessauth.node_status()", ACCESS_AUDITOR},
	{"SELECT ON sessauth.sessions, sessauth.history, sessauth.revocations", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"SELECT ON sessauth.keys", ACCESS_AUDITOR},
	{"SELECT (kid, alg, public_jwk, created_at, retired_at, revoked_at) ON sessauth.signing_key", ACCESS_AUDITOR},
	{"SELECT ON sessauth.mirrors, sessauth.nodes, sessauth.mirror, sessauth.mirror_state", ACCESS_AUDITOR},
	{"SELECT ON sessauth.tenant, sessauth.tenant_user, sessauth.event", ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
	{"SELECT (session_id, tenant_id, user_id, epoch, tenant_epoch, version, created_at, refreshed_at, expires_at,"
		" idle_expires_at, access_expires_at, ended_at, end_reason, device, ip, user_agent) ON sessauth.session",
	ACCESS_TENANT_ADMIN | ACCESS_AUDITOR},
};

static int	access_parse(const char *name);
static char *role_arg(FunctionCallInfo fcinfo, int n);
static void load_grants(void);
static void forget_grants(Datum arg, Oid relid);
static bool role_matches(const Grant *grant, Oid role);
static void change_privileges(const char *verb, const char *direction, int accesses, const char *role);
static void forbid(const char *tenant_id) compat_noreturn;

bool
access_allows(Oid role, int accesses, const char *tenant_id)
{
	if (superuser_arg(role))
		return true;
	load_grants();
	for (int i = 0; i < cache.count; i++)
	{
		const Grant *grant = &cache.grants[i];

		if ((grant->access & accesses) == 0)
			continue;
		if (tenant_id != NULL && grant->tenant_id != NULL && strcmp(grant->tenant_id, tenant_id) != 0)
			continue;
		if (role_matches(grant, role))
			return true;
	}
	return false;
}

bool
access_is_unlimited(Oid role, int accesses)
{
	if (superuser_arg(role))
		return true;
	load_grants();
	for (int i = 0; i < cache.count; i++)
		if ((cache.grants[i].access & accesses) != 0 && cache.grants[i].tenant_id == NULL &&
			role_matches(&cache.grants[i], role))
			return true;
	return false;
}

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
	static LedgerQuery insert = {
		"INSERT INTO sessauth.access (role_name, access, tenant_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
		3, {TEXTOID, TEXTOID, TEXTOID}
	};
	static LedgerQuery tenant = {"SELECT 1 FROM sessauth.tenant WHERE tenant_id = $1", 1, {TEXTOID}};
	LedgerCall	call;
	Datum		values[3];
	bool		nulls[3] = {false, false, PG_ARGISNULL(2)};
	char	   *role;
	char	   *name;
	int			access;

	access_require_owner(fcinfo);
	role = role_arg(fcinfo, 0);
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
	static LedgerQuery rest = {"SELECT access FROM sessauth.access WHERE role_name = $1", 1, {TEXTOID}};
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

static int
access_parse(const char *name)
{
	if (strcmp(name, "service") == 0)
		return ACCESS_SERVICE;
	if (strcmp(name, "node") == 0)
		return ACCESS_NODE;
	if (strcmp(name, "tenant_admin") == 0)
		return ACCESS_TENANT_ADMIN;
	if (strcmp(name, "auditor") == 0)
		return ACCESS_AUDITOR;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown access \"%s\"", name),
			 errhint("Use service, node, tenant_admin or auditor.")));
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

static bool
role_matches(const Grant *grant, Oid role)
{
	Oid			granted = get_role_oid(grant->role_name, true);

	return OidIsValid(granted) && has_privs_of_role(role, granted);
}

static void
load_grants(void)
{
	static LedgerQuery query = {"SELECT role_name, access, tenant_id FROM sessauth.access"};
	Oid			relid = get_relname_relid("access", get_namespace_oid("sessauth", false));
	MemoryContext context;
	MemoryContext old;
	Grant	   *grants;
	uint64		count;
	uint64		changes;
	Oid			save_user;
	int			save_sec;
	HeapTuple	class;
	Oid			owner;

	/* A change that committed since the last statement must count now. */
	AcceptInvalidationMessages();
	if (cache.valid && cache.relid == relid)
		return;
	if (!cache.registered)
	{
		CacheRegisterRelcacheCallback(forget_grants, (Datum) 0);
		cache.registered = true;
	}

	class = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(class))
		elog(ERROR, "table sessauth.access is missing");
	owner = ((Form_pg_class) GETSTRUCT(class))->relowner;
	ReleaseSysCache(class);

	/* Reading the grants is not something the caller may do; an error's abort restores the user. */
	GetUserIdAndSecContext(&save_user, &save_sec);
	SetUserIdAndSecContext(owner, save_sec | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	cache.relid = relid;
	changes = cache.changes;
	context = AllocSetContextCreate(CurrentMemoryContext, "sessauth grants", ALLOCSET_SMALL_SIZES);
	count = ledger_run(&query, NULL, NULL);
	old = MemoryContextSwitchTo(context);
	grants = palloc0(sizeof(Grant) * (count + 1));
	for (uint64 i = 0; i < count; i++)
	{
		char	   *access = ledger_text(i, 2);

		grants[i].role_name = ledger_text(i, 1);
		grants[i].access = access_parse(access);
		grants[i].tenant_id = ledger_text(i, 3);
	}
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	SPI_finish();
	SetUserIdAndSecContext(save_user, save_sec);

	if (cache.context)
		MemoryContextDelete(cache.context);
	cache.context = context;
	cache.grants = grants;
	cache.count = (int) count;
	cache.valid = cache.changes == changes; /* an invalidation may have arrived while we read */
}

static void
forget_grants(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == cache.relid)
	{
		cache.valid = false;
		cache.changes++;
	}
}

PG_FUNCTION_INFO_V1(sessauth_reads_all);

/* reads_all() → boolean: the current user may read every tenant. For policies. */
Datum
sessauth_reads_all(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(access_is_unlimited(GetUserId(), ACCESS_AUDITOR));
}

PG_FUNCTION_INFO_V1(sessauth_reads_tenants);

/* reads_tenants() → text[]: the tenants that the current user may read. For policies. */
Datum
sessauth_reads_tenants(PG_FUNCTION_ARGS)
{
	Oid			role = GetUserId();
	Datum	   *tenants;
	int			count = 0;

	load_grants();
	tenants = palloc(sizeof(Datum) * (cache.count + 1));
	for (int i = 0; i < cache.count; i++)
		if ((cache.grants[i].access & (ACCESS_AUDITOR | ACCESS_TENANT_ADMIN)) && cache.grants[i].tenant_id &&
			role_matches(&cache.grants[i], role))
			tenants[count++] = CStringGetTextDatum(cache.grants[i].tenant_id);
	PG_RETURN_ARRAYTYPE_P(construct_array(tenants, count, TEXTOID, -1, false, TYPALIGN_INT));
}

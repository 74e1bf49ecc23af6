/*
 * grants.c
 *		The grants of access: which role has which access to which tenant.
 *
 * A grant holds for every role that has the privileges of the granted one, as with any grant in PostgreSQL.
 *
 * A row has the role's id, which is what counts, and its name, which a dump
 * carries. Were it the name that counts, a renamed role would lose its access, and the next role of that
 * name would find it. Only while the ledger is dormant, fresh from a dump, do names count: its ids are another cluster's.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "ledger/ledger.h"

typedef struct Grant
{
	char	   *role_name;
	Oid			role;			/* InvalidOid: there was no role of that name when the ledger became active */
	int			access;
	char	   *tenant_id;		/* NULL: every tenant */
} Grant;

/* The rows of sessauth.access as this process last read them. */
static struct
{
	bool		valid;
	bool		registered;
	bool		by_name;		/* the ledger is dormant */
	uint64		changes;		/* invalidations seen so far */
	Oid			relid;
	MemoryContext context;
	Grant	   *grants;
	int			count;
} cache;

static void load_grants(void);
static void forget_grants(Datum arg, Oid relid);
static bool role_matches(const Grant *grant, Oid role);

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

int
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

void
access_bind_roles(void)
{
	static LedgerQuery bind = {
		"UPDATE sessauth.access SET role_id = (SELECT r.oid FROM pg_roles r WHERE r.rolname = role_name)"
	};

	ledger_run(&bind, NULL, NULL);
	CacheInvalidateRelcacheByRelid(ledger_relid("access"));
}

void
access_follow_names(void)
{
	static LedgerQuery follow = {
		"UPDATE sessauth.access a SET role_name = r.rolname FROM pg_roles r WHERE r.oid = a.role_id AND r.rolname <> a.role_name"
	};

	ledger_run(&follow, NULL, NULL);
}

static bool
role_matches(const Grant *grant, Oid role)
{
	Oid			granted = cache.by_name ? get_role_oid(grant->role_name, true) : grant->role;

	return OidIsValid(granted) && has_privs_of_role(role, granted);
}

static void
load_grants(void)
{
	static LedgerQuery query = {"SELECT role_name, access, tenant_id, role_id FROM sessauth.access"};
	Oid			relid = ledger_relid("access");
	MemoryContext context;
	MemoryContext old;
	Grant	   *grants;
	uint64		count;
	uint64		changes;
	Oid			save_user;
	int			save_sec;
	HeapTuple	class;
	Oid			owner;
	bool		by_name;

	/* A change that committed since the last statement must count now. */
	AcceptInvalidationMessages();
	if (cache.valid && cache.relid == relid)
		return;
	ledger_check_library();
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
	by_name = !ledger_is_active();
	context = AllocSetContextCreate(CurrentMemoryContext, "sessauth grants", ALLOCSET_SMALL_SIZES);
	count = ledger_run(&query, NULL, NULL);
	old = MemoryContextSwitchTo(context);
	grants = palloc0(sizeof(Grant) * (count + 1));
	for (uint64 i = 0; i < count; i++)
	{
		char	   *access = ledger_text(i, 2);
		bool		isnull;
		Datum		role = ledger_datum(i, 4, &isnull);

		grants[i].role_name = ledger_text(i, 1);
		grants[i].role = isnull ? InvalidOid : DatumGetObjectId(role);
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
	cache.by_name = by_name;
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

bool
access_range(Oid role, int accesses, const char **first, const char **last)
{
	*first = *last = NULL;
	load_grants();
	for (int i = 0; i < cache.count; i++)
	{
		const Grant *grant = &cache.grants[i];

		if ((grant->access & accesses) == 0 || grant->tenant_id == NULL || !role_matches(grant, role))
			continue;
		if (*first == NULL || strcmp(grant->tenant_id, *first) < 0)
			*first = grant->tenant_id;
		if (*last == NULL || strcmp(grant->tenant_id, *last) > 0)
			*last = grant->tenant_id;
	}
	return *first != NULL;
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

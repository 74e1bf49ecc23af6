/*
 * status.c
 *		status(): what a doctor would look at.
 *
 * It is called when something is broken, so it must not need anything to be
 * whole: neither a preloaded library, nor a worker, nor a primary. It stays outside the frame of the
 * other calls, which refuse to work without those.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "ledger/status.h"
#include "server/rowset.h"

#define LOCK_TIMEOUT	"1s"	/* a table that somebody has locked is a finding, too, and none to wait for */

static Tuplestorestate *rows = NULL;
static TupleDesc row_desc;

static Oid	function_owner(FunctionCallInfo fcinfo);
static void run_check(const StatusCheck *check, Oid owner);
static void tell_error(const char *name, MemoryContext context);

PG_FUNCTION_INFO_V1(sessauth_status);

/*
 * status() → check_name, state (ok, warning, error), detail, hint. To an auditor of one tenant, no rows: none is about a tenant.
 * Throws 42501 unless the caller is the owner or an auditor.
 */
Datum
sessauth_status(PG_FUNCTION_ARGS)
{
	Oid			owner = function_owner(fcinfo);
	bool		is_owner = superuser() || GetUserId() == owner;

	if (!is_owner)
		access_require(ACCESS_AUDITOR, NULL);
	rows = rowset_begin(fcinfo, 4, &row_desc);
	if (is_owner || access_is_unlimited(GetUserId(), ACCESS_AUDITOR))
	{
		for (const StatusCheck *check = status_server_checks; check->name; check++)
			run_check(check, owner);
		for (const StatusCheck *check = status_ledger_checks; check->name; check++)
			run_check(check, owner);
	}
	rows = NULL;
	return (Datum) 0;
}

static Oid
function_owner(FunctionCallInfo fcinfo)
{
	HeapTuple	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Oid			owner;

	if (!HeapTupleIsValid(proc))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(proc))->proowner;
	ReleaseSysCache(proc);
	return owner;
}

void
status_row(const char *check, const char *state, const char *detail, const char *hint)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, detail == NULL, hint == NULL};

	values[0] = CStringGetTextDatum(check);
	values[1] = CStringGetTextDatum(state);
	values[2] = detail ? CStringGetTextDatum(detail) : (Datum) 0;
	values[3] = hint ? CStringGetTextDatum(hint) : (Datum) 0;
	tuplestore_putvalues(rows, row_desc, values, nulls);
}

static void
run_check(const StatusCheck *check, Oid owner)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	Oid			caller;
	int			sec_context;
	int			guc_level;

	GetUserIdAndSecContext(&caller, &sec_context);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
		guc_level = NewGUCNestLevel();
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		SPI_connect();
		MemoryContextSwitchTo(context);
		check->run(check->name);
		SPI_finish();
		AtEOXact_GUC(false, guc_level);
		SetUserIdAndSecContext(caller, sec_context);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		tell_error(check->name, context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
}

static void
tell_error(const char *name, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);

	/* Somebody wants the whole call to end; that is not a finding. */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	status_row(name, "error", psprintf("The check itself failed: %s", error->message),
			   error->hint ? error->hint : "See the server's log; the tables of the extension may be damaged or of another version.");
	FreeErrorData(error);
}

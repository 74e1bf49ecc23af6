/*
 * frame.c
 *		The frame of every call into the ledger: rights, search path, statements.
 *
 * Entry points are SECURITY INVOKER. They authorise the role that called and
 * only then take the owner's rights for their own statements, whose text is
 * fixed. A definer function would do that the other way round, and would make
 * the caller invisible to the check.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "ledger/identity.h"
#include "ledger/ledger.h"
#include "ledger/tables.h"
#include "server/extension.h"
#include "server/shmem.h"

LedgerAction ledger_action;

/* The relation whose row makes a ledger active, when this process has seen that row; else InvalidOid. */
static Oid	active_relid = InvalidOid;

static void check_preloaded(void);
static void take_share(void);
static void forget_at_abort(XactEvent event, void *arg);
static void forget_at_subabort(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg);

void
ledger_init(void)
{
	RegisterXactCallback(forget_at_abort, NULL);
	RegisterSubXactCallback(forget_at_subabort, NULL);
}

void
ledger_begin(LedgerCall *call, FunctionCallInfo fcinfo)
{
	MemoryContext context;
	HeapTuple	proc;
	Oid			owner;

	ledger_check_library();

	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	if (!HeapTupleIsValid(proc))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(proc))->proowner;
	ReleaseSysCache(proc);

	GetUserIdAndSecContext(&call->caller, &call->sec_context);
	SetUserIdAndSecContext(owner, call->sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	call->guc_level = NewGUCNestLevel();

	/* Recomputing the path costs more than comparing it; triggers under our own statements find it set. */
	if (strcmp(namespace_search_path, "pg_catalog, pg_temp") != 0)
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);

	/* Results are made in the caller's memory context, so that they outlive SPI_finish. */
	context = CurrentMemoryContext;
	SPI_connect();
	MemoryContextSwitchTo(context);

	/* A frame inside another, as a trigger's, belongs to the same action. */
	call->is_inner = CALLED_AS_TRIGGER(fcinfo) || ledger_action.in_call;
	if (!call->is_inner)
	{
		memset(&ledger_action, 0, sizeof(ledger_action));
		ledger_action.in_call = true;
	}
}

void
ledger_end(LedgerCall *call)
{
	if (!call->is_inner)
		memset(&ledger_action, 0, sizeof(ledger_action));
	SPI_finish();
	AtEOXact_GUC(false, call->guc_level);
	SetUserIdAndSecContext(call->caller, call->sec_context);
}

void
ledger_go_by_index(void)
{
	static const char *const settings[][2] = {
		{"enable_seqscan", "off"}, {"enable_bitmapscan", "off"}, {"enable_hashjoin", "off"}, {"enable_mergejoin", "off"},
		{"plan_cache_mode", "force_generic_plan"}, {"jit", "off"}	/* which goes by the cost of what is "off" */
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

bool
ledger_is_active(void)
{
	Datum		key = BoolGetDatum(true);
	Snapshot	snapshot;
	LedgerRow	row;
	bool		active;

	if (OidIsValid(active_relid) && active_relid == ledger_relid(table_state.name))
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	active = row_find(&table_state, snapshot, &key, &row);
	UnregisterSnapshot(snapshot);
	active_relid = active ? table_state.relid : InvalidOid;
	return active;
}

/*
 * A restored ledger must stay silent while rows arrive by COPY, so nothing but
 * a call that means to write wakes it. Events that are there by then came with the restore.
 */
void
ledger_activate(void)
{
	static LedgerQuery insert = {
		"INSERT INTO sessauth.ledger_state (system_id, database_oid, timeline, floor)"
		" SELECT s.system_identifier, d.oid, c.timeline_id, coalesce((SELECT max(event_id) FROM sessauth.event), 0)"
		" FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d"
		" WHERE d.datname = current_database()"
		" ON CONFLICT DO NOTHING"
	};

	/* Rows are written without statements, so nobody else would refuse it, least of all on a standby. */
	PreventCommandIfReadOnly("a call that changes the ledger");

	if (ledger_is_active())
		return;

	/* Who comes second must wait while he holds no lock on the history yet: the first one needs it for himself, to make its months. */
	LockRelationOid(ledger_relid(table_state.name), ShareRowExclusiveLock);
	if (ledger_is_active())
		return;
	access_bind_roles();
	if (ledger_run(&insert, NULL, NULL) > 0)
		history_create_months();
}

uint64
ledger_run(LedgerQuery *query, Datum *values, const bool *nulls)
{
	return ledger_run_at(query, values, nulls, GetLatestSnapshot());
}

uint64
ledger_run_at(LedgerQuery *query, Datum *values, const bool *nulls, Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	char		spinulls[LEDGER_ARGS_MAX];
	int			result;

	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->sql, query->nargs, query->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a statement of the ledger");
		query->plan = plan;
	}
	for (int i = 0; i < query->nargs; i++)
		spinulls[i] = (nulls != NULL && nulls[i]) ? 'n' : ' ';

	result = SPI_execute_snapshot(query->plan, values, spinulls, snapshot, InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "a statement of the ledger failed: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

TupleDesc
ledger_result(LedgerResult *result, FunctionCallInfo fcinfo, int natts)
{
	MemoryContext old;
	TupleDesc	desc;

	if (result->function == fcinfo->flinfo->fn_oid)
		return result->desc;
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != natts)
		elog(ERROR, "sessauth: the function's result type is not what the library was built for");
	result->function = InvalidOid;
	if (result->desc)
		FreeTupleDesc(result->desc);
	result->desc = NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	result->desc = BlessTupleDesc(CreateTupleDescCopy(desc));
	MemoryContextSwitchTo(old);
	result->function = fcinfo->flinfo->fn_oid;
	return result->desc;
}

Datum
ledger_datum(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

char *
ledger_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

int64
ledger_int8(uint64 row, int column)
{
	bool		isnull;
	Datum		value = ledger_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

TimestampTz
ledger_time(uint64 row, int column)
{
	bool		isnull;
	Datum		value = ledger_datum(row, column, &isnull);

	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

bool
ledger_isnull(uint64 row, int column)
{
	bool		isnull;

	(void) ledger_datum(row, column, &isnull);
	return isnull;
}

PG_FUNCTION_INFO_V1(sessauth_library_version);

/* library_version() → text. Throws when the library was not preloaded; the install script calls it first. */
Datum
sessauth_library_version(PG_FUNCTION_ARGS)
{
	check_preloaded();
	PG_RETURN_TEXT_P(cstring_to_text(SESSAUTH_VERSION));
}

void
ledger_check_library(void)
{
	check_preloaded();
	take_share();
	extension_require_match();
}

static void
check_preloaded(void)
{
	if (!sessauth_preloaded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sessauth must be loaded by shared_preload_libraries"),
				 errdetail("Its worker would not run, and nobody would hear of a revocation."),
				 errhint("Set shared_preload_libraries = 'sessauth' in postgresql.conf and restart the server.")));
}

/*
 * ALTER EXTENSION UPDATE begins by locking this table against everybody (sql/upgrade). As every call takes it
 * before any other, the update waits for what is under way, and deadlocks with no call.
 */
static void
take_share(void)
{
	Oid			relid = ledger_relid("ledger_state");

	if (OidIsValid(relid))
		LockRelationOid(relid, AccessShareLock);
}

/* What a transaction said about the ledger's state or about who acts is void once it aborts. */
static void
forget_at_abort(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		identity_forget();
	if (event == XACT_EVENT_ABORT)
	{
		active_relid = InvalidOid;
		memset(&ledger_action, 0, sizeof(ledger_action));
	}
}

static void
forget_at_subabort(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB || event == SUBXACT_EVENT_COMMIT_SUB)
		identity_subtransaction(event == SUBXACT_EVENT_ABORT_SUB, sub, parent);
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		active_relid = InvalidOid;
		memset(&ledger_action, 0, sizeof(ledger_action));
	}
}

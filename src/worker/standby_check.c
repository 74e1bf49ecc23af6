/*
 * standby_check.c
 *		A standby that could not take over says so when it starts, not when it is promoted.
 *
 * Its master key is compared with what the ledgers remember of theirs. One
 * process lists the databases and starts another for each, one at a time, because a process can
 * connect to only one; all of them are gone after a moment. On a primary the first one ends at once.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "server/keyring.h"
#include "worker/launcher.h"

PGDLLEXPORT void sessauth_standby_check_main(Datum arg);

static void describe(BackgroundWorker *worker, Oid database);
static List *list_databases(void);
static bool check_database(Oid database);
static void check_here(void);

void
standby_check_register(void)
{
	BackgroundWorker worker;

	describe(&worker, InvalidOid);
	RegisterBackgroundWorker(&worker);
}

static void
describe(BackgroundWorker *worker, Oid database)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_ConsistentState;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(worker->bgw_library_name, "sessauth", BGW_MAXLEN);
	strlcpy(worker->bgw_function_name, "sessauth_standby_check_main", BGW_MAXLEN);
	strlcpy(worker->bgw_name, "sessauth standby check", BGW_MAXLEN);
	strlcpy(worker->bgw_type, "sessauth standby check", BGW_MAXLEN);
}

void
sessauth_standby_check_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	ListCell   *cell;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!RecoveryInProgress())
		proc_exit(0);

	if (OidIsValid(database))
	{
		BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
		check_here();
		proc_exit(0);
	}
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	foreach(cell, list_databases())
		if (!check_database(lfirst_oid(cell)))
			break;
	proc_exit(0);
}

static List *
list_databases(void)
{
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && !database->datistemplate)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			databases = lappend_oid(databases, database->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

static bool
check_database(Oid database)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	describe(&worker, database);
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		ereport(LOG,
				(errmsg("sessauth could not check the master key of this standby: no free background worker slot"),
				 errhint("Raise max_worker_processes, or ask each database: SELECT * FROM sessauth.status().")));
		return false;
	}
	if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	return true;
}

/* As a superuser: only tables of the extension are read, and by no name that somebody else could take. */
static void
check_here(void)
{
	MasterKeyProblem problem;

	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(get_extension_oid("sessauth", true)))
	{
		SPI_connect();
		if (!keyring_matches(&problem))
			ereport(WARNING,
					(errmsg("sessauth: after a failover to this standby, nobody could log in to database \"%s\": %s",
							get_database_name(MyDatabaseId), problem.message),
					 problem.detail[0] ? errdetail("%s", problem.detail) : 0,
					 errhint("%s", problem.hint)));
		SPI_finish();
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * launcher.c
 *		Starts one worker per database that has the extension.
 *
 * It is connected to no database, so it stands in nobody's way. It cannot see
 * from outside whether a database has the extension, so a worker looks from
 * inside and ends at once where there is none; the launcher asks again only
 * when a database is new or somebody requests it (CREATE EXTENSION, or a commit that found no worker).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/shmem.h"
#include "worker/launcher.h"

#define SCAN_INTERVAL_MS	10000	/* databases made from a template announce themselves to nobody */
#define BACKOFF_FIRST_MS	100
#define BACKOFF_MAX_MS		60000
#define STEADY_MS			60000	/* a worker that ran for so long did not fail at starting */

PGDLLEXPORT void sessauth_launcher_main(Datum arg);

/* What the launcher remembers about one database; lost with it, which costs one look at each. */
typedef struct Known
{
	Oid			database;
	bool		absent;			/* looked, no extension */
	bool		seen;			/* mark of the current scan */
	bool		told;			/* that there is no place for its worker */
	int			backoff;		/* ms */
	Instant		started_at;
	Instant		retry_at;
} Known;

static List *known = NIL;

static void leave(int code, Datum arg);
static void forget_absent(void);
static void scan_databases(void);
static void stop_unlisted(void);
static void collect_ended(void);
static void start_missing(void);
static bool start_worker(Oid database, bool silent);
static bool is_held(Oid database);
static long next_try_ms(void);

void
launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "sessauth", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sessauth_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "sessauth launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "sessauth launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
	utility_hook_install();
}

void
sessauth_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher_pid = MyProcPid;
	shared->launcher_latch = MyLatch;
	shared->probe_all = true;
	LWLockRelease(shared->lock);
	before_shmem_exit(leave, (Datum) 0);

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		ResetLatch(MyLatch);
		collect_ended();
		forget_absent();
		scan_databases();
		start_missing();
		pgstat_report_activity(STATE_IDLE, NULL);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, next_try_ms(), compat_wait_event("SessauthLauncher"));
	}
}

static void
leave(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher_pid = 0;
	shared->launcher_latch = NULL;
	LWLockRelease(shared->lock);
}

/* Somebody asks to look again. */
static void
forget_absent(void)
{
	ListCell   *cell;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	foreach(cell, known)
	{
		Known	   *k = lfirst(cell);

		for (int i = 0; i < SLOTS_MAX; i++)
			if (shared->probe_all || shared->probe[i] == k->database)
			{
				k->absent = false;
				k->retry_at = 0;
			}
	}
	memset(shared->probe, 0, sizeof(shared->probe));
	shared->probe_all = false;
	LWLockRelease(shared->lock);
}

static void
scan_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	ListCell   *cell;

	foreach(cell, known)
		((Known *) lfirst(cell))->seen = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		Known	   *k = NULL;

		if (!database->datallowconn || database->datistemplate)
			continue;
		foreach(cell, known)
			if (((Known *) lfirst(cell))->database == database->oid)
				k = lfirst(cell);
		if (k == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			k = palloc0(sizeof(Known));
			k->database = database->oid;
			known = lappend(known, k);
			MemoryContextSwitchTo(old);
		}
		k->seen = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	foreach(cell, known)
		if (!((Known *) lfirst(cell))->seen)
		{
			pfree(lfirst(cell));
			known = foreach_delete_current(known, cell);
		}
	stop_unlisted();
}

/* A database that has become a template, or takes no connections any more, is no place for a worker. */
static void
stop_unlisted(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
	{
		WorkerSlot *slot = &shared->slots[i];
		bool		listed = slot->state != SLOT_STARTING && slot->state != SLOT_RUNNING;
		ListCell   *cell;

		foreach(cell, known)
			listed |= ((Known *) lfirst(cell))->database == slot->database;
		if (!listed)
		{
			slot->stop = true;
			shmem_wake_worker(slot);
		}
	}
	LWLockRelease(shared->lock);
}

/* Slots whose worker has ended become free; how it ended decides what comes next. */
static void
collect_ended(void)
{
	ListCell   *cell;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->state != SLOT_ABSENT && slot->state != SLOT_FAILED)
			continue;
		foreach(cell, known)
		{
			Known	   *k = lfirst(cell);

			if (k->database != slot->database)
				continue;
			k->absent = slot->state == SLOT_ABSENT;
			if (instant_is_past(k->started_at, clock_boot(), STEADY_MS))
				k->backoff = 0;
			if (slot->state == SLOT_FAILED && !slot->stop)
			{
				k->backoff = k->backoff == 0 ? BACKOFF_FIRST_MS : Min(k->backoff * 2, BACKOFF_MAX_MS);
				k->retry_at = instant_after(clock_boot(), k->backoff);
			}
		}
		memset(slot, 0, sizeof(*slot));
	}
	LWLockRelease(shared->lock);
}

static void
start_missing(void)
{
	Instant		now = clock_boot();
	ListCell   *cell;

	foreach(cell, known)
	{
		Known	   *k = lfirst(cell);

		if (k->absent || (k->retry_at != 0 && k->retry_at > now) || is_held(k->database))
			continue;
		k->started_at = now;
		k->told = !start_worker(k->database, k->told);
		k->retry_at = k->told ? instant_after(now, BACKOFF_MAX_MS) : 0;
	}
}

static bool
is_held(Oid database)
{
	bool		held = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < HOLDS_MAX; i++)
		held |= shared->holds[i].database == database;
	for (int i = 0; i < SLOTS_MAX; i++)
		held |= shared->slots[i].database == database && shared->slots[i].state != SLOT_FREE;
	LWLockRelease(shared->lock);
	return held;
}

/* False when there is no place for it, of which silent says less. */
static bool
start_worker(Oid database, bool silent)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	int			slot = -1;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX && slot < 0; i++)
		if (shared->slots[i].state == SLOT_FREE)
			slot = i;
	if (slot >= 0)
	{
		memset(&shared->slots[slot], 0, sizeof(WorkerSlot));
		shared->slots[slot].database = database;
		shared->slots[slot].state = SLOT_STARTING;
	}
	LWLockRelease(shared->lock);
	if (slot < 0)
	{
		ereport(silent ? DEBUG1 : LOG,
				(errmsg("sessauth serves no more than %d databases", SLOTS_MAX),
				 errhint("The database with oid %u has no worker.", database)));
		return false;
	}

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(slot);
	strlcpy(worker.bgw_library_name, "sessauth", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sessauth_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "sessauth worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "sessauth worker", BGW_MAXLEN);
	if (RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		pid_t		pid;

		/* Waiting here is short. A worker that never ran cannot have said how it ended. */
		switch (WaitForBackgroundWorkerStartup(handle, &pid))
		{
			case BGWH_POSTMASTER_DIED:
				proc_exit(1);
			case BGWH_STOPPED:
				LWLockAcquire(shared->lock, LW_EXCLUSIVE);
				if (shared->slots[slot].state == SLOT_STARTING)
					shared->slots[slot].state = SLOT_FAILED;
				LWLockRelease(shared->lock);
				SetLatch(MyLatch);
				break;
			default:
				break;
		}
		pfree(handle);
		return true;
	}

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	memset(&shared->slots[slot], 0, sizeof(WorkerSlot));
	LWLockRelease(shared->lock);
	ereport(silent ? DEBUG1 : LOG,
			(errmsg("sessauth could not start a worker: no free background worker slot"),
			 errhint("Raise max_worker_processes: sessauth needs one, and one for each database that has the extension.")));
	return false;
}

/* How long nothing has to be tried again. */
static long
next_try_ms(void)
{
	Instant		now = clock_boot();
	long		wait = SCAN_INTERVAL_MS;
	ListCell   *cell;

	foreach(cell, known)
	{
		Known	   *k = lfirst(cell);

		if (!k->absent && k->retry_at > now)
			wait = Min(wait, instant_ms_until(now, k->retry_at));
	}
	return wait;
}

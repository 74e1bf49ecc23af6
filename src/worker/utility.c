/*
 * utility.c
 *		Gets the worker out of the way of statements that need a database for
 *		themselves: DROP DATABASE, ALTER DATABASE RENAME or SET TABLESPACE,
 *		CREATE DATABASE ... TEMPLATE.
 *
 * The statement places a hold, waits until the worker has left, runs, and
 * takes the hold away; the launcher starts no worker in a held database.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"

#include "server/shmem.h"
#include "worker/launcher.h"

static ProcessUtility_hook_type previous_hook = NULL;

static void process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc);
static void run(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc);
static Oid	database_needed(Node *statement);
static bool hold(Oid database);
static void release_holds(void);
static void release_at_exit(int code, Datum arg);
static bool worker_has_left(Oid database);

void
utility_hook_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	Oid			database = shared ? database_needed(pstmt->utilityStmt) : InvalidOid;

	if (!OidIsValid(database) || !hold(database))
	{
		run(pstmt, query, read_only_tree, context, params, environment, dest, qc);
		return;
	}
	PG_TRY();
	{
		while (!worker_has_left(database))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		run(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	}
	PG_FINALLY();
	{
		release_holds();
	}
	PG_END_TRY();
}

static void
run(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
	ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest, qc);
}

/* No permission is checked here: the statement checks its own right after, and a worker that paused for nothing comes back. */
static Oid
database_needed(Node *statement)
{
	const char *name = NULL;
	ListCell   *cell;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) statement)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) statement)->subname;
			break;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) statement)->dbname;
			break;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) statement)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					name = defGetString(option);
			}
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

static bool
hold(Oid database)
{
	static bool registered = false;
	bool		placed = false;

	if (!registered)
	{
		before_shmem_exit(release_at_exit, (Datum) 0);
		registered = true;
	}
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HOLDS_MAX && !placed; i++)
		if (!OidIsValid(shared->holds[i].database))
		{
			shared->holds[i].database = database;
			shared->holds[i].holder = MyProcPid;
			placed = true;
		}
	for (int i = 0; i < SLOTS_MAX && placed; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->database == database && (slot->state == SLOT_STARTING || slot->state == SLOT_RUNNING))
		{
			slot->stop = true;
			if (slot->latch)
				SetLatch(slot->latch);
		}
	}
	LWLockRelease(shared->lock);
	return placed;
}

static void
release_holds(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HOLDS_MAX; i++)
		if (shared->holds[i].holder == MyProcPid)
		{
			shared->holds[i].database = InvalidOid;
			shared->holds[i].holder = 0;
		}
	if (shared->launcher_latch)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
}

static void
release_at_exit(int code, Datum arg)
{
	release_holds();
}

static bool
worker_has_left(Oid database)
{
	bool		left = true;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == database &&
			(shared->slots[i].state == SLOT_STARTING || shared->slots[i].state == SLOT_RUNNING))
			left = false;
	LWLockRelease(shared->lock);
	return left;
}

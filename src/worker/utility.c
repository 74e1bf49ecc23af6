/*
 * utility.c
 *		Gets the worker out of the way of statements that need a database for
 *		themselves: DROP DATABASE, ALTER DATABASE RENAME or SET TABLESPACE,
 *		CREATE DATABASE ... TEMPLATE.
 *
 * The statement places a hold, waits until the worker has left, and runs; the
 * launcher starts no worker in a held database. The hold ends with the transaction, however that ends:
 * until then a new worker would only wait for the lock that the statement has on the database.
 *
 * COMMIT PREPARED passes here as well: what it commits was written by
 * another transaction, whose own callbacks have run long ago.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/shmem.h"
#include "server/wake.h"
#include "worker/launcher.h"

#define PATIENCE_MS		5000	/* for the worker to leave; the statement itself then waits as long again */

static ProcessUtility_hook_type previous_hook = NULL;
static bool holding = false;
static bool changing = false;	/* the list of databases */

static void process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc);
static bool changes_databases(Node *statement);
static Oid	database_needed(Node *statement);
static const char *option_text(List *options, const char *name);
static void hold(Oid database);
static pid_t ask_to_leave(Oid database);
static void wait_until_gone(Oid database);
static void at_transaction_end(XactEvent event, void *arg);

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
	Node	   *statement = pstmt->utilityStmt;

	if (IsA(statement, TransactionStmt))
	{
		if (((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
			wake_worker_at_commit();
	}
	else if (shared != NULL && changes_databases(statement))
	{
		static bool registered = false;
		Oid			database = database_needed(statement);

		if (!registered)
			RegisterXactCallback(at_transaction_end, NULL);
		registered = changing = true;

		/* Who may not do this anyway shall not be able to stop a worker by trying. */
		if (OidIsValid(database) && database != MyDatabaseId && compat_owns_database(database, GetUserId()))
		{
			hold(database);
			wait_until_gone(database);
		}
	}

	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest, qc);
}

static bool
changes_databases(Node *statement)
{
	return IsA(statement, CreatedbStmt) || IsA(statement, DropdbStmt) || IsA(statement, AlterDatabaseStmt) ||
		(IsA(statement, RenameStmt) && ((RenameStmt *) statement)->renameType == OBJECT_DATABASE);
}

/* The database that the statement wants for itself, or InvalidOid. */
static Oid
database_needed(Node *statement)
{
	const char *name = NULL;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) statement)->dbname;
			break;
		case T_RenameStmt:
			name = ((RenameStmt *) statement)->subname;
			break;
		case T_AlterDatabaseStmt:
			if (option_text(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
				name = ((AlterDatabaseStmt *) statement)->dbname;
			break;
		case T_CreatedbStmt:
			name = option_text(((CreatedbStmt *) statement)->options, "template");
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

static const char *
option_text(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

static void
hold(Oid database)
{
	bool		placed = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HOLDS_MAX && !placed; i++)
		if (!OidIsValid(shared->holds[i].database))
		{
			shared->holds[i].database = database;
			shared->holds[i].holder = MyProcPid;
			placed = holding = true;
		}
	LWLockRelease(shared->lock);
	if (!placed)
		ereport(LOG,
				(errmsg("sessauth cannot keep its worker out of a database: %d statements do so already", HOLDS_MAX)));
}

/* With interrupts, and not longer than the statement itself would wait for others. */
static void
wait_until_gone(Oid database)
{
	Instant		given_up = instant_after(clock_boot(), PATIENCE_MS);
	pid_t		leaving = 0;

	while (clock_boot() < given_up)
	{
		pid_t		pid = ask_to_leave(database);

		if (pid != 0)
			leaving = pid;
		else if (leaving <= 0 || BackendPidGetProc(leaving) == NULL)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, compat_wait_event("SessauthDatabaseHold"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* The process that must leave: 0 when there is none, -1 when it has not told its id yet. */
static pid_t
ask_to_leave(Oid database)
{
	pid_t		pid = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->database != database || (slot->state != SLOT_STARTING && slot->state != SLOT_RUNNING))
			continue;
		slot->stop = true;
		shmem_wake_worker(slot);
		pid = slot->state == SLOT_RUNNING ? slot->pid : -1;
	}
	LWLockRelease(shared->lock);
	return pid;
}

/* Also when the process ends by force: that aborts its transaction first. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!changing || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HOLDS_MAX && holding; i++)
		if (shared->holds[i].holder == MyProcPid)
		{
			shared->holds[i].database = InvalidOid;
			shared->holds[i].holder = 0;
		}
	if (shared->launcher_latch)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
	holding = changing = false;
}

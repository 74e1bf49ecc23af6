/*
 * worker.c
 *		One worker per database: brings what has committed to the mirrors and
 *		the nodes.
 *
 * Each round: move bytes; when there is reason to, one short transaction that
 * numbers what is new and queues what is to be sent; move bytes; sleep on the
 * latch and the sockets. No transaction is ever open while bytes move. A
 * round that fails is logged and tried again; nothing is lost by it, because
 * positions move only in transactions that commit and after replies that arrived.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "worker/worker.h"

PGDLLEXPORT void sessauth_worker_main(Datum arg);

typedef enum RoundResult
{
	ROUND_DONE,
	ROUND_LOCKED,				/* somebody alters the tables: try again soon */
	ROUND_DORMANT,				/* nothing was ever written here */
	ROUND_NO_EXTENSION,
	ROUND_FAILED
} RoundResult;

/* How long to wait before a round is tried again that could not be run. */
#define RETRY_FAILED_MS		1000
#define RETRY_LOCKED_MS		20

static WorkerSlot *slot;
static SlotState leave_as = SLOT_FAILED;
static bool settings_changed = true;
static bool extension_seen = false; /* by the last round */

static void enter(int index);
static void leave(int code, Datum arg);
static void fix_settings(void);
static void reload_settings(void);
static bool asked_to_stop(void);
static RoundResult run_round(void);
static RoundResult guarded(RoundResult (*step) (void));
static RoundResult salvage_step(void);
static RoundResult transaction(void);
static bool lock_tables(void);
static void store_cursors(void);
static void raise_access_ttl(void);
static void raise_clock(void);
static bool wait_for_something(TimestampTz until);

void
sessauth_worker_main(Datum arg)
{
	MemoryContext round_context;
	TimestampTz next_round = 0;
	bool		woken = true;
	RoundResult result = ROUND_DONE;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	enter(DatumGetInt32(arg));
	BackgroundWorkerInitializeConnectionByOid(slot->database, InvalidOid, 0);
	fix_settings();
	pgstat_report_appname("sessauth worker");
	round_context = AllocSetContextCreate(TopMemoryContext, "sessauth round", ALLOCSET_DEFAULT_SIZES);

	while (!asked_to_stop() && result != ROUND_NO_EXTENSION)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		reload_settings();
		MemoryContextReset(round_context);
		MemoryContextSwitchTo(round_context);

		mirrors_advance(now);
		if (now >= next_round || (woken && result == ROUND_DORMANT) ||
			(result == ROUND_DONE && (woken || mirrors_need_transaction())))
		{
			woken = false;
			result = run_round();
			next_round = TimestampTzPlusMilliseconds(now, result == ROUND_FAILED ? RETRY_FAILED_MS :
													 result == ROUND_LOCKED ? RETRY_LOCKED_MS :
													 setting_heartbeat_interval);
			mirrors_send(GetCurrentTimestamp());
			mirrors_advance(GetCurrentTimestamp());
		}
		mirrors_show();
		woken |= wait_for_something(Min(next_round, mirrors_next_event(now)));
	}

	if (result == ROUND_NO_EXTENSION)
		leave_as = SLOT_ABSENT;
	mirrors_close();
	proc_exit(0);
}

/* From here on a commit in this database finds us. */
static void
enter(int index)
{
	slot = &shared->slots[index];
	before_shmem_exit(leave, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot->state = SLOT_RUNNING;
	slot->pid = MyProcPid;
	slot->latch = MyLatch;
	LWLockRelease(shared->lock);
}

static void
leave(int code, Datum arg)
{
	status_forget(NULL);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot->latch = NULL;
	slot->pid = 0;
	slot->state = leave_as;
	if (shared->launcher_latch)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
}

/*
 * ALTER DATABASE and ALTER ROLE ... SET reach workers too; what would change
 * our meaning is set here. Every commit waits for the local flush and for nothing else: what was
 * published must survive a crash, and a missing standby must not hold us.
 */
static void
fix_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"synchronous_commit", "local"},
		{"statement_timeout", "0"},
		{"lock_timeout", "1s"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* from version 17 on */
		{"default_transaction_read_only", "off"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"jit", "off"},
		{"enable_seqscan", "off"},	/* new events are few among many, whatever the statistics say */
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	settings_changed = true;
}

static bool
asked_to_stop(void)
{
	bool		stop;

	LWLockAcquire(shared->lock, LW_SHARED);
	stop = slot->stop;
	LWLockRelease(shared->lock);
	return stop;
}

/* What aborted transactions left must not hold up what committed: each has its own try. */
static RoundResult
run_round(void)
{
	RoundResult result;

	if (extension_seen)
		(void) guarded(salvage_step);
	result = guarded(transaction);
	extension_seen = result == ROUND_DONE;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return result;
}

/* An error is logged and becomes ROUND_FAILED. */
static RoundResult
guarded(RoundResult (*step) (void))
{
	MemoryContext context = CurrentMemoryContext;
	RoundResult result = ROUND_FAILED;

	PG_TRY();
	{
		result = step();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		mirrors_discard();
		result = ROUND_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return result;
}

static RoundResult
salvage_step(void)
{
	salvage();
	return ROUND_DONE;
}

/*
 * One snapshot for everything: what gets numbers, what is sent to the
 * mirrors, and the moment that a beat vouches for are the same.
 */
static RoundResult
transaction(void)
{
	MemoryContext context = CurrentMemoryContext;
	LedgerState state;
	RoundResult result = ROUND_DONE;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	if (!OidIsValid(get_extension_oid("sessauth", true)))
		result = ROUND_NO_EXTENSION;
	else if (!lock_tables())
		result = ROUND_LOCKED;
	else
	{
		pgstat_report_activity(STATE_RUNNING, "sessauth: numbering and publishing");
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		MemoryContextSwitchTo(context);
		store_cursors();
		if (ledger_state_read(&state))
		{
			if (settings_changed)
			{
				raise_access_ttl();
				raise_clock();
			}
			number_new_events(&state);
			find_low(&state);
			mirrors_load();
			mirrors_plan(&state);
		}
		else
			result = ROUND_DORMANT;
		SPI_finish();
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	if (result == ROUND_DONE)
		settings_changed = false;
	return result;
}

/*
 * DROP EXTENSION takes its locks in an order of its own. Waiting for a lock
 * while holding another could deadlock with it, so we take all that we need or leave.
 */
static bool
lock_tables(void)
{
	static const char *const tables[] = {
		"ledger_state", "revocation_log", "mirror", "mirror_state", "event", "session", "tenant", "tenant_user", "secret"
	};
	Oid			schema = get_namespace_oid("sessauth", true);

	for (int i = 0; i < lengthof(tables); i++)
	{
		Oid			table = OidIsValid(schema) ? get_relname_relid(tables[i], schema) : InvalidOid;

		if (!OidIsValid(table) || !ConditionalLockRelationOid(table, RowExclusiveLock) ||
			get_relname_relid(tables[i], schema) != table)
			return false;
	}
	return true;
}

static void
store_cursors(void)
{
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->store_cursor)
			cursor_store(mirrors[i]);
}

/*
 * A longer default lifetime of access tokens takes effect for a tenant once
 * its row says so: revocations must be remembered for as long before the first such token exists.
 */
static void
raise_access_ttl(void)
{
	Oid			types[] = {FLOAT8OID};
	Datum		values[] = {Float8GetDatum(setting_access_ttl)};
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute_with_args("UPDATE sessauth.tenant SET access_ttl_max = make_interval(secs => $1)"
							  " WHERE access_ttl_max < make_interval(secs => $1) AND NOT policy ? 'access_ttl'",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "sessauth: could not raise the lifetime of access tokens");
	MemoryContextSwitchTo(context);
}

/*
 * A wall clock that was set back while the server was down must not take the
 * ledger's time with it. One that was years ahead was wrong then: its tokens are
 * from the future now, and refused as such.
 */
static void
raise_clock(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute("SELECT at FROM sessauth.event ORDER BY event_id DESC LIMIT 1", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

		if (at - GetCurrentTimestamp() < USECS_PER_DAY)
			ledger_clock_raise(at);
		else
			ereport(LOG,
					(errmsg("sessauth: the history ends more than a day in the future"),
					 errhint("The server's clock was ahead when it was written, or is behind now.")));
	}
	MemoryContextSwitchTo(context);
}

/* True when the latch was set. The wait set is made anew only when a socket came or went. */
static bool
wait_for_something(TimestampTz until)
{
	static WaitEventSet *set = NULL;
	static pgsocket sockets[MIRRORS_MAX];
	static int	positions[MIRRORS_MAX];
	static int	socket_count = -1;
	WaitEvent	events[MIRRORS_MAX + 2];
	bool		same = socket_count == mirror_count;
	bool		latched = false;
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	int			count;

	for (int i = 0; i < mirror_count && same; i++)
		same = sockets[i] == mirrors[i]->link.socket;
	if (set == NULL || !same)
	{
		if (set)
			FreeWaitEventSet(set);
		set = compat_create_wait_event_set(MIRRORS_MAX + 2);
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < mirror_count; i++)
		{
			sockets[i] = mirrors[i]->link.socket;
			if (sockets[i] != PGINVALID_SOCKET)
				positions[i] = AddWaitEventToSet(set, link_wait_events(&mirrors[i]->link), sockets[i], NULL, NULL);
		}
		socket_count = mirror_count;
	}
	else
		for (int i = 0; i < mirror_count; i++)
			if (sockets[i] != PGINVALID_SOCKET)
				ModifyWaitEvent(set, positions[i], link_wait_events(&mirrors[i]->link), NULL);

	count = WaitEventSetWait(set, Max(timeout, 0), events, lengthof(events), PG_WAIT_EXTENSION);
	for (int i = 0; i < count; i++)
		if (events[i].events & WL_LATCH_SET)
			latched = true;
	if (latched)
		ResetLatch(MyLatch);
	return latched;
}

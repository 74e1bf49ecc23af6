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
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "server/sql_nodes.h"
#include "worker/upkeep.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

PGDLLEXPORT void sessauth_worker_main(Datum arg);

typedef enum RoundResult
{
	ROUND_DONE,
	ROUND_LOCKED,				/* somebody alters the tables: try again soon */
	ROUND_DORMANT,				/* nothing was ever written here */
	ROUND_NO_EXTENSION,
	ROUND_OTHER_VERSION,
	ROUND_FAILED
} RoundResult;

/* A part of a round that may fail by itself. */
typedef struct Step
{
	RoundResult (*run) (void);
	const char *what;			/* "could not ..." */
	char		told[256];		/* the last error, until it is done */
} Step;

/* How long to wait before the next round, when nothing else asks for one. */
#define SAFETY_ROUND_MS		1000	/* a beat asks more often; this is for a ledger without mirrors, and a wake-up that got lost */
#define RETRY_FIRST_MS		100
#define RETRY_MAX_MS		10000
#define RETRY_LOCKED_MS		20

/*
 * How soon one round may follow another that gave numbers. Rounds share processors and the log's flush with the commits that
 * ask for them; in a storm of revocations fewer and larger rounds leave more of both to the commits.
 */
#define AHEAD_PAUSE_MS		60000	/* between two nodes that are believed to know more than the ledger */
#define PACE_MS				1
#define STORM_PACE_MS		20
#define STORM				3000	/* revocations a second, on an average of so long: a burst is no storm */
#define STORM_WINDOW_MS		250

static WorkerSlot *slot;
static SlotState leave_as = SLOT_FAILED;
static bool settings_changed = true;
static bool extension_seen = false; /* by the last round */
static int64 numbered = 0;			/* revocations, by the last round */

static void enter(int index);
static void leave(int code, Datum arg);
static void fix_settings(void);
static void reload_settings(void);
static bool asked_to_stop(void);
static RoundResult run_round(void);
static RoundResult guarded(Step *step);
static RoundResult logins_step(void);
static RoundResult thefts_step(void);
static RoundResult adopt_step(void);
static RoundResult transaction(void);
static bool node_is_ahead(const LedgerState *state);
static void tell_other_version(bool differs);
static RoundResult raise_access_ttl(void);
static void raise_clock(void);
static Instant pace(Instant began);
static bool wait_for_something(Instant until);

void
sessauth_worker_main(Datum arg)
{
	MemoryContext round_context;
	Instant		next_round = 0;
	Instant		earliest_round = 0;
	bool		woken = true;
	int			failures = 0;
	RoundResult result = ROUND_DONE;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	enter(DatumGetInt32(arg));
	BackgroundWorkerInitializeConnectionByOid(slot->database, InvalidOid, 0);
	fix_settings();
	pgstat_report_appname("sessauth worker");
	HOLD_CANCEL_INTERRUPTS();	/* see worker_tx.c */
	round_context = AllocSetContextCreate(TopMemoryContext, "sessauth round", ALLOCSET_DEFAULT_SIZES);

	while (!asked_to_stop() && result != ROUND_NO_EXTENSION)
	{
		Instant		now = clock_boot();
		Instant		next = INSTANT_NEVER;

		CHECK_FOR_INTERRUPTS();
		reload_settings();
		MemoryContextReset(round_context);
		MemoryContextSwitchTo(round_context);

		mirrors_advance(now);
		if (now >= next_round || (woken && (result == ROUND_DORMANT || result == ROUND_OTHER_VERSION)) ||
			(result == ROUND_DONE && ((woken && now >= earliest_round) || mirrors_need_transaction() || now >= receipts_next_event())))
		{
			woken = false;
			result = run_round();
			failures = result == ROUND_FAILED ? Min(failures + 1, 10) : 0;
			next_round = instant_after(now, result == ROUND_FAILED ? Min(RETRY_FIRST_MS << failures, RETRY_MAX_MS) :
									   result == ROUND_OTHER_VERSION ? RETRY_MAX_MS :
									   result == ROUND_LOCKED ? RETRY_LOCKED_MS : SAFETY_ROUND_MS);
			earliest_round = pace(now);
			mirrors_send(clock_boot());
			mirrors_advance(clock_boot());
		}
		if (result == ROUND_DONE)
			upkeep(clock_boot());
		mirrors_show();
		if (result == ROUND_DONE)
			next = Min(woken ? earliest_round : INSTANT_NEVER, Min(upkeep_next_event(), receipts_next_event()));
		woken |= wait_for_something(Min(Min(next, next_round), mirrors_next_event(now, result == ROUND_DONE ? now : next_round)));
	}

	if (result == ROUND_NO_EXTENSION)
		leave_as = SLOT_ABSENT;
	mirrors_close();
	proc_exit(0);
}

/* When the round after the one that began now may begin. What was counted fades with the length of the window. */
static Instant
pace(Instant began)
{
	static Instant before = 0;
	static double rate = 0;		/* revocations a second */
	double		window = STORM_WINDOW_MS / 1000.0;

	rate = (numbered + rate * window) / ((began - before) / (double) USECS_PER_SEC + window);
	before = began;
	return numbered == 0 ? began : instant_after(began, rate > STORM ? STORM_PACE_MS : PACE_MS);
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
	pg_atomic_write_u32(&slot->wake_process, compat_my_process());
	pg_write_barrier();
	pg_atomic_write_u32(&slot->wake_database, slot->database);
	LWLockRelease(shared->lock);
}

static void
leave(int code, Datum arg)
{
	status_forget(NULL);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&slot->wake_database, InvalidOid);
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
		{"DateStyle", "ISO, YMD"},
		{"TimeZone", "UTC"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},	/* from version 17 on */
		{"default_transaction_read_only", "off"},
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"jit", "off"},
		/* Every statement is made for an index; the statistics of a table that grows fast shall not change that. */
		{"enable_seqscan", "off"},
		{"enable_bitmapscan", "off"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"plan_cache_mode", "force_generic_plan"},
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
	static Step logins = {logins_step, "revoke logins that were rolled back"};
	static Step thefts = {thefts_step, "end the sessions of thefts that were seen in aborted transactions"};
	static Step adoption = {adopt_step, "adopt what a mirror remembers"};
	static Step numbers = {transaction, "look at the ledger"};
	static Step lifetimes = {raise_access_ttl, "raise the lifetime of access tokens"};
	RoundResult result;

	if (extension_seen)
	{
		(void) guarded(&logins);
		(void) guarded(&thefts);
		(void) guarded(&adoption);
	}
	result = guarded(&numbers);
	if (result == ROUND_DONE && settings_changed)
		settings_changed = guarded(&lifetimes) != ROUND_DONE;
	extension_seen = result == ROUND_DONE;
	if (result != ROUND_DONE)
	{
		mirrors_discard();
		receipts_settle(false);
	}
	return result;
}

/* An error is logged, unless it is the same as last time, and becomes ROUND_FAILED, or ROUND_LOCKED after lock_timeout. */
static RoundResult
guarded(Step *step)
{
	RoundResult result = ROUND_FAILED;

	PG_TRY();
	{
		result = step->run();
		if (result == ROUND_DONE)
			step->told[0] = '\0';
	}
	PG_CATCH();
	{
		result = geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE ? ROUND_LOCKED : ROUND_FAILED;
		worker_tx_failed(step->what, step->told);
	}
	PG_END_TRY();
	return result;
}

static RoundResult
logins_step(void)
{
	return salvage_logins() ? ROUND_DONE : ROUND_LOCKED;
}

static RoundResult
thefts_step(void)
{
	return salvage_thefts() ? ROUND_DONE : ROUND_LOCKED;
}

static RoundResult
adopt_step(void)
{
	adopt_remembered();
	reconcile_compare();
	return ROUND_DONE;
}

/*
 * One snapshot for everything: what gets numbers, what is sent to the
 * mirrors, and the moment that a beat vouches for are the same.
 */
static RoundResult
transaction(void)
{
	LedgerState state;
	RoundResult result = ROUND_DONE;

	numbered = 0;
	switch (worker_tx_begin())
	{
		case WORKER_TX_ABSENT:
			return ROUND_NO_EXTENSION;
		case WORKER_TX_BUSY:
			return ROUND_LOCKED;
		case WORKER_TX_OTHER_VERSION:
			tell_other_version(true);
			return ROUND_OTHER_VERSION;
		case WORKER_TX_OPEN:
			tell_other_version(false);
			break;
	}

	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->store_feed && clock_boot() >= mirrors[i]->store_at)
			keys_store(mirrors[i]);
	if (settings_changed)
		raise_clock();			/* before the state says what time it is */
	if (ledger_state_read(&state))
	{
		if (node_is_ahead(&state))
			open_generation(&state, "a node knows more revocations than this ledger: its storage went back in time");
		numbered = number_new_events(&state);
		find_low(&state);
		receipts_begin(&state);
		mirrors_load(&state);
		mirrors_plan(&state);
		receipts_decide(&state, numbered > 0);
	}
	else
		result = ROUND_DORMANT;
	worker_tx_commit();
	receipts_settle(true);
	numbering_settled();

	for (int i = 0; i < mirror_count; i++)
		mirrors[i]->storing = false;
	return result;
}

/*
 * Then numbers would come a second time with another meaning, and the node would take them for what it knows. A node that lies costs every mirror and
 * every node a full round, so it is heard once in a while.
 */
static bool
node_is_ahead(const LedgerState *state)
{
	static Instant heard_at = 0;
	Instant		now = clock_boot();
	bool		over_sql = sql_nodes_were_ahead();

	if (!nonces_are_ahead(state) && !over_sql)
		return false;
	if (heard_at != 0 && !instant_is_past(heard_at, now, AHEAD_PAUSE_MS))
		return false;
	heard_at = now;
	return true;
}

/* Once for each time that they part. */
static void
tell_other_version(bool differs)
{
	static bool told = false;

	if (differs && !told)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sessauth's worker waits: its library and its SQL are of different versions"),
				 errdetail("The loaded library is version %s, the extension in this database is version %s.",
						   SESSAUTH_VERSION, worker_tx_extension()->version),
				 errhint("%s", extension_hint(worker_tx_extension()))));
	if (!differs && told)
		ereport(LOG, (errmsg("sessauth's worker goes on: its library and its SQL are of one version again")));
	told = differs;
}

/*
 * A longer default lifetime of access tokens takes effect for a tenant once
 * its row says so: revocations must be remembered for as long before the first such token exists. In a transaction of
 * its own, and without waiting: a tenant whose row somebody has locked must not hold up the numbering.
 */
#define TENANTS_TO_RAISE " WHERE access_ttl_max < make_interval(secs => $1) AND NOT policy ? 'access_ttl'"

static RoundResult
raise_access_ttl(void)
{
	Oid			types[] = {FLOAT8OID};
	Datum		values[] = {Float8GetDatum(setting_access_ttl)};
	RoundResult result;

	if (worker_tx_begin() != WORKER_TX_OPEN)
		return ROUND_LOCKED;
	if (SPI_execute_with_args("UPDATE sessauth.tenant SET access_ttl_max = make_interval(secs => $1) WHERE tenant_id IN"
							  " (SELECT tenant_id FROM sessauth.tenant" TENANTS_TO_RAISE " FOR UPDATE SKIP LOCKED)",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_execute_with_args("SELECT 1 FROM sessauth.tenant" TENANTS_TO_RAISE, 1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "sessauth: could not raise the lifetime of access tokens");
	result = SPI_processed == 0 ? ROUND_DONE : ROUND_LOCKED;
	worker_tx_commit();
	return result;
}

/* A wall clock that was set back while the server was down must not take the ledger's time with it. */
static void
raise_clock(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (SPI_execute("SELECT at FROM sessauth.event ORDER BY event_id DESC LIMIT 1", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		bool		isnull;

		ledger_clock_raise(DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	}
	MemoryContextSwitchTo(context);
}

/* True when the latch was set. The wait set is made anew only when a socket came or went. */
static bool
wait_for_something(Instant until)
{
	static WaitEventSet *set = NULL;
	static uint64 serials[MIRRORS_MAX];
	static int	positions[MIRRORS_MAX];
	static int	socket_count = -1;
	WaitEvent	events[MIRRORS_MAX + 2];
	bool		same = socket_count == mirror_count;
	bool		latched = false;
	long		timeout = instant_ms_until(clock_boot(), until);
	int			count;

	for (int i = 0; i < mirror_count && same; i++)
		same = serials[i] == mirrors[i]->link.socket.serial;
	if (set == NULL || !same)
	{
		if (set)
			FreeWaitEventSet(set);
		set = compat_create_wait_event_set(MIRRORS_MAX + 2);
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < mirror_count; i++)
		{
			serials[i] = mirrors[i]->link.socket.serial;
			if (serials[i] != 0)
				positions[i] = AddWaitEventToSet(set, link_wait_events(&mirrors[i]->link), mirrors[i]->link.socket.fd, NULL, NULL);
		}
		socket_count = mirror_count;
	}
	else
		for (int i = 0; i < mirror_count; i++)
			if (serials[i] != 0)
				ModifyWaitEvent(set, positions[i], link_wait_events(&mirrors[i]->link), NULL);

	count = WaitEventSetWait(set, Max(timeout, 0), events, lengthof(events), compat_wait_event("SessauthWorker"));
	for (int i = 0; i < count; i++)
		if (events[i].events & WL_LATCH_SET)
			latched = true;
	if (latched)
		ResetLatch(MyLatch);
	return latched;
}

/*
 * upkeep.c
 *		What has to be done now and then: when, and in which steps.
 *
 * A step is one short transaction between two rounds of the loop, so that no
 * revocation waits longer for the duties than a few milliseconds. Each step leaves the ledger as it should be, and
 * looks for itself at what there is to do: a worker that is killed between two of them, or in one, has lost nothing.
 * Steps never wait for anybody's transaction; what is locked is left for later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "ledger/ledger.h"
#include "server/settings.h"
#include "worker/upkeep.h"
#include "worker/worker_tx.h"

#define PACE_MS			100		/* between two steps of one duty */
#define LATER_FIRST_MS	250
#define LATER_MAX_MS	60000
#define SESSIONS_PER_STEP 256
#define NIL_UUID		"00000000-0000-0000-0000-000000000000"

typedef struct Duty
{
	const char *what;			/* "the worker could not …" */
	UpkeepResult (*step) (void);
	Instant		next;
	int			later;			/* ms; the last backoff, 0: none */
	char		told[256];		/* the last error in the log */
} Duty;

static UpkeepResult sweep_sessions(void);
static UpkeepResult finish_erasures(void);
static UpkeepResult follow_names(void);
static void take_step(Duty *duty);

static Duty duties[] = {
	{"make a partition of the history", partitions_make},
	{"remove old history", partitions_remove},
	{"remove old sessions", sweep_sessions},
	{"finish an erasure", finish_erasures},
	{"follow the names of roles", follow_names},
};

void
upkeep(Instant now)
{
	Duty	   *due = NULL;

	for (int i = 0; i < lengthof(duties); i++)
	{
		/* The interval may have been made shorter. */
		duties[i].next = Min(duties[i].next, instant_after(now, Max(setting_upkeep_interval, LATER_MAX_MS)));
		if (duties[i].next <= now && (due == NULL || duties[i].next < due->next))
			due = &duties[i];
	}
	if (due)
		take_step(due);
}

Instant
upkeep_next_event(void)
{
	Instant		next = duties[0].next;

	for (int i = 1; i < lengthof(duties); i++)
		next = Min(next, duties[i].next);
	return next;
}

static void
take_step(Duty *duty)
{
	volatile UpkeepResult result = UPKEEP_LATER;
	int			wait;

	PG_TRY();
	{
		result = duty->step();
		duty->told[0] = '\0';
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			FlushErrorState();
			worker_tx_abort();
		}
		else
			worker_tx_failed(duty->what, duty->told);
	}
	PG_END_TRY();

	duty->later = result == UPKEEP_LATER ? Min(Max(duty->later * 2, LATER_FIRST_MS), LATER_MAX_MS) : 0;
	wait = result == UPKEEP_DONE ? setting_upkeep_interval :
		result == UPKEEP_MORE ? Min(PACE_MS, setting_upkeep_interval) :
		duty->later / 2 + (int) (random() % (duty->later / 2 + 1));
	duty->next = instant_after(clock_boot(), wait);
}

bool
upkeep_allowed(void)
{
	static WorkerQuery query = {
		"SELECT 1 FROM sessauth.ledger_state WHERE NOT EXISTS (SELECT FROM sessauth.mirror m"
		" WHERE NOT EXISTS (SELECT FROM sessauth.mirror_state s WHERE s.name = m.name))"
	};

	return worker_query(&query, NULL, NULL) > 0;
}

/*
 * Walks through all sessions in the order of their ids, which is that of their birth, a slice at a time. No index says
 * which of them are over: it would have to be written at every refresh.
 */
static UpkeepResult
sweep_sessions(void)
{
	static WorkerQuery query = {
		"SELECT last::text FROM sessauth.sweep_sessions($1, $2)", 2, {UUIDOID, INT4OID}
	};
	static char after[37] = NIL_UUID;
	Datum		values[2];

	if (worker_tx_begin_upkeep(UPKEEP_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return UPKEEP_LATER;
	if (upkeep_allowed())
	{
		values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(after));
		values[1] = Int32GetDatum(SESSIONS_PER_STEP);
		worker_query(&query, values, NULL);
		row_copy_text(0, 1, after, sizeof(after));
	}
	worker_tx_commit();
	if (after[0] != '\0')
		return UPKEEP_MORE;
	strlcpy(after, NIL_UUID, sizeof(after));
	return UPKEEP_DONE;
}

/* What erase_user() had to leave: its own revocation must first have reached the nodes under the real name. */
static UpkeepResult
finish_erasures(void)
{
	static WorkerQuery query = {"SELECT sessauth.finish_erasures()"};

	if (worker_tx_begin_upkeep(UPKEEP_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return UPKEEP_LATER;
	if (upkeep_allowed())
		worker_query(&query, NULL, NULL);
	worker_tx_commit();
	return UPKEEP_DONE;
}

/* Grants are kept by name for a dump; ALTER ROLE tells nobody. */
static UpkeepResult
follow_names(void)
{
	if (worker_tx_begin_upkeep(UPKEEP_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return UPKEEP_LATER;
	if (upkeep_allowed())
		access_follow_names();
	worker_tx_commit();
	return UPKEEP_DONE;
}

/*
 * receipts.c
 *		When does every node know of a revocation?
 *
 * What must never happen is a receipt that is early: number n is stored as known at a mirror while some
 * node may still accept a token that n revokes. One that is late, or that never comes, does no harm.
 *
 * A node accepts such a token only while it may decide alone, without having applied n. It got that right by an answer to its
 * nonce, and has it until max_staleness after it wrote the nonce, which was before the worker read it. So n is known at a mirror
 * when each node that was ever answered there
 *
 *	has acknowledged n	an authentic nonce says that it has applied n of this generation without a hole; or
 *	is fenced			max_staleness has passed since the last answer that was planned for it and lacks n. Later answers
 *						oblige it to apply n first, so one that answers but is stuck holds up nothing for ever.
 *
 * Both hold for every lower number as well, so one number for each mirror, and one for the nodes over SQL, says it all. Where a crash or
 * a race can fall:
 *
 *	- A number is decided in a transaction whose snapshot contains it (it is at most state->n). Every answer
 *	  planned from then on contains it, also for nodes that come later; those still on their way were counted when they
 *	  were planned, whether or not they arrived.
 *	- The transaction fails: nothing is stored, and what memory has noted makes us later, not earlier.
 *	- The worker ends, anyhow, anywhere: its successor knows no node, and decides nothing until the longest lease is over that may
 *	  have been given before its start. How long that is was stored before the first such lease was given.
 *	- Redis forgets the nodes, or somebody deletes their entries: we remember those that we have answered until their leases are over.
 *	- A mirror is claimed, from nobody or from another owner: whoever wrote there before may have given leases;
 *	  likewise one that is removed leaves leases behind, and then nothing is decided anywhere.
 *	- A new generation: what is stored is carried over with the entries (numbering.c), answers of before lack everything of it, and
 *	  acknowledgements of another generation say nothing.
 *	- A lease is given over SQL, without us: the node is entered before the snapshot of its lease is taken (ledger/lease.c), so either we
 *	  find it, or its snapshot is later than ours and contains what we decide about.
 *	- Somebody replays an old nonce: it acknowledges less than the node has already.
 *	- Clocks are stepped: all of it is measured by CLOCK_BOOTTIME, with a margin for one that runs slower than the node's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "server/clock.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "server/sql_nodes.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define ARRIVALS_PER_ROUND	1000
#define PACE_MS				50		/* a round that has numbers to give should not be slowed more often */

static Marks published;			/* to every mirror */
static Marks over_sql;			/* known to the nodes over SQL */

static int64 hold_until = -1;	/* ms of clock_boot(), for all mirrors; -1: the process has just begun */
static int64 longest = 0;		/* ms; no lease that may be out was given for longer */
static int64 lowered_at = -1;	/* since when sessauth.max_lease has been below the longest lease */

/* What is stored, as this process knows it; read anew when that may be wrong. */
static bool loaded = false;
static char generation[SA_UUID_SIZE];
static int64 known_n;			/* everywhere */
static int64 known_over_sql;	/* by the nodes over SQL */
static bool advanced;			/* by the transaction that is open */
static bool again = false;		/* there is something left to decide */
static Instant decided_at = 0;

/* Marks as arrays for a statement; the way is the mirror's name, "*" for SQL, or empty: every mirror. */
typedef struct WayTimes
{
	int			count;
	Datum	   *ways;
	Datum	   *numbers;
	Datum	   *times;
} WayTimes;

static int64 now_ms(void);
static int64 found_lease(const Mirror *mirror);
static void load(const LedgerState *state);
static int64 known_at(Mirror *mirror, const LedgerState *state);
static void store(const char *mirror, const LedgerState *state, int64 n);
static void record_arrivals(const LedgerState *state, int64 upto);
static void take_times(WayTimes *out, const char *way, Marks *marks, const LedgerState *state, int64 upto);
static void show_unsettled(bool unsettled);

void
receipts_begin(const LedgerState *state)
{
	static WorkerQuery query = {"UPDATE sessauth.ledger_state SET longest_lease = $1", 1, {INT8OID}};
	Datum		value = Int64GetDatum(setting_max_lease);
	int64		now = now_ms();

	longest = Max(setting_max_lease, state->longest_lease);
	if (hold_until < 0)
		receipts_hold(NULL);
	if (setting_max_lease >= state->longest_lease)
		lowered_at = -1;
	else if (lowered_at < 0)
		lowered_at = now;
	if (setting_max_lease > state->longest_lease ||
		(lowered_at >= 0 && now - lowered_at >= LEASE_WITH_MARGIN(state->longest_lease)))
		worker_query(&query, &value, NULL);
}

void
receipts_decide(const LedgerState *state, bool busy)
{
	bool		settled = now_ms() >= hold_until;
	bool		all_settled = settled;
	int64		everywhere = state->n;

	advanced = false;
	again = busy && !instant_is_past(decided_at, clock_boot(), PACE_MS);
	if (again)
		return;
	decided_at = clock_boot();
	load(state);
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		if (!settled || now_ms() < mirror->hold_until)
			all_settled = false;
		else if (mirror->known_n < state->n)
		{
			int64		n = known_at(mirror, state);

			if (n > mirror->known_n)
			{
				store(mirror->name, state, n);
				mirror->known_n = n;
				marks_add(&mirror->known_since, state->generation, n, ledger_now());
			}
		}
		everywhere = Min(everywhere, mirror->known_n);
	}
	if (!settled)
		all_settled = false;
	else if (known_over_sql < state->n)
	{
		int64		n = Min(state->n, sql_nodes_held_back_from(state->generation, state->n));

		if (n > known_over_sql)
		{
			store(RECEIPTS_OVER_SQL, state, n);
			known_over_sql = n;
			marks_add(&over_sql, state->generation, n, ledger_now());
		}
	}
	everywhere = Min(everywhere, known_over_sql);
	if (settled && everywhere > known_n)
	{
		again = everywhere > known_n + ARRIVALS_PER_ROUND;
		everywhere = Min(everywhere, known_n + ARRIVALS_PER_ROUND);
		record_arrivals(state, everywhere);
		store("", state, everywhere);
		known_n = everywhere;
		advanced = true;
	}
	show_unsettled(!all_settled);
}

Instant
receipts_next_event(void)
{
	return again ? instant_after(decided_at, PACE_MS + 1) : INSTANT_NEVER;
}

void
receipts_settle(bool committed)
{
	if (!committed)
		loaded = false;
	else if (advanced)
		ConditionVariableBroadcast(&shared->receipts);
	advanced = false;
}

void
receipts_hold(Mirror *mirror)
{
	if (mirror)
		mirror->hold_until = Max(mirror->hold_until, now_ms() + LEASE_WITH_MARGIN(Max(longest, found_lease(mirror))));
	else
		hold_until = now_ms() + LEASE_WITH_MARGIN(longest);
}

int64
receipts_longest(const Mirror *mirror)
{
	return now_ms() < mirror->hold_until ? Max(longest, found_lease(mirror)) : longest;
}

/* Anybody may have written it there; none that counts is longer than the longest that can be set. */
static int64
found_lease(const Mirror *mirror)
{
	return Min(mirror->found_lease, LEASE_MS_MAX);
}

void
receipts_answering(Mirror *mirror, const LedgerState *state, const PendingNonce *pending)
{
	KnownNode  *node = hash_search(mirror->nodes, pending->node, HASH_FIND, NULL);

	if (node == NULL)
		elog(ERROR, "sessauth: a node that is to be answered has been forgotten");
	lease_book_promise(&node->book, state->generation, state->n, now_ms(), now_ms() + LEASE_WITH_MARGIN(pending->nonce.max_staleness));
}

/* A mirror that is behind all others, or of another generation, has nothing to add. */
void
receipts_published(void)
{
	int64		n = PG_INT64_MAX;

	for (int i = 0; i < mirror_count; i++)
	{
		if (strcmp(mirrors[i]->generation, mirrors[0]->generation) != 0)
			return;
		n = Min(n, mirrors[i]->n);
	}
	marks_add(&published, mirrors[0]->generation, n, ledger_now());
}

static int64
now_ms(void)
{
	return clock_boot() / 1000;
}

static void
load(const LedgerState *state)
{
	static WorkerQuery query = {
		"SELECT mirror, n FROM sessauth.receipt_state WHERE generation = $1", 1, {UUIDOID}
	};
	Datum		value;
	uint64		count;

	for (int i = 0; i < mirror_count; i++)
		loaded = loaded && mirrors[i]->known_n >= 0;
	if (loaded && strcmp(generation, state->generation) == 0)
		return;
	value = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	count = worker_query(&query, &value, NULL);
	known_n = known_over_sql = 0;
	for (int i = 0; i < mirror_count; i++)
		mirrors[i]->known_n = 0;
	for (uint64 row = 0; row < count; row++)
	{
		char	   *name = row_text(row, 1);

		if (name[0] == '\0')
			known_n = row_int8(row, 2);
		if (strcmp(name, RECEIPTS_OVER_SQL) == 0)
			known_over_sql = row_int8(row, 2);
		for (int i = 0; i < mirror_count; i++)
			if (strcmp(mirrors[i]->name, name) == 0)
				mirrors[i]->known_n = row_int8(row, 2);
	}
	strlcpy(generation, state->generation, sizeof(generation));
	loaded = true;
}

static int64
known_at(Mirror *mirror, const LedgerState *state)
{
	HASH_SEQ_STATUS seq;
	KnownNode  *node;
	int64		n = state->n;

	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		n = Min(n, lease_book_held_back_from(&node->book, state->generation, state->n, now_ms()));
	return n;
}

static void
store(const char *mirror, const LedgerState *state, int64 n)
{
	static WorkerQuery query = {
		"INSERT INTO sessauth.receipt_state (mirror, generation, n) VALUES ($1, $2, $3)"
		" ON CONFLICT (mirror) DO UPDATE SET generation = excluded.generation, n = excluded.n", 3, {TEXTOID, UUIDOID, INT8OID}
	};
	Datum		values[3];

	values[0] = CStringGetTextDatum(mirror);
	values[1] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[2] = Int64GetDatum(n);
	worker_query(&query, values, NULL);
}

/*
 * For those who look later: when it had reached the mirrors, and when the nodes, and which of them when, if there is more than one way. Should
 * this transaction fail, the times of what it had will be missing, no more.
 */
static void
record_arrivals(const LedgerState *state, int64 upto)
{
	static WorkerQuery query = {
		"INSERT INTO sessauth.arrival (event_id, tenant_id, committed_after, published_at, confirmed_at, ways)"
		" SELECT l.event_id, nullif(l.tenant_id, ''), l.committed_after,"
		"  ($5)[width_bucket(l.n - 1, $4) + 1], $9," /* marks ascend: the first that is not below n */
		"  CASE WHEN cardinality($6) > 0 THEN"
		"   (SELECT jsonb_object_agg(w.way, w.at) FROM (SELECT m.way, min(m.at) AS at FROM unnest($6, $7, $8) m(way, n, at)"
		"    WHERE m.n >= l.n GROUP BY m.way) w) END"
		" FROM sessauth.revocation_log l WHERE l.generation = $1 AND l.n > $2 AND l.n <= $3 AND l.committed_after IS NOT NULL"
		" ON CONFLICT DO NOTHING", 9, {UUIDOID, INT8OID, INT8OID, INT8ARRAYOID, TIMESTAMPTZARRAYOID,
		TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID}
	};
	WayTimes	all = {
		.ways = palloc(sizeof(Datum) * MARKS_MAX),
		.numbers = palloc(sizeof(Datum) * MARKS_MAX),
		.times = palloc(sizeof(Datum) * MARKS_MAX)
	};
	WayTimes	times = {
		.ways = palloc(sizeof(Datum) * MARKS_MAX * (mirror_count + 1)),
		.numbers = palloc(sizeof(Datum) * MARKS_MAX * (mirror_count + 1)),
		.times = palloc(sizeof(Datum) * MARKS_MAX * (mirror_count + 1))
	};
	Datum		values[9];

	take_times(&all, "", &published, state, upto);
	if (mirror_count + (sql_nodes_exist() ? 1 : 0) > 1)
	{
		for (int i = 0; i < mirror_count; i++)
			take_times(&times, mirrors[i]->name, &mirrors[i]->known_since, state, upto);
		take_times(&times, RECEIPTS_OVER_SQL, &over_sql, state, upto);
	}
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[1] = Int64GetDatum(known_n);
	values[2] = Int64GetDatum(upto);
	values[3] = PointerGetDatum(construct_array(all.numbers, all.count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[4] = PointerGetDatum(construct_array(all.times, all.count, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[5] = PointerGetDatum(construct_array(times.ways, times.count, TEXTOID, -1, false, TYPALIGN_INT));
	values[6] = PointerGetDatum(construct_array(times.numbers, times.count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[7] = PointerGetDatum(construct_array(times.times, times.count, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[8] = TimestampTzGetDatum(ledger_now());
	worker_query(&query, values, NULL);
}

static void
take_times(WayTimes *out, const char *way, Marks *marks, const LedgerState *state, int64 upto)
{
	int			count = marks_count(marks, state->generation);

	for (int i = 0; i < count; i++)
	{
		out->ways[out->count] = CStringGetTextDatum(way);
		out->numbers[out->count] = Int64GetDatum(marks->marks[i].n);
		out->times[out->count++] = TimestampTzGetDatum(marks->marks[i].at);
	}

	/* The mark that reaches beyond has more to tell. */
	marks_forget(marks, upto);
}

static void
show_unsettled(bool unsettled)
{
	static bool shown = false;
	static bool first = true;

	if (!first && shown == unsettled)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == MyDatabaseId)
			shared->slots[i].unsettled = unsettled;
	LWLockRelease(shared->lock);
	shown = unsettled;
	first = false;
}

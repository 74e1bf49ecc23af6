/*
 * lease.c
 *		The lease of a node over SQL: one call that proves what the node knows.
 *
 * What must never happen: a node holds a lease that began at t0 and lacks a revocation that was committed, or handed over by an
 * abort, before t0; or a receipt (worker/receipts.c) passes over such a lease. Hence the order within a call:
 *
 *	1. The node is entered in shared memory, as one that lacks everything. A receipt that is decided from now on waits for it; one
 *	   that was decided before was about events which the snapshot below sees.
 *	2. What aborts have handed over is copied. The worker frees an entry only after the commit that makes it an event, so one
 *	   that is gone by now is in the snapshot.
 *	3. One new snapshot for everything else, whatever the caller's isolation level: the log, and what has no number yet. Two
 *	   snapshots could see the log of one generation and the position of another.
 *	4. What has no number may have committed without waiting for the disk. It is flushed before it is told: a node must not
 *	   refuse for what a crash can undo.
 *	5. Only then does the entry say what the node will have. An error on the way leaves it as it is, until the lease
 *	   that was not given would be over.
 *
 * Nothing of it needs the worker, and nothing waits for it.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "ledger/ledger.h"
#include "server/clock.h"
#include "server/handover.h"
#include "server/revocation_sql.h"
#include "server/rowset.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "server/snapshot_cursor.h"
#include "server/wake.h"

#define ROWS_MAX	10000		/* of numbered revocations, and of others */

enum
{
	LC_KIND, LC_GENERATION, LC_N, LC_TENANT, LC_USER, LC_SESSION, LC_KID, LC_EPOCH, LC_EVENT, LC_AT, LC_UNTIL, LC_LOW, LEASE_COLUMNS
};

/* What a call was asked. */
typedef struct Asked
{
	char	   *node;
	char		g[SA_UUID_SIZE];	/* empty: nothing applied yet */
	int64		n;
	int64		told_at;		/* unix ms of that entry; -1: not said */
	int64		max_staleness;	/* ms */
} Asked;

/* Where the ledger is, by the snapshot of the call. */
typedef struct Position
{
	TimestampTz now;
	Datum		generation;
	char		g[SA_UUID_SIZE];
	int64		n;
	int64		low;
	int64		floor;
	int64		longest_lease;
	char	   *seen;
	char	   *snapshot;
} Position;

static void read_args(FunctionCallInfo fcinfo, Asked *out);
static void require_primary(void);
static void require_nothing_lost(void);
static void raise_clock(void);
static void read_position(Snapshot snapshot, Position *out);
static bool is_another(const Asked *asked, const Position *position, Snapshot snapshot);
static void refuse_ahead(const Asked *asked, const Position *position);
static int64 put_numbered(const Asked *asked, const Position *position, Snapshot snapshot, Tuplestorestate *rows, TupleDesc desc);
static int64 put_unnumbered(const Position *position, Snapshot snapshot, Tuplestorestate *rows, TupleDesc desc);
static void put_row(uint64 row, const Position *numbered, Tuplestorestate *rows, TupleDesc desc);
static void put_handover(const Handover *entry, TimestampTz now, Tuplestorestate *rows, TupleDesc desc);
static void put_lease(const Position *position, Tuplestorestate *rows, TupleDesc desc);
static void flush_all(void);

PG_FUNCTION_INFO_V1(sessauth_lease);

/*
 * lease(node text, max_staleness interval, generation uuid, n bigint, told_at bigint) → rows: the revocations that the node lacks, and one of kind
 * 'lease' as the last when they are all. Throws 42501 without access, 22004, 22023 for a bad node or a max_staleness beyond
 * sessauth.max_lease, 25006 on a standby, 55000 before the first write call, while tokens of aborted transactions are lost, and to a node that is
 * ahead of the ledger, 53400.
 */
Datum
sessauth_lease(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	Asked		asked;
	Position	position;
	TupleDesc	desc;
	Tuplestorestate *rows;
	Snapshot	snapshot;
	Handover   *handed;
	int		   *places;
	int			handed_count;
	uint64		asking;
	bool		advanced;
	bool		complete = false;

	access_require(ACCESS_NODE, NULL);
	read_args(fcinfo, &asked);
	require_primary();
	require_nothing_lost();
	rows = rowset_begin(fcinfo, LEASE_COLUMNS, &desc);
	ledger_begin(&call, fcinfo);
	if (!ledger_is_active())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this ledger has not been written to yet"),
				 errhint("It begins with the first call that changes something, such as sessauth.create_tenant() or sessauth.activate().")));
	asking = sql_node_asks(asked.node, asked.g, asked.n, asked.max_staleness, &advanced);
	if (asking == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no more than %d nodes get leases over SQL", setting_max_nodes),
				 errhint("Raise sessauth.max_nodes and restart the server. Nodes that are silent for %d times sessauth.max_lease are forgotten.", FORGET_LEASES)));
	if (advanced)
		wake_worker_now();		/* receipts may wait for it */

	ledger_go_by_index();
	raise_clock();
	handed_count = handover_take(&handed, &places);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	read_position(snapshot, &position);
	if (strcmp(asked.g, position.g) == 0 && (asked.n > position.n || is_another(&asked, &position, snapshot)))
		refuse_ahead(&asked, &position);
	if (put_numbered(&asked, &position, snapshot, rows, desc) <= ROWS_MAX)
		complete = put_unnumbered(&position, snapshot, rows, desc) <= ROWS_MAX;
	UnregisterSnapshot(snapshot);
	for (int i = 0; i < handed_count; i++)
		put_handover(&handed[i], position.now, rows, desc);
	ledger_end(&call);

	/* A worker that begins knows how long to wait from what the last one has stored; a longer lease would escape it. */
	if (complete && asked.max_staleness <= position.longest_lease)
	{
		put_lease(&position, rows, desc);
		sql_node_answered(asked.node, asking, position.g, position.n,
						  position.n - (strcmp(asked.g, position.g) == 0 ? asked.n : position.low - 1));
	}
	else
		sql_node_refused(asked.node, asking);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(sessauth_end_lease);

/* end_lease(node text) → boolean: for a node that has dropped its lease; false when it is not known. Throws 42501, 22004, 25006 on a standby. */
Datum
sessauth_end_lease(PG_FUNCTION_ARGS)
{
	bool		known;

	access_require(ACCESS_NODE, NULL);
	require_arg(fcinfo, 0, "node");
	require_primary();
	known = sql_node_gone(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (known)
		wake_worker_now();
	PG_RETURN_BOOL(known);
}

static void
read_args(FunctionCallInfo fcinfo, Asked *out)
{
	require_arg(fcinfo, 0, "node");
	require_arg(fcinfo, 1, "max_staleness");
	require_arg(fcinfo, 3, "n");
	out->node = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!sa_node_id_valid(out->node, strlen(out->node)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid node"),
				 errhint("A node is name/incarnation: up to %d of A-Z a-z 0-9 - . _ : @, and 32 hex digits that are new in every process.",
						 SA_NODE_NAME_MAX)));
	out->max_staleness = interval_us(PG_GETARG_INTERVAL_P(1)) / 1000;
	if (out->max_staleness < 1 || out->max_staleness > setting_max_lease)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_staleness must be from 1 ms to sessauth.max_lease"),
				 errdetail("sessauth.max_lease is %d ms.", setting_max_lease),
				 errhint("Give the node a shorter max_staleness, or raise the setting.")));
	out->g[0] = '\0';
	out->n = 0;
	out->told_at = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT64(4);
	if (!PG_ARGISNULL(2))
	{
		strlcpy(out->g, DatumGetCString(DirectFunctionCall1(uuid_out, PG_GETARG_DATUM(2))), sizeof(out->g));
		out->n = Max(PG_GETARG_INT64(3), 0);
	}
}

static void
require_primary(void)
{
	ledger_check_library();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a standby gives no leases"),
				 errdetail("It may not know of the newest revocations."),
				 errhint("Connect to the primary, for example with target_session_attrs=read-write.")));
}

static void
require_nothing_lost(void)
{
	TimestampTz lost_until = handover_lost_until();

	if (lost_until > ledger_now())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no node gets a lease before %s", timestamptz_to_str(lost_until)),
				 errdetail("Until then tokens of aborted transactions live that could not be handed to the worker."),
				 errhint("See the server's log.")));
}

static void
read_position(Snapshot snapshot, Position *out)
{
	static LedgerQuery query = {
		"SELECT s.generation, s.n, s.floor, s.longest_lease, s.seen::text, pg_current_snapshot()::text,"
		" coalesce((SELECT l.n FROM sessauth.revocation_log l WHERE l.generation = s.generation AND l.until > $1 ORDER BY l.n LIMIT 1), s.n + 1)"
		" FROM sessauth.ledger_state s", 1, {TIMESTAMPTZOID}
	};
	Datum		value;
	bool		isnull;

	/* In whole ms, as it is told: not earlier than what "low" is found by. */
	out->now = ledger_now() / 1000 * 1000;
	value = TimestampTzGetDatum(out->now);
	if (ledger_run_at(&query, &value, NULL, snapshot) != 1)
		elog(ERROR, "sessauth: the ledger's state cannot be read");
	out->generation = datumCopy(ledger_datum(0, 1, &isnull), false, UUID_LEN);
	strlcpy(out->g, DatumGetCString(DirectFunctionCall1(uuid_out, out->generation)), sizeof(out->g));
	out->n = ledger_int8(0, 2);
	out->floor = ledger_int8(0, 3);
	out->longest_lease = ledger_int8(0, 4);
	out->seen = ledger_text(0, 5);
	out->snapshot = ledger_text(0, 6);
	out->low = ledger_int8(0, 7);
}

/* Numbers that come a second time may have got beyond the node's again; then the entry of its number is not the one that it was told. */
static bool
is_another(const Asked *asked, const Position *position, Snapshot snapshot)
{
	static LedgerQuery query = {"SELECT at FROM sessauth.revocation_log WHERE generation = $1 AND n = $2", 2, {UUIDOID, INT8OID}};
	Datum		values[2] = {position->generation, Int64GetDatum(asked->n)};

	if (asked->told_at < 0 || ledger_run_at(&query, values, NULL, snapshot) == 0)
		return false;
	return (ledger_time(0, 1) + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) / 1000 != asked->told_at;
}

/*
 * The ledger's storage went back in time, and its numbers come a second time with another meaning, which the node would take for what it knows.
 * The worker begins a new generation, and in that the node lacks everything.
 */
static void
refuse_ahead(const Asked *asked, const Position *position)
{
	sql_node_is_ahead();
	wake_worker_now();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the node knows more revocations than this ledger"),
			 asked->n > position->n
			 ? errdetail("It has applied number " INT64_FORMAT " of generation %s, which ends here with " INT64_FORMAT ".", asked->n, position->g, position->n)
			 : errdetail("Its number " INT64_FORMAT " of generation %s is another revocation than here.", asked->n, position->g),
			 errhint("The ledger's storage went back in time. Its worker begins a new generation; call again.")));
}

/* As the worker does when it begins, which may be later: what this call tells must not expire by a wall clock that was set back. */
static void
raise_clock(void)
{
	static LedgerQuery query = {"SELECT at FROM sessauth.event ORDER BY event_id DESC LIMIT 1"};
	static bool raised = false;
	bool		isnull;

	if (raised)
		return;
	if (ledger_run(&query, NULL, NULL) > 0)
		ledger_clock_raise(DatumGetTimestampTz(ledger_datum(0, 1, &isnull)));
	raised = true;
}

/* Returns how many there are; more than ROWS_MAX were not all put. */
static int64
put_numbered(const Asked *asked, const Position *position, Snapshot snapshot, Tuplestorestate *rows, TupleDesc desc)
{
	static LedgerQuery query = {
		"SELECT n, kind, tenant_id, user_id, session_id, kid, epoch, event_id, at, until FROM sessauth.revocation_log"
		" WHERE generation = $1 AND n > $2 ORDER BY n LIMIT $3", 3, {UUIDOID, INT8OID, INT8OID}
	};
	int64		above = position->low - 1;
	Datum		values[3];
	uint64		count;

	if (strcmp(asked->g, position->g) == 0)
		above = Max(above, asked->n);
	values[0] = position->generation;
	values[1] = Int64GetDatum(above);
	values[2] = Int64GetDatum(ROWS_MAX + 1);
	count = ledger_run_at(&query, values, NULL, snapshot);
	for (uint64 i = 0; i < Min(count, ROWS_MAX); i++)
		put_row(i, position, rows, desc);
	return count;
}

/* The same of those without a number; of more than ROWS_MAX none is put, because the worker is about to number them. */
static int64
put_unnumbered(const Position *position, Snapshot snapshot, Tuplestorestate *rows, TupleDesc desc)
{
	static LedgerQuery query = {
		"SELECT NULL::bigint," REVOCATION_VALUES NEW_EVENTS ") e WHERE" SAYABLE " LIMIT $6",
		6, {NEW_EVENTS_TYPES, TIMESTAMPTZOID, FLOAT8OID, INT8OID}
	};
	Datum		values[6];
	uint64		count;

	if (snapshot_cursor_ranges(snapshot_cursor_make(position->seen), snapshot_cursor_make(position->snapshot), &values[0], &values[1]) == 0)
		return 0;
	values[2] = Int64GetDatum(position->floor);
	values[3] = TimestampTzGetDatum(position->now);
	values[4] = Float8GetDatum(setting_access_ttl);
	values[5] = Int64GetDatum(ROWS_MAX + 1);
	count = ledger_run_at(&query, values, NULL, snapshot);
	if (count > 0)
		flush_all();
	for (uint64 i = 0; i < count && count <= ROWS_MAX; i++)
		put_row(i, NULL, rows, desc);
	return count;
}

/* Columns as the two statements above have them. What is empty in the log is null in the result. */
static void
put_row(uint64 row, const Position *numbered, Tuplestorestate *rows, TupleDesc desc)
{
	Datum		values[LEASE_COLUMNS];
	bool		nulls[LEASE_COLUMNS];

	values[LC_GENERATION] = numbered ? numbered->generation : (Datum) 0;
	nulls[LC_GENERATION] = numbered == NULL;
	values[LC_N] = ledger_datum(row, 1, &nulls[LC_N]);
	values[LC_KIND] = ledger_datum(row, 2, &nulls[LC_KIND]);
	for (int c = LC_TENANT; c <= LC_UNTIL; c++)
		values[c] = ledger_datum(row, c, &nulls[c]);
	for (int c = LC_TENANT; c <= LC_KID; c++)
		if (c != LC_SESSION && !nulls[c] && VARSIZE_ANY_EXHDR(DatumGetPointer(values[c])) == 0)
			nulls[c] = true;
	if (!nulls[LC_EPOCH] && DatumGetInt64(values[LC_EPOCH]) == 0)
		nulls[LC_EPOCH] = true;
	nulls[LC_LOW] = true;
	tuplestore_putvalues(rows, desc, values, nulls);
}

/* The session that an abort has left in somebody's hands: the worker will end it, and has not yet. */
static void
put_handover(const Handover *entry, TimestampTz now, Tuplestorestate *rows, TupleDesc desc)
{
	Datum		values[LEASE_COLUMNS] = {0};
	bool		nulls[LEASE_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	nulls[LC_KIND] = nulls[LC_TENANT] = nulls[LC_USER] = nulls[LC_SESSION] = nulls[LC_AT] = nulls[LC_UNTIL] = false;
	values[LC_KIND] = CStringGetTextDatum("session");
	values[LC_TENANT] = CStringGetTextDatum(entry->tenant);
	values[LC_USER] = CStringGetTextDatum(entry->user);
	values[LC_SESSION] = UUIDPGetDatum(&entry->session_id);
	values[LC_AT] = TimestampTzGetDatum(now);
	values[LC_UNTIL] = TimestampTzGetDatum(Max(entry->until, now) + USECS_PER_MINUTE);
	tuplestore_putvalues(rows, desc, values, nulls);
}

static void
put_lease(const Position *position, Tuplestorestate *rows, TupleDesc desc)
{
	Datum		values[LEASE_COLUMNS] = {0};
	bool		nulls[LEASE_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	nulls[LC_KIND] = nulls[LC_GENERATION] = nulls[LC_N] = nulls[LC_AT] = nulls[LC_LOW] = false;
	values[LC_KIND] = CStringGetTextDatum("lease");
	values[LC_GENERATION] = position->generation;
	values[LC_N] = Int64GetDatum(position->n);
	values[LC_AT] = TimestampTzGetDatum(position->now);
	values[LC_LOW] = Int64GetDatum(position->low);
	tuplestore_putvalues(rows, desc, values, nulls);
}

/* A record that says nothing, behind everything that was visible. */
static void
flush_all(void)
{
	char		nothing[4] = {0};

	XLogBeginInsert();
	XLogRegisterData(nothing, sizeof(nothing));
	XLogFlush(XLogInsert(RM_XLOG_ID, XLOG_NOOP));
}

/*
 * numbering.c
 *		From events to the revocation log.
 *
 * Events are given ids before they commit, so no order of ids is an order of
 * commits. What is new is what this snapshot sees and the snapshot of the last numbering did not. The numbers
 * and the new position commit together, with a local flush, before a byte leaves for
 * any mirror: number n of a generation never changes its meaning, whatever crashes afterwards.
 *
 * A generation ends when numbers could repeat with another meaning: this
 * copy of the ledger is a clone, was promoted (its last transactions may be
 * lost), or a mirror remembers more than we do (our storage went back in time).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/settings.h"
#include "worker/worker.h"

#define PRUNE_INTERVAL_MS	10000
#define UNIX_MS(t) ((int64) ((t) / 1000) + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

typedef struct Statement
{
	const char *sql;
	int			nargs;
	Oid			types[6];
	SPIPlanPtr	plan;
} Statement;

#define NEW_EVENTS \
	" FROM sessauth.event e WHERE (e.xid >= pg_snapshot_xmax($1) OR e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))" \
	" AND e.event_id > $2"

/* Lifetimes count from when the worker saw the revocation committed, not from when its transaction wrote it. */
#define LOG_COLUMNS "(generation, n, kind, tenant_id, user_id, session_id, kid, epoch, event_id, at, until)"
#define LOG_VALUES \
	" e.revokes, coalesce(e.tenant_id, ''), CASE WHEN e.revokes IN ('session', 'user') THEN coalesce(e.user_id, '') ELSE '' END," \
	" CASE WHEN e.revokes = 'session' THEN e.session_id END, CASE WHEN e.revokes = 'key' THEN e.kid ELSE '' END," \
	" CASE WHEN e.revokes IN ('user', 'tenant') THEN e.epoch ELSE 0 END, e.event_id, e.at," \
	" $6 + greatest(coalesce(e.until - e.at, make_interval(secs => $5)), interval '0')"

static uint64 run(Statement *statement, Datum *values);
static void enter_copy(LedgerState *state);
static void take_over_history(LedgerState *state, int64 floor);
static void read_entry(uint64 row, SaEntry *out);
static char *column_text(uint64 row, int column);
static int64 column_int8(uint64 row, int column);
static int64 column_ms(uint64 row, int column);

bool
ledger_state_read(LedgerState *state)
{
	static Statement query = {
		"SELECT ledger_id, generation, timeline, n, system_id, database_oid::bigint, pg_current_snapshot()::text"
		" FROM sessauth.ledger_state"
	};
	uint64		system_id;

	if (run(&query, NULL) == 0)
		return false;
	strlcpy(state->ledger_id, column_text(0, 1), sizeof(state->ledger_id));
	strlcpy(state->generation, column_text(0, 2), sizeof(state->generation));
	state->timeline = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &(bool) {false}));
	state->n = column_int8(0, 4);
	system_id = (uint64) column_int8(0, 5);
	state->snapshot = column_text(0, 7);

	/* What a beat says as the time must not be earlier than what "low" was found by: a joining node goes by both. */
	state->now = ledger_now() / 1000 * 1000;
	state->now_ms = UNIX_MS(state->now);
	state->low = state->n + 1;

	if (system_id != GetSystemIdentifier() || column_int8(0, 6) != (int64) MyDatabaseId)
		enter_copy(state);
	else if (state->timeline != compat_timeline())
		open_generation(state, "this server has been promoted or recovered to another timeline");
	return true;
}

/* A clone must never write to the original's mirrors: those stay disabled until somebody activates them here. */
static void
enter_copy(LedgerState *state)
{
	static Statement disable = {"DELETE FROM sessauth.mirror_state"};
	static Statement adopt = {
		"UPDATE sessauth.ledger_state SET ledger_id = gen_random_uuid(), system_id = $1, database_oid = $2::oid"
		" RETURNING ledger_id", 2, {INT8OID, INT8OID}
	};
	Datum		values[2] = {Int64GetDatum((int64) GetSystemIdentifier()), Int64GetDatum((int64) MyDatabaseId)};

	run(&disable, NULL);
	run(&adopt, values);
	strlcpy(state->ledger_id, column_text(0, 1), sizeof(state->ledger_id));
	open_generation(state, "this database is a copy of another ledger");
	ereport(LOG,
			(errmsg("sessauth: this ledger is a copy; its mirrors are disabled"),
			 errhint("If it takes the place of the original, run SELECT sessauth.activate().")));
}

int64
number_new_events(LedgerState *state)
{
	static Statement position = {"SELECT seen, floor, seen::text FROM sessauth.ledger_state"};
	static Statement count = {"SELECT count(*), count(e.revokes)" NEW_EVENTS, 2, {PG_SNAPSHOTOID, INT8OID}};
	static Statement number = {
		"INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $3, $4 + row_number() OVER (ORDER BY e.event_id)," LOG_VALUES NEW_EVENTS " AND e.revokes IS NOT NULL",
		6, {PG_SNAPSHOTOID, INT8OID, UUIDOID, INT8OID, FLOAT8OID, TIMESTAMPTZOID}
	};
	static Statement advance = {
		"UPDATE sessauth.ledger_state SET n = $1, seen = pg_current_snapshot()", 1, {INT8OID}
	};
	Datum		values[6];
	bool		isnull;
	bool		first;
	int64		floor;
	int64		revocations;
	Datum		value;

	if (run(&position, NULL) == 0)
		return 0;
	values[0] = datumCopy(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull), false, -1);
	floor = column_int8(0, 2);
	first = strcmp(column_text(0, 3), "1:1:") == 0;
	values[1] = Int64GetDatum(floor);

	run(&count, values);
	if (column_int8(0, 1) == 0)
		return 0;
	revocations = column_int8(0, 2);
	if (first && floor > 0)
		take_over_history(state, floor);
	if (revocations > 0)
	{
		values[2] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
		values[3] = Int64GetDatum(state->n);
		values[4] = Float8GetDatum(setting_access_ttl);
		values[5] = TimestampTzGetDatum(state->now);
		state->n += run(&number, values);
	}
	value = Int64GetDatum(state->n);
	run(&advance, &value);
	state->low = state->n + 1;
	if (revocations > 0)
	{
		char	   *payload = psprintf("{\"g\":\"%s\",\"n\":" INT64_FORMAT "}", state->generation, state->n);

		Async_Notify("sessauth_revocation", payload);
	}
	return revocations;
}

/* A ledger restored from a dump: revocations of its last day may still matter to tokens signed before. */
static void
take_over_history(LedgerState *state, int64 floor)
{
	static Statement number = {
		"INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $3, $4 + row_number() OVER (ORDER BY e.event_id)," LOG_VALUES
		" FROM sessauth.event e WHERE e.event_id <= $2 AND e.revokes IS NOT NULL AND e.at > now() - interval '1 day'"
		" AND $1 IS NOT NULL",
		6, {PG_SNAPSHOTOID, INT8OID, UUIDOID, INT8OID, FLOAT8OID, TIMESTAMPTZOID}
	};
	Datum		values[6];

	values[0] = DirectFunctionCall1(pg_snapshot_in, CStringGetDatum("1:1:"));
	values[1] = Int64GetDatum(floor);
	values[2] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[3] = Int64GetDatum(state->n);
	values[4] = Float8GetDatum(setting_access_ttl);
	values[5] = TimestampTzGetDatum(state->now);
	state->n += run(&number, values);
}

void
open_generation(LedgerState *state, const char *why)
{
	static Statement carry = {
		"WITH old AS (DELETE FROM sessauth.revocation_log RETURNING *)"
		" INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $1, row_number() OVER (ORDER BY o.n), o.kind, o.tenant_id, o.user_id, o.session_id, o.kid, o.epoch,"
		" o.event_id, o.at, o.until FROM old o WHERE o.until > $2", 2, {UUIDOID, TIMESTAMPTZOID}
	};
	static Statement turn = {
		"UPDATE sessauth.ledger_state SET generation = $1, n = $2, timeline = $3", 3, {UUIDOID, INT8OID, INT4OID}
	};
	static Statement fresh = {"SELECT gen_random_uuid()"};
	Datum		values[3];

	run(&fresh, NULL);
	strlcpy(state->generation, column_text(0, 1), sizeof(state->generation));
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[1] = TimestampTzGetDatum(state->now);
	state->n = (int64) run(&carry, values);
	state->timeline = compat_timeline();
	values[1] = Int64GetDatum(state->n);
	values[2] = Int32GetDatum(state->timeline);
	run(&turn, values);
	state->low = 1;
	ereport(LOG,
			(errmsg("sessauth: the revocation log begins generation %s", state->generation),
			 errdetail("The reason: %s. It carries over %lld revocations.", why, (long long) state->n)));
}

void
find_low(LedgerState *state)
{
	static Statement low = {
		"SELECT n FROM sessauth.revocation_log WHERE generation = $1 AND until > $2 ORDER BY n LIMIT 1",
		2, {UUIDOID, TIMESTAMPTZOID}
	};
	static Statement prune = {
		"DELETE FROM sessauth.revocation_log WHERE (generation, n) IN"
		" (SELECT generation, n FROM sessauth.revocation_log WHERE generation = $1 AND n < $2 ORDER BY n LIMIT 5000)",
		2, {UUIDOID, INT8OID}
	};
	static TimestampTz pruned_at = 0;
	Datum		values[2] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)), TimestampTzGetDatum(state->now)};
	TimestampTz now = GetCurrentTimestamp();

	state->low = run(&low, values) > 0 ? column_int8(0, 1) : state->n + 1;
	if (TimestampDifferenceExceeds(pruned_at, now, PRUNE_INTERVAL_MS))
	{
		values[1] = Int64GetDatum(state->low);
		run(&prune, values);	/* writes nothing when there is nothing to delete */
		pruned_at = now;
	}
}

#define LOG_SELECT \
	"SELECT n, kind, tenant_id, user_id, session_id, kid, epoch, event_id, at, until FROM sessauth.revocation_log" \
	" WHERE generation = $1 AND n "

bool
log_entry_read(const LedgerState *state, int64 n, SaEntry *out)
{
	static Statement query = {LOG_SELECT "= $2", 2, {UUIDOID, INT8OID}};
	Datum		values[2] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)), Int64GetDatum(n)};

	if (run(&query, values) == 0)
		return false;
	read_entry(0, out);
	strlcpy(out->g, state->generation, sizeof(out->g));
	return true;
}

int
log_entries_read(const LedgerState *state, int64 above, int max, SaEntry **out)
{
	static Statement query = {LOG_SELECT "> $2 ORDER BY n LIMIT $3", 3, {UUIDOID, INT8OID, INT4OID}};
	Datum		values[3] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)),
	Int64GetDatum(above), Int32GetDatum(max)};
	int			count = (int) run(&query, values);

	*out = palloc(sizeof(SaEntry) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		read_entry(i, &(*out)[i]);
		strlcpy((*out)[i].g, state->generation, SA_UUID_SIZE);
	}
	return count;
}

static void
read_entry(uint64 row, SaEntry *out)
{
	char	   *kind = column_text(row, 2);
	char	   *sid = column_text(row, 5);

	memset(out, 0, sizeof(*out));
	out->n = column_int8(row, 1);
	if (!sa_kind_parse(kind, strlen(kind), &out->kind))
		elog(ERROR, "sessauth: unknown kind of revocation \"%s\"", kind);
	strlcpy(out->tid, column_text(row, 3), sizeof(out->tid));
	strlcpy(out->uid, column_text(row, 4), sizeof(out->uid));
	if (sid)
		strlcpy(out->sid, sid, sizeof(out->sid));
	strlcpy(out->kid, column_text(row, 6), sizeof(out->kid));
	out->epoch = column_int8(row, 7);
	out->eid = column_int8(row, 8);
	out->at = column_ms(row, 9);
	out->until = column_ms(row, 10);
}

static uint64
run(Statement *statement, Datum *values)
{
	MemoryContext context = CurrentMemoryContext;
	int			result;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->sql, statement->nargs, statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "sessauth: could not prepare a statement of the worker");
		statement->plan = plan;
	}
	result = SPI_execute_plan(statement->plan, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "sessauth: a statement of the worker failed: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

static char *
column_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static int64
column_int8(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static int64
column_ms(uint64 row, int column)
{
	return UNIX_MS(column_int8(row, column));
}

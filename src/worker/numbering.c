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

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "server/clock.h"
#include "server/compat.h"
#include "server/settings.h"
#include "server/revocation_sql.h"
#include "server/snapshot_cursor.h"
#include "worker/numbering.h"
#include "worker/worker_tx.h"

#define PRUNE_INTERVAL_MS	10000
#define PRUNE_ROWS			5000
#define DETAILS_PER_ROUND	100
#define NOTIFY_QUEUE_FULL	0.9		/* beyond this share a hint is not worth a failed commit */

#define LOG_COLUMNS "(generation, n, kind, tenant_id, user_id, session_id, kid, epoch, event_id, at, until, committed_after)"

uint64		ledger_news = 1;

/* What was not found by then has committed later. */
static TimestampTz looked_at = DT_NOBEGIN;
static TimestampTz looking_at = DT_NOBEGIN;	/* likewise, once this transaction has committed */

/* Below this nothing matters any more in that generation. */
static char low_of[SA_UUID_SIZE];
static int64 known_low = 1;
static char found_low_of[SA_UUID_SIZE];
static int64 found_low = 1;	/* likewise, once this transaction has committed: an abort takes numbers back */

static void enter_copy(LedgerState *state);
static void take_over_history(LedgerState *state);
static void send_hint(const LedgerState *state, int64 revocations);
static bool send_details(const LedgerState *state, int64 revocations);
static void read_entry(uint64 row, SaEntry *out);

bool
ledger_state_read(LedgerState *state)
{
	static WorkerQuery query = {
		"SELECT ledger_id::text, generation::text, timeline, n, system_id, database_oid::bigint, pg_current_snapshot()::text, floor, seen::text, longest_lease"
		" FROM sessauth.ledger_state"
	};
	uint64		system_id;

	strlcpy(found_low_of, low_of, sizeof(found_low_of));
	found_low = known_low;
	if (worker_query(&query, NULL, NULL) == 0)
		return false;
	row_copy_text(0, 1, state->ledger_id, sizeof(state->ledger_id));
	row_copy_text(0, 2, state->generation, sizeof(state->generation));
	state->timeline = DatumGetInt32(row_datum(0, 3));
	state->n = row_int8(0, 4);
	system_id = (uint64) row_int8(0, 5);
	state->snapshot = row_text(0, 7);
	state->floor = row_int8(0, 8);
	state->seen = row_text(0, 9);
	state->longest_lease = row_int8(0, 10);

	/* What a beat says as the time must not be earlier than what "low" was found by: a joining node goes by both. */
	state->now = ledger_now() / 1000 * 1000;
	state->now_ms = unix_ms(state->now);
	state->low = state->n + 1;

	if (system_id != GetSystemIdentifier() || row_int8(0, 6) != (int64) MyDatabaseId)
		enter_copy(state);
	else if (state->timeline != compat_timeline())
		open_generation(state, "this server has been promoted or recovered to another timeline");
	return true;
}

/* A clone must never write to the original's mirrors: those stay disabled until somebody activates them here. */
static void
enter_copy(LedgerState *state)
{
	static WorkerQuery disable = {"DELETE FROM sessauth.mirror_state"};
	static WorkerQuery adopt = {
		"UPDATE sessauth.ledger_state SET ledger_id = gen_random_uuid(), system_id = $1, database_oid = $2::oid"
		" RETURNING ledger_id::text", 2, {INT8OID, INT8OID}
	};
	Datum		values[2] = {Int64GetDatum((int64) GetSystemIdentifier()), Int64GetDatum((int64) MyDatabaseId)};

	worker_query(&disable, NULL, NULL);
	worker_query(&adopt, values, NULL);
	row_copy_text(0, 1, state->ledger_id, sizeof(state->ledger_id));
	open_generation(state, "this database is a copy of another ledger");
	ereport(LOG,
			(errmsg("sessauth: this ledger is a copy; its mirrors are disabled"),
			 errhint("If it takes the place of the original, run SELECT sessauth.activate().")));
}

int64
number_new_events(LedgerState *state)
{
	static WorkerQuery probe = {"SELECT 1" NEW_EVENTS " LIMIT 1) e LIMIT 1", 3, {NEW_EVENTS_TYPES}};
	static WorkerQuery number = {
		"INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $6, $7 + row_number() OVER (ORDER BY e.event_id)," REVOCATION_VALUES ", least(greatest(e.at, $8), $4)"
		NEW_EVENTS ") e WHERE" SAYABLE,
		8, {NEW_EVENTS_TYPES, TIMESTAMPTZOID, FLOAT8OID, UUIDOID, INT8OID, TIMESTAMPTZOID}
	};
	static WorkerQuery advance = {
		"UPDATE sessauth.ledger_state SET n = $1, seen = pg_current_snapshot()", 1, {INT8OID}
	};
	static bool busy = true;	/* after some there will be more: not worth a look before. At first: to be ready for the first of them */
	Datum		values[8];
	int64		revocations;
	Datum		n;

	looking_at = GetCurrentTransactionStartTimestamp();	/* before its snapshot was taken */
	if (snapshot_cursor_ranges(snapshot_cursor_make(state->seen), snapshot_cursor_make(state->snapshot),
							   &values[0], &values[1]) == 0)
		return 0;
	values[2] = Int64GetDatum(state->floor);
	if (!busy && worker_query(&probe, values, NULL) == 0)
		return 0;
	ledger_news++;
	if (strcmp(state->seen, "1:1:") == 0 && state->floor > 0)
		take_over_history(state);
	values[3] = TimestampTzGetDatum(state->now);
	values[4] = Float8GetDatum(setting_access_ttl);
	values[5] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[6] = Int64GetDatum(state->n);
	values[7] = TimestampTzGetDatum(looked_at);
	revocations = worker_query(&number, values, NULL);
	busy = revocations > 0;
	state->n += revocations;
	n = Int64GetDatum(state->n);
	worker_query(&advance, &n, NULL);
	state->low = state->n + 1;
	if (revocations > 0)
		send_hint(state, revocations);
	return revocations;
}

/*
 * One hint for all that is new. A full queue would fail our commit, and with
 * it the numbering: listeners that sleep in a transaction must not stop revocations.
 */
static void
send_hint(const LedgerState *state, int64 revocations)
{
	static bool full = false;
	bool		was_full = full;

	full = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) > NOTIFY_QUEUE_FULL;
	if (!full && setting_notify_detail && send_details(state, revocations))
		return;
	if (!full)
		Async_Notify("sessauth_revocation", psprintf("{\"g\":\"%s\",\"n\":" INT64_FORMAT "}", state->generation, state->n));
	else if (!was_full)
		ereport(WARNING,
				(errmsg("sessauth sends no notifications: their queue is nearly full"),
				 errdetail("A listener of some database sleeps in a transaction."),
				 errhint("See pg_notification_queue_usage(), and the oldest xact_start in pg_stat_activity.")));
}

/* False, with nothing sent, when there are too many to say. */
static bool
send_details(const LedgerState *state, int64 revocations)
{
	static WorkerQuery query = {
		"SELECT json_build_object('g', generation, 'n', n, 'k', kind, 'tid', tenant_id, 'uid', user_id, 'sid', session_id,"
		" 'kid', kid, 'epoch', epoch, 'eid', event_id, 'until', until)::text"
		" FROM sessauth.revocation_log WHERE generation = $1 AND n > $2 ORDER BY n", 2, {UUIDOID, INT8OID}
	};
	Datum		values[2];

	if (revocations > DETAILS_PER_ROUND)
		return false;
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[1] = Int64GetDatum(state->n - revocations);
	worker_query(&query, values, NULL);
	for (int64 i = 0; i < revocations; i++)
		Async_Notify("sessauth_revocation", row_text(i, 1));
	return true;
}

/* A ledger restored from a dump: revocations of its last day may still matter to tokens signed before. */
static void
take_over_history(LedgerState *state)
{
	static WorkerQuery number = {
		"INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $1, $2 + row_number() OVER (ORDER BY e.event_id)," REVOCATION_VALUES ", NULL"
		" FROM sessauth.event e WHERE e.event_id <= $3 AND e.at > $4 - interval '1 day' AND" SAYABLE,
		5, {UUIDOID, INT8OID, INT8OID, TIMESTAMPTZOID, FLOAT8OID}
	};
	Datum		values[5];

	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[1] = Int64GetDatum(state->n);
	values[2] = Int64GetDatum(state->floor);
	values[3] = TimestampTzGetDatum(state->now);
	values[4] = Float8GetDatum(setting_access_ttl);
	state->n += worker_query(&number, values, NULL);
}

void
numbering_settled(void)
{
	looked_at = looking_at;
	strlcpy(low_of, found_low_of, sizeof(low_of));
	known_low = found_low;
}

void
open_generation(LedgerState *state, const char *why)
{
	static WorkerQuery carry = {
		"WITH old AS (DELETE FROM sessauth.revocation_log RETURNING *)"
		" INSERT INTO sessauth.revocation_log " LOG_COLUMNS
		" SELECT $1, row_number() OVER (ORDER BY e.n), e.kind, e.tenant_id, e.user_id, e.session_id, e.kid, e.epoch,"
		" e.event_id, e.at, e.until, e.committed_after FROM (SELECT *, kind AS revokes FROM old) e WHERE e.until > $2 AND" SAYABLE,
		2, {UUIDOID, TIMESTAMPTZOID}
	};
	static WorkerQuery carry_receipts = {
		"UPDATE sessauth.receipt_state r SET generation = $1, n = (SELECT count(*) FROM (SELECT *, kind AS revokes"
		"  FROM sessauth.revocation_log) e WHERE e.generation = r.generation AND e.n <= r.n AND e.until > $2 AND" SAYABLE ")",
		2, {UUIDOID, TIMESTAMPTZOID}
	};
	static WorkerQuery turn = {
		"UPDATE sessauth.ledger_state SET generation = $1, n = $2, timeline = $3", 3, {UUIDOID, INT8OID, INT4OID}
	};
	static WorkerQuery fresh = {"SELECT gen_random_uuid()::text"};
	Datum		values[3];

	worker_query(&fresh, NULL, NULL);
	row_copy_text(0, 1, state->generation, sizeof(state->generation));
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation));
	values[1] = TimestampTzGetDatum(state->now);
	worker_query(&carry_receipts, values, NULL);
	state->n = (int64) worker_query(&carry, values, NULL);
	state->timeline = compat_timeline();
	values[1] = Int64GetDatum(state->n);
	values[2] = Int32GetDatum(state->timeline);
	worker_query(&turn, values, NULL);
	state->low = 1;
	ereport(LOG,
			(errmsg("sessauth: the revocation log begins generation %s", state->generation),
			 errdetail("The reason: %s. It carries over %lld revocations.", why, (long long) state->n)));
}

void
find_low(LedgerState *state)
{
	static WorkerQuery low = {
		"SELECT n FROM sessauth.revocation_log WHERE generation = $1 AND until > $2 AND n >= $3 ORDER BY n LIMIT 1",
		3, {UUIDOID, TIMESTAMPTZOID, INT8OID}
	};
	static WorkerQuery prune = {
		"DELETE FROM sessauth.revocation_log WHERE (generation, n) IN"
		" (SELECT generation, n FROM sessauth.revocation_log WHERE generation = $1 AND n < $2 ORDER BY n LIMIT " CppAsString2(PRUNE_ROWS) ")",
		2, {UUIDOID, INT8OID}
	};
	static Instant pruned_at = 0;
	Datum		values[3] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)), TimestampTzGetDatum(state->now)};
	Instant		now = clock_boot();

	/* Time only goes on: nobody has to look again at what has expired. */
	values[2] = Int64GetDatum(strcmp(low_of, state->generation) == 0 ? known_low : 1);
	state->low = worker_query(&low, values, NULL) > 0 ? row_int8(0, 1) : state->n + 1;
	if (instant_is_past(pruned_at, now, PRUNE_INTERVAL_MS))
	{
		/* The last row stays: it tells whether a mirror's tail is ours. Nothing to delete writes nothing. */
		values[1] = Int64GetDatum(Min(state->low, state->n));
		pruned_at = worker_query(&prune, values, NULL) == PRUNE_ROWS ? 0 : now;	/* after a wave: go on in the next round */
	}
	strlcpy(found_low_of, state->generation, sizeof(found_low_of));
	found_low = state->low;
}

#define LOG_SELECT \
	"SELECT n, kind, tenant_id, user_id, session_id::text, kid, epoch, event_id, at, until FROM sessauth.revocation_log" \
	" WHERE generation = $1 AND n "

bool
log_entry_read(const LedgerState *state, int64 n, SaEntry *out)
{
	static WorkerQuery query = {LOG_SELECT "= $2", 2, {UUIDOID, INT8OID}};
	Datum		values[2] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)), Int64GetDatum(n)};

	if (worker_query(&query, values, NULL) == 0)
		return false;
	read_entry(0, out);
	strlcpy(out->g, state->generation, sizeof(out->g));
	return true;
}

int
log_entries_read(const LedgerState *state, int64 above, int max, SaEntry **out)
{
	static WorkerQuery query = {LOG_SELECT "> $2 ORDER BY n LIMIT $3", 3, {UUIDOID, INT8OID, INT4OID}};
	Datum		values[3] = {DirectFunctionCall1(uuid_in, CStringGetDatum(state->generation)),
	Int64GetDatum(above), Int32GetDatum(max)};
	int			count = (int) worker_query(&query, values, NULL);

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
	char		kind[16];

	memset(out, 0, sizeof(*out));
	out->n = row_int8(row, 1);
	row_copy_text(row, 2, kind, sizeof(kind));
	if (!sa_kind_parse(kind, strlen(kind), &out->kind))
		elog(ERROR, "sessauth: unknown kind of revocation \"%s\"", kind);
	row_copy_text(row, 3, out->tid, sizeof(out->tid));
	row_copy_text(row, 4, out->uid, sizeof(out->uid));
	row_copy_text(row, 5, out->sid, sizeof(out->sid));
	row_copy_text(row, 6, out->kid, sizeof(out->kid));
	out->epoch = row_int8(row, 7);
	out->eid = row_int8(row, 8);
	out->at = row_unix_ms(row, 9);
	out->until = row_unix_ms(row, 10);
}

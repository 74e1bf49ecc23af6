/*
 * partitions.c
 *		The months of the history come and go.
 *
 * A month is made ahead of time, beside the history, and attached: that locks
 * out nobody, while CREATE TABLE ... PARTITION OF would wait for every open login, with all later ones behind it.
 * Should the month have begun already, because no worker was there to make it, then its events lie in the default
 * partition. They are moved under a lock on that partition, in the transaction that attaches: whoever reads the
 * history finds each of them in one place or the other. Consumers find events by the xid in the row, which is moved along,
 * so none is new once more.
 *
 * A month goes when all of it is older than sessauth.history_retention and has been numbered and brought to
 * every mirror. Dropping it needs the history for a moment without anybody else: it is tried for a few milliseconds, less and
 * less often.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "server/clock.h"
#include "server/settings.h"
#include "worker/upkeep.h"
#include "worker/worker_tx.h"

/* More than this in the default partition would hold up logins for too long while it is searched and moved. */
#define DEFAULT_BYTES_MAX	(8 * 1024 * 1024)
#define ROWS_PER_STEP		500

/* Events that the numbering, or a mirror, has yet to read. */
#define UNREAD \
	" EXISTS (SELECT FROM (SELECT seen FROM sessauth.ledger_state" \
	"  UNION ALL SELECT seen FROM sessauth.mirror_state WHERE seen IS NOT NULL) s, sessauth.ledger_state l" \
	"  WHERE NOT pg_visible_in_snapshot(e.xid, s.seen) AND e.event_id > l.floor)"

static bool default_is_small(void);
static void utility(const char *statement);
static bool drop_oldest(TimestampTz limit);
static bool delete_from_default(TimestampTz limit);
static bool delete_arrivals(TimestampTz limit);

UpkeepResult
partitions_make(void)
{
	static WorkerQuery query = {
		"SELECT 'sessauth.event_' || to_char(m, 'YYYY_MM'), to_char(m, 'YYYY-MM-DD'), to_char(m + interval '1 month', 'YYYY-MM-DD')"
		" FROM (SELECT date_trunc('month', $1 AT TIME ZONE 'UTC') + i * interval '1 month' FROM generate_series(0, 2) i) v(m)"
		" WHERE to_regclass('sessauth.event_' || to_char(m, 'YYYY_MM')) IS NULL ORDER BY m LIMIT 1", 1, {TIMESTAMPTZOID}
	};
	Datum		now = TimestampTzGetDatum(ledger_now());
	bool		missing;

	if (worker_tx_begin_upkeep(UPKEEP_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return UPKEEP_LATER;
	missing = upkeep_allowed() && worker_query(&query, &now, NULL) > 0;
	if (missing)
	{
		char	   *table = row_text(0, 1);
		char	   *from = row_text(0, 2);
		char	   *to = row_text(0, 3);

		missing = default_is_small();
		if (missing)
		{
			utility(psprintf("CREATE TABLE %s (LIKE sessauth.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)", table));
			if (SPI_execute(psprintf("SELECT sessauth.prepare_partition('%s')", table), false, 0) != SPI_OK_SELECT)
				elog(ERROR, "could not prepare a partition of the history");
			utility("LOCK TABLE ONLY sessauth.event_default IN ACCESS EXCLUSIVE MODE");
			if (SPI_execute(psprintf("WITH moved AS (DELETE FROM sessauth.event_default"
									 "  WHERE at >= '%s 00:00:00Z' AND at < '%s 00:00:00Z' RETURNING *)"
									 " INSERT INTO %s SELECT * FROM moved", from, to, table), false, 0) != SPI_OK_INSERT)
				elog(ERROR, "could not move events of the history");
			utility(psprintf("ALTER TABLE sessauth.event ATTACH PARTITION %s"
							 " FOR VALUES FROM ('%s 00:00:00Z') TO ('%s 00:00:00Z')", table, from, to));
		}
	}
	worker_tx_commit();
	return missing ? UPKEEP_MORE : UPKEEP_DONE;
}

static bool
default_is_small(void)
{
	static WorkerQuery query = {"SELECT pg_table_size('sessauth.event_default')"};
	static bool told = false;
	bool		small;

	worker_query(&query, NULL, NULL);
	small = row_int8(0, 1) <= DEFAULT_BYTES_MAX;
	if (!small && !told)
		ereport(LOG,
				(errmsg("sessauth makes no partitions of the history: the default one has grown too large"),
				 errdetail("New events go there too until sessauth.history_retention has emptied it."),
				 errhint("In a quiet hour, move its rows out in one transaction with CREATE TABLE sessauth.event_YYYY_MM, sessauth.prepare_partition() and ATTACH PARTITION.")));
	told = !small;
	return small;
}

static void
utility(const char *statement)
{
	if (SPI_execute(statement, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not change the partitions of the history");
}

UpkeepResult
partitions_remove(void)
{
	TimestampTz limit;
	bool		more;

	if (setting_history_retention == 0)
		return UPKEEP_DONE;
	if (worker_tx_begin_upkeep(UPKEEP_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return UPKEEP_LATER;
	limit = ledger_now() - setting_history_retention * USECS_PER_DAY;
	more = upkeep_allowed() && (delete_from_default(limit) || drop_oldest(limit) || delete_arrivals(limit));
	worker_tx_commit();
	return more ? UPKEEP_MORE : UPKEEP_DONE;
}

/* Whoever made the partition, and whatever it is called: its upper bound counts. */
static bool
drop_oldest(TimestampTz limit)
{
	static WorkerQuery query = {
		"SELECT p.name FROM (SELECT c.oid::regclass::text,"
		"   substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''\\)')::timestamptz"
		"  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'sessauth.event'::regclass) p(name, upper)"
		" WHERE p.upper <= $1 ORDER BY p.upper LIMIT 1", 1, {TIMESTAMPTZOID}
	};
	Datum		value = TimestampTzGetDatum(limit);
	char	   *table;

	if (worker_query(&query, &value, NULL) == 0)
		return false;
	table = row_text(0, 1);
	if (SPI_execute(psprintf("SELECT 1 FROM %s e, (SELECT min(pg_snapshot_xmin(seen)) FROM (SELECT seen FROM sessauth.ledger_state"
							 "  UNION ALL SELECT seen FROM sessauth.mirror_state) s) o(oldest)"
							 " WHERE e.xid >= o.oldest AND" UNREAD, table), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look into a partition of the history");
	if (SPI_processed > 0)
		return false;
	utility(psprintf("DROP TABLE %s", table));
	ereport(LOG, (errmsg("sessauth has removed the partition %s of the history", table),
				  errdetail("It was older than sessauth.history_retention.")));
	return true;
}

/* Ids follow time closely enough: what is old is among the lowest. */
static bool
delete_from_default(TimestampTz limit)
{
	static WorkerQuery query = {
		"DELETE FROM sessauth.event_default WHERE event_id = ANY (ARRAY(SELECT e.event_id"
		" FROM (SELECT event_id, at, xid FROM sessauth.event_default ORDER BY event_id LIMIT $2) e"
		" WHERE e.at < $1 AND NOT" UNREAD "))", 2, {TIMESTAMPTZOID, INT4OID}
	};
	Datum		values[2] = {TimestampTzGetDatum(limit), Int32GetDatum(ROWS_PER_STEP)};

	return worker_query(&query, values, NULL) == ROWS_PER_STEP;
}

/* What is told of them goes with the events. */
static bool
delete_arrivals(TimestampTz limit)
{
	static WorkerQuery query = {
		"DELETE FROM sessauth.arrival WHERE event_id = ANY (ARRAY(SELECT event_id FROM sessauth.arrival"
		" WHERE committed_after < $1 ORDER BY committed_after LIMIT $2))", 2, {TIMESTAMPTZOID, INT4OID}
	};
	Datum		values[2] = {TimestampTzGetDatum(limit), Int32GetDatum(ROWS_PER_STEP)};

	return worker_query(&query, values, NULL) == ROWS_PER_STEP;
}

/*
 * feed.c
 *		What a mirror's keys must hear of.
 *
 * Every query walks one index from a position on, and stops at its limit, so
 * a slice costs the same whether the backlog is a thousand events or ten million.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "worker/feed.h"
#include "worker/worker_tx.h"

#define NIL_UUID		"00000000-0000-0000-0000-000000000000"

#define EVENT_COLUMNS \
	"e.xid, e.event_id, e.tenant_id, e.user_id, e.session_id::text, e.epoch, e.tenant_epoch," \
	" e.version, e.live, e.expires_at, e.until, e.at"
#define ABOUT_KEYS \
	" AND e.tenant_id <> '' AND e.epoch IS NOT NULL" \
	" AND (e.session_id IS NULL OR e.version IS NOT NULL AND e.user_id IS NOT NULL AND e.tenant_epoch IS NOT NULL" \
	"  AND e.expires_at IS NOT NULL)"

static int	read_events(FeedPosition *position, const LedgerState *state, MemoryContext cursors, int max, KeyItem *out);
static int	read_slice(FeedPosition *position, const LedgerState *state, int max, KeyItem *out);
static void fill_event(uint64 row, const LedgerState *state, KeyItem *item);
static int	read_tenants(FeedPosition *position, int max, KeyItem *out);
static int	read_sessions(FeedPosition *position, const LedgerState *state, int max, KeyItem *out);

void
feed_start_sync(FeedPosition *position, const LedgerState *state, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	memset(position, 0, sizeof(FeedPosition));
	position->seen = snapshot_cursor_make(state->snapshot);
	MemoryContextSwitchTo(old);
	position->news = ledger_news;
	position->sync = FEED_SYNC_TENANTS;
}

bool
feed_has_more(const FeedPosition *position)
{
	return position->target != NULL || position->news != ledger_news || position->sync != FEED_SYNC_NONE;
}

int
feed_read(FeedPosition *position, const LedgerState *state, MemoryContext cursors, int max, KeyItem *out)
{
	int			count = 0;

	if (position->target != NULL || position->news != ledger_news)
		count += read_events(position, state, cursors, max, out);
	if (position->sync == FEED_SYNC_TENANTS && count < max)
		count += read_tenants(position, max - count, out + count);
	if (position->sync == FEED_SYNC_SESSIONS && count < max)
		count += read_sessions(position, state, max - count, out + count);
	return count;
}

static int
read_events(FeedPosition *position, const LedgerState *state, MemoryContext cursors, int max, KeyItem *out)
{
	int			count;

	if (position->target == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(cursors);

		position->target = snapshot_cursor_make(state->snapshot);
		MemoryContextSwitchTo(old);
		position->moved = false;
		position->after_xid = 0;
		position->after_event = 0;
		position->news = ledger_news;
	}

	count = read_slice(position, state, max, out);
	if (count > 0)
		position->moved = true;
	if (count < max)
	{
		/* A pass that found nothing leaves the position alone: storing it would write WAL for nothing. */
		if (position->moved)
			position->seen = position->target;
		position->target = NULL;
	}
	return count;
}

/*
 * From the position on, in order. Moves the position behind what it has read. The comparison of rows is the only lower
 * bound: beside another one the index would be entered at whichever of them comes last, perhaps at its beginning.
 */
static int
read_slice(FeedPosition *position, const LedgerState *state, int max, KeyItem *out)
{
	static WorkerQuery query = {
		"SELECT e.* FROM unnest($1, $2) r (first, last) CROSS JOIN LATERAL (SELECT " EVENT_COLUMNS
		"  FROM sessauth.event e"
		"  WHERE (e.xid, e.event_id) > (greatest(r.first, $3), CASE WHEN r.first > $3 THEN 0 ELSE $4 END)"
		"  AND e.xid <= r.last AND e.event_id + 0 > $5" ABOUT_KEYS
		"  ORDER BY e.xid, e.event_id LIMIT $6) e LIMIT $6",
		6, {XID8ARRAYOID, XID8ARRAYOID, XID8OID, INT8OID, INT8OID, INT8OID}
	};
	Datum		values[6];
	int			count;

	if (snapshot_cursor_ranges(position->seen, position->target, &values[0], &values[1]) == 0)
		return 0;
	values[2] = FullTransactionIdGetDatum(FullTransactionIdFromU64(position->after_xid));
	values[3] = Int64GetDatum(position->after_event);
	values[4] = Int64GetDatum(state->floor);
	values[5] = Int64GetDatum(max);
	count = (int) worker_query(&query, values, NULL);
	for (int i = 0; i < count; i++)
	{
		uint64		xid = U64FromFullTransactionId(DatumGetFullTransactionId(row_datum(i, 1)));
		int64		event = row_int8(i, 2);

		/* The ranges ascend, and a nested loop keeps their order; were that ever not so, a slice would skip events. */
		if (xid < position->after_xid || (xid == position->after_xid && event <= position->after_event))
			elog(ERROR, "sessauth: new events were not read in order");
		position->after_xid = xid;
		position->after_event = event;
		fill_event(i, state, &out[i]);
	}
	return count;
}

static void
fill_event(uint64 row, const LedgerState *state, KeyItem *item)
{
	int64		expires = row_unix_ms(row, 10);
	int64		until = row_unix_ms(row, 11);

	memset(item, 0, sizeof(KeyItem));
	item->tid = row_text(row, 3);
	item->uid = row_text(row, 4);
	if (row_isnull(row, 4))
	{
		item->kind = KEY_ITEM_TENANT;
		item->tenant_epoch = row_int8(row, 6);
	}
	else if (row_isnull(row, 5))
	{
		item->kind = KEY_ITEM_USER;
		item->user_epoch = row_int8(row, 6);
		/* Tokens below the epoch live as long after we saw it as "until" said when it was written. */
		if (expires == 0)
			expires = state->now_ms + Max(until - row_unix_ms(row, 12), 0);
		item->expire_at = expires + KEY_GRACE_MS;
	}
	else
	{
		item->kind = KEY_ITEM_SESSION;
		row_copy_text(row, 5, item->sid, sizeof(item->sid));
		item->epoch = item->user_epoch = row_int8(row, 6);
		item->tepoch = item->tenant_epoch = row_int8(row, 7);
		item->version = row_int8(row, 8);
		item->live = DatumGetBool(row_datum(row, 9));
		item->exp = expires / 1000;
		item->expire_at = item->exp * 1000 + KEY_GRACE_MS;
	}
}

/* Tenants first: they are few, and a session whose tenant's key is missing cannot be judged. */
static int
read_tenants(FeedPosition *position, int max, KeyItem *out)
{
	static WorkerQuery query = {
		"SELECT tenant_id, epoch FROM sessauth.tenant WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2",
		2, {TEXTOID, INT8OID}
	};
	Datum		values[2];
	int			count;

	values[0] = CStringGetTextDatum(position->sync_after);
	values[1] = Int64GetDatum(max);
	count = (int) worker_query(&query, values, NULL);
	for (int i = 0; i < count; i++)
	{
		memset(&out[i], 0, sizeof(KeyItem));
		out[i].kind = KEY_ITEM_TENANT;
		out[i].tid = row_text(i, 1);
		out[i].tenant_epoch = row_int8(i, 2);
	}
	if (count == max)
		row_copy_text(count - 1, 1, position->sync_after, sizeof(position->sync_after));
	else
	{
		position->sync = FEED_SYNC_SESSIONS;
		strlcpy(position->sync_after, NIL_UUID, sizeof(position->sync_after));
	}
	return count;
}

/* Ended sessions too: a mirror that fell back to an older copy may still call them active. */
static int
read_sessions(FeedPosition *position, const LedgerState *state, int max, KeyItem *out)
{
	static WorkerQuery query = {
		"SELECT s.session_id::text, s.tenant_id, s.user_id, s.epoch, s.tenant_epoch, s.version, s.ended_at IS NULL,"
		" least(s.expires_at, s.idle_expires_at), greatest(s.epoch, u.epoch), greatest(s.tenant_epoch, t.epoch)"
		" FROM sessauth.session s"
		" LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id"
		" LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id"
		" WHERE s.session_id > $1 AND least(s.expires_at, s.idle_expires_at) > $3"
		" ORDER BY s.session_id LIMIT $2",
		3, {UUIDOID, INT8OID, TIMESTAMPTZOID}
	};
	Datum		values[3];
	int			count;

	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(position->sync_after));
	values[1] = Int64GetDatum(max);
	values[2] = TimestampTzGetDatum(state->now);
	count = (int) worker_query(&query, values, NULL);
	for (int i = 0; i < count; i++)
		feed_fill_session(i, &out[i]);
	if (count == max)
		row_copy_text(count - 1, 1, position->sync_after, sizeof(position->sync_after));
	else
		position->sync = FEED_SYNC_LAST;
	return count;
}

void
feed_fill_session(uint64 row, KeyItem *item)
{
	int64		expires = row_unix_ms(row, 8);

	memset(item, 0, sizeof(KeyItem));
	item->kind = KEY_ITEM_SESSION;
	row_copy_text(row, 1, item->sid, sizeof(item->sid));
	item->tid = row_text(row, 2);
	item->uid = row_text(row, 3);
	item->epoch = row_int8(row, 4);
	item->tepoch = row_int8(row, 5);
	item->version = row_int8(row, 6);
	item->live = DatumGetBool(row_datum(row, 7));
	item->exp = expires / 1000;
	item->expire_at = item->exp * 1000 + KEY_GRACE_MS;
	item->user_epoch = row_int8(row, 9);
	item->tenant_epoch = row_int8(row, 10);
}

/*
 * keys.c
 *		What the feed says, as keys in Redis.
 *
 * Many items share one script call: Redis then checks once whose mirror it
 * is, and serves nobody else for no longer than such a call takes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "worker/redis_scripts.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define ITEMS_PER_ROUND		2048
#define ITEMS_PER_SCRIPT	64
#define KEYS_PER_ITEM		3
#define ARGS_PER_ITEM		13
#define STORE_MS			500		/* how often the position is stored, when it does nothing but move */

static bool is_sound(const KeyItem *item, int64 now_ms);
static void send_items(Mirror *mirror, const LedgerState *state, const KeyItem *items, int count, KeysMark mark);
static void add_item(const char *prefix, const KeyItem *item, SaField *keys, int *nkeys, SaField *args, int *nargs);
static void add_epoch(const char *key, int64 epoch, SaField *args, int *nargs);
static SaField number(int64 value);
static SaField keep(const char *key);

bool
keys_pending(const Mirror *mirror)
{
	return feed_has_more(&mirror->feed);
}

void
keys_sync(Mirror *mirror, const LedgerState *state)
{
	feed_start_sync(&mirror->feed, state, mirror->cursors);
	mirror->ahead = mirror->feed;
	strlcpy(mirror->feed_place, mirror->place, sizeof(mirror->feed_place));
	mirror->synced_keys = 0;
	mirror->synced_at = 0;
	mirror->sync_began_at = ledger_now();
	mirror->store_feed = true;
	mirror->store_at = 0;
}

void
keys_plan(Mirror *mirror, const LedgerState *state)
{
	KeyItem    *items;
	int			count;
	int			sound;

	if (!feed_has_more(&mirror->ahead))
		return;
	items = palloc(sizeof(KeyItem) * ITEMS_PER_ROUND);
	count = feed_read(&mirror->ahead, state, mirror->cursors, ITEMS_PER_ROUND, items);
	sound = keys_write(mirror, state, items, count, KEYS_PLAIN);
	if (mirror->ahead.sync == FEED_SYNC_LAST)
		send_items(mirror, state, NULL, 0, KEYS_END_SYNC);
	else if (mirror->ahead.sync != FEED_SYNC_NONE)
		mirror->synced_keys += sound;
}

int
keys_write(Mirror *mirror, const LedgerState *state, KeyItem *items, int count, KeysMark mark)
{
	int			sound = 0;

	for (int i = 0; i < count; i++)
		if (is_sound(&items[i], state->now_ms))
			items[sound++] = items[i];
	for (int i = 0; i < sound; i += ITEMS_PER_SCRIPT)
		send_items(mirror, state, items + i, Min(ITEMS_PER_SCRIPT, sound - i), mark);
	return sound;
}

void
keys_delete(Mirror *mirror, const LedgerState *state, const Repair *repairs, int count)
{
	SaField    *argv = palloc(sizeof(SaField) * (3 + 2 * count));
	char		mirror_key[SA_REDIS_KEY_SIZE];
	int			nkeys = 1;
	int			argc;

	sa_name_mirror(mirror->where.prefix, mirror_key);
	argv[0] = SA_FIELD_STR(mirror_key);
	for (int i = 0; i < count; i++)
		if (repairs[i].name != NULL)
			argv[nkeys++] = SA_FIELD_STR(repairs[i].name);
	if (nkeys == 1)
		return;
	argc = nkeys;
	argv[argc++] = SA_FIELD_STR(state->ledger_id);
	argv[argc++] = SA_FIELD_STR(mirror->generation);
	for (int i = 0; i < count; i++)
		if (repairs[i].name != NULL)
			argv[argc++] = repairs[i].mac;
	mirror_script(mirror, SCRIPT_DELETE, nkeys, argc, argv);
}

void
keys_expire(Mirror *mirror, const LedgerState *state, const WrongExpiry *expiries, int count)
{
	SaField    *argv = palloc(sizeof(SaField) * (3 + 5 * count));
	char		mirror_key[SA_REDIS_KEY_SIZE];
	int			argc = 0;

	if (count == 0)
		return;
	sa_name_mirror(mirror->where.prefix, mirror_key);
	argv[argc++] = SA_FIELD_STR(mirror_key);
	for (int i = 0; i < count; i++)
		argv[argc++] = SA_FIELD_STR(expiries[i].name);
	argv[argc++] = SA_FIELD_STR(state->ledger_id);
	argv[argc++] = SA_FIELD_STR(mirror->generation);
	for (int i = 0; i < count; i++)
	{
		argv[argc++] = expiries[i].mac;
		argv[argc++] = number(expiries[i].low);
		argv[argc++] = number(expiries[i].high);
		argv[argc++] = number(expiries[i].give);
	}
	mirror_script(mirror, SCRIPT_EXPIRE, 1 + count, argc, argv);
}

/* The exchange is over, well or not; with nothing to send, it ended well. */
void
keys_settle(Mirror *mirror, bool arrived)
{
	MemoryContext fresh = AllocSetContextCreate(TopMemoryContext, "sessauth cursors", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(fresh);

	if (arrived)
	{
		if (mirror->ahead.seen != mirror->feed.seen)
			mirror->store_feed = true;
		mirror->feed = mirror->ahead;
		if (mirror->feed.sync == FEED_SYNC_LAST)
		{
			mirror->feed.sync = FEED_SYNC_NONE;
			mirror->synced_at = ledger_now();
			mirror->store_feed = true;
			mirror->store_at = 0;
			ereport(LOG, (errmsg("sessauth: mirror \"%s\" has been synchronised with %lld keys",
								 mirror->name, (long long) mirror->synced_keys)));
		}
	}

	/* Only what "feed" still needs survives. */
	if (mirror->feed.seen != NULL)
		mirror->feed.seen = snapshot_cursor_make(mirror->feed.seen->text);
	if (mirror->feed.target != NULL)
		mirror->feed.target = snapshot_cursor_make(mirror->feed.target->text);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(mirror->cursors);
	mirror->cursors = fresh;
	mirror->ahead = mirror->feed;
}

/* What an earlier worker knew. A full sync that had not ended begins anew. */
void
keys_load(Mirror *mirror)
{
	static WorkerQuery query = {
		"SELECT seen::text, place, synced_at FROM sessauth.mirror_state"
		" WHERE name = $1 AND seen IS NOT NULL AND place IS NOT NULL AND synced_at IS NOT NULL", 1, {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(mirror->name);
	MemoryContext old;

	mirror->loaded = true;
	if (worker_query(&query, &value, NULL) == 0)
		return;
	old = MemoryContextSwitchTo(mirror->cursors);
	mirror->feed.seen = snapshot_cursor_make(row_text(0, 1));
	MemoryContextSwitchTo(old);
	row_copy_text(0, 2, mirror->feed_place, sizeof(mirror->feed_place));
	mirror->sync_began_at = mirror->synced_at = DatumGetTimestampTz(row_datum(0, 3));
}

/* Losing this repeats work that the guards make harmless. A remove_mirror() left open must not hold us up. */
void
keys_store(Mirror *mirror)
{
	static WorkerQuery query = {
		"UPDATE sessauth.mirror_state SET generation = $2, seen = $3::pg_snapshot, place = $4, synced_at = $5"
		" WHERE name = (SELECT name FROM sessauth.mirror_state WHERE name = $1 FOR UPDATE SKIP LOCKED)",
		5, {TEXTOID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
	};
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = CStringGetTextDatum(mirror->name);
	values[1] = DirectFunctionCall1(uuid_in, CStringGetDatum(mirror->generation));
	values[2] = CStringGetTextDatum(mirror->feed.seen->text);
	values[3] = CStringGetTextDatum(mirror->feed_place);
	values[4] = TimestampTzGetDatum(mirror->synced_at);
	nulls[4] = mirror->synced_at == 0;
	worker_query(&query, values, nulls);
	mirror->store_feed = false;
	mirror->store_at = instant_after(clock_boot(), STORE_MS);
	mirror->storing = true;
}

/*
 * The tables of sessions and events take any text, a name has bounds. What
 * could never be in a token needs no key, nor does what no token can need any more.
 */
static bool
is_sound(const KeyItem *item, int64 now_ms)
{
	size_t		tidlen = strlen(item->tid);
	size_t		uidlen = item->uid != NULL ? strlen(item->uid) : 0;

	if (tidlen == 0 || tidlen > SA_TENANT_ID_MAX || !sa_text_is_clean(item->tid, tidlen))
		return false;
	if (item->kind == KEY_ITEM_TENANT)
		return item->tenant_epoch > 0;
	if (uidlen == 0 || uidlen > SA_USER_ID_MAX || !sa_text_is_clean(item->uid, uidlen) ||
		item->user_epoch <= 0 || item->expire_at <= now_ms)
		return false;
	return item->kind == KEY_ITEM_USER ||
		(item->epoch > 0 && item->tepoch > 0 && item->version > 0 && item->tenant_epoch > 0);
}

static void
send_items(Mirror *mirror, const LedgerState *state, const KeyItem *items, int count, KeysMark mark)
{
	SaField    *argv = palloc(sizeof(SaField) * (4 + count * (KEYS_PER_ITEM + ARGS_PER_ITEM)));
	SaField    *args = palloc(sizeof(SaField) * (count * ARGS_PER_ITEM + 1));
	char		mirror_key[SA_REDIS_KEY_SIZE];
	int			nkeys = 1;
	int			nargs = 0;

	sa_name_mirror(mirror->where.prefix, mirror_key);
	argv[0] = SA_FIELD_STR(mirror_key);
	for (int i = 0; i < count; i++)
		add_item(mirror->where.prefix, &items[i], argv, &nkeys, args, &nargs);
	argv[nkeys] = SA_FIELD_STR(state->ledger_id);
	argv[nkeys + 1] = SA_FIELD_STR(mirror->generation);
	argv[nkeys + 2] = mark == KEYS_END_SYNC ? number(state->now_ms) : mark == KEYS_COUNTED ? SA_FIELD("count", 5) : SA_FIELD("", 0);
	memcpy(argv + nkeys + 3, args, sizeof(SaField) * nargs);
	mirror_script(mirror, SCRIPT_KEYS, nkeys, nkeys + 3 + nargs, argv);
}

static void
add_item(const char *prefix, const KeyItem *item, SaField *keys, int *nkeys, SaField *args, int *nargs)
{
	char		key[SA_REDIS_KEY_SIZE];
	size_t		tidlen = strlen(item->tid);
	char	   *mac = palloc(SA_MAC_TEXT_LEN + 1);
	const char *state = item->live ? "active" : "revoked";

	if (item->kind == KEY_ITEM_SESSION)
	{
		sa_name_session(prefix, item->tid, tidlen, item->sid, key);
		keys[(*nkeys)++] = keep(key);
		if (!sa_session_mac(mirror_link_key, key, item->uid, strlen(item->uid), item->epoch, item->tepoch, item->exp,
							state, item->version, mac))
			elog(ERROR, "sessauth: could not authenticate a key");
		args[(*nargs)++] = SA_FIELD("s", 1);
		args[(*nargs)++] = number(item->version);
		args[(*nargs)++] = SA_FIELD_STR(item->uid);
		args[(*nargs)++] = number(item->epoch);
		args[(*nargs)++] = number(item->tepoch);
		args[(*nargs)++] = number(item->exp);
		args[(*nargs)++] = SA_FIELD_STR(state);
		args[(*nargs)++] = SA_FIELD_STR(mac);
		args[(*nargs)++] = number(item->expire_at);
	}
	else
		args[(*nargs)++] = SA_FIELD(item->kind == KEY_ITEM_USER ? "u" : "t", 1);

	if (item->kind != KEY_ITEM_TENANT)
	{
		sa_name_user_epoch(prefix, item->tid, tidlen, item->uid, strlen(item->uid), key);
		keys[(*nkeys)++] = keep(key);
		add_epoch(key, item->user_epoch, args, nargs);
	}
	if (item->kind == KEY_ITEM_USER)
		args[(*nargs)++] = number(item->expire_at);
	else
	{
		sa_name_tenant_epoch(prefix, item->tid, tidlen, key);
		keys[(*nkeys)++] = keep(key);
		add_epoch(key, item->tenant_epoch, args, nargs);
	}
}

static void
add_epoch(const char *key, int64 epoch, SaField *args, int *nargs)
{
	char	   *mac = palloc(SA_MAC_TEXT_LEN + 1);

	if (!sa_epoch_mac(mirror_link_key, key, epoch, mac))
		elog(ERROR, "sessauth: could not authenticate a key");
	args[(*nargs)++] = number(epoch);
	args[(*nargs)++] = SA_FIELD_STR(mac);
}

/* Decimal text in the round's memory. */
static SaField
number(int64 value)
{
	char	   *text = palloc(24);
	int			len = pg_lltoa(value, text);

	return SA_FIELD(text, len);
}

/* Thousands of names are kept at a time, and few are as long as they may be. */
static SaField
keep(const char *key)
{
	size_t		len = strlen(key);

	return SA_FIELD(pnstrdup(key, len), len);
}

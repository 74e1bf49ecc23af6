/*
 * compare.c
 *		One slice of a mirror's keys against the ledger's rows.
 *
 * The keys were read before this transaction's snapshot was taken, and a mirror is told only what has
 * committed. So whatever is genuine and newer than the ledger is something that the ledger has lost.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "server/clock.h"
#include "server/settings.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define SESSIONS_TEXT	"64"	/* of one user that are looked at, so that one who has many costs no more than others */
#define ANY_TOKEN_MS	(INT64CONST(1000) * 60 * 60 * 25)	/* longer than any token of before can live */

static void compare_epochs(Reconcile *reconcile, KeyItemKind kind);
static void compare_sessions(Reconcile *reconcile);
static void compare_session(Reconcile *reconcile, FoundKey *key, const KeyItem *item);
static void check_expiry(Reconcile *reconcile, const FoundKey *key, int64 low, int64 high, int64 give);
static void check_epoch_expiry(Reconcile *reconcile, const FoundKey *key, int64 needed);
static void check_session_expiry(Reconcile *reconcile, const FoundKey *key);
static bool is_as_read(const FoundKey *key, const KeyItem *item);
static bool adopt(const char *kind, const FoundKey *key);
static Repair *repair(Reconcile *reconcile, const FoundKey *key, bool by_force);
static Datum text_array(Datum *values, int count);

void
compare_found(Reconcile *reconcile)
{
	reconcile->repairs = palloc(sizeof(Repair) * Max(reconcile->count, 1));
	reconcile->repair_count = 0;
	reconcile->expiries = palloc(sizeof(WrongExpiry) * Max(reconcile->count, 1));
	reconcile->expiry_count = 0;
	compare_epochs(reconcile, KEY_ITEM_TENANT);
	compare_epochs(reconcile, KEY_ITEM_USER);
	compare_sessions(reconcile);
}

static void
compare_epochs(Reconcile *reconcile, KeyItemKind kind)
{
	static WorkerQuery users = {
		"SELECT e.i::int4, u.epoch, (SELECT max(s.expires) FROM (SELECT least(s.expires_at, s.idle_expires_at) AS expires FROM sessauth.session s"
		"  WHERE s.tenant_id = u.tenant_id AND s.user_id = u.user_id LIMIT " SESSIONS_TEXT ") s)"
		" FROM unnest($1, $2) WITH ORDINALITY e (tid, uid, i)"
		" JOIN sessauth.tenant_user u ON u.tenant_id = e.tid AND u.user_id = e.uid", 2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	static WorkerQuery tenants = {
		"SELECT e.i::int4, t.epoch, NULL::timestamptz FROM unnest($1, $2) WITH ORDINALITY e (tid, uid, i)"
		" JOIN sessauth.tenant t ON t.tenant_id = e.tid", 2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	Datum	   *tids = palloc(sizeof(Datum) * reconcile->count);
	Datum	   *uids = palloc(sizeof(Datum) * reconcile->count);
	int64	   *epochs = palloc0(sizeof(int64) * reconcile->count);	/* of the ledger; 0: no row */
	int64	   *needed = palloc0(sizeof(int64) * reconcile->count);	/* when the sessions of the user are over, unix ms */
	FoundKey  **keys = palloc(sizeof(FoundKey *) * reconcile->count);
	Datum		values[2];
	uint64		found;
	int			count = 0;

	for (int i = 0; i < reconcile->count; i++)
	{
		FoundKey   *key = &reconcile->keys[i];

		if (key->kind != kind || !key->exists)
			continue;
		tids[count] = CStringGetTextDatum(key->tid);
		uids[count] = CStringGetTextDatum(key->uid ? key->uid : "");
		keys[count++] = key;
	}
	if (count == 0)
		return;
	values[0] = text_array(tids, count);
	values[1] = text_array(uids, count);
	found = worker_query(kind == KEY_ITEM_USER ? &users : &tenants, values, NULL);
	for (uint64 row = 0; row < found; row++)
	{
		int			i = DatumGetInt32(row_datum(row, 1)) - 1;

		epochs[i] = row_int8(row, 2);
		needed[i] = row_unix_ms(row, 3);
	}

	for (int i = 0; i < count; i++)
	{
		FoundKey   *key = keys[i];
		Repair	   *wrong;

		reconcile->checked++;
		if (key->genuine && key->epoch > epochs[i])
		{
			if (adopt(kind == KEY_ITEM_USER ? "user" : "tenant", key))
				reconcile->ahead++;
			continue;
		}
		if (key->genuine && key->epoch == epochs[i])
		{
			check_epoch_expiry(reconcile, key, needed[i]);
			continue;
		}
		if (!key->genuine)
			reconcile->foreign++;
		wrong = repair(reconcile, key, !key->genuine);
		wrong->rewrite = epochs[i] > 0;
		wrong->item.kind = kind;
		wrong->item.tid = key->tid;
		wrong->item.uid = key->uid;
		wrong->item.user_epoch = wrong->item.tenant_epoch = epochs[i];

		/* Until a session of the user says how long: as long as any token of before can live. */
		wrong->item.expire_at = unix_ms(ledger_now()) + ANY_TOKEN_MS;
	}
}

static void
compare_sessions(Reconcile *reconcile)
{
	static WorkerQuery query = {
		"SELECT s.session_id::text, s.tenant_id, s.user_id, s.epoch, s.tenant_epoch, s.version, s.ended_at IS NULL,"
		" least(s.expires_at, s.idle_expires_at), greatest(s.epoch, u.epoch), greatest(s.tenant_epoch, t.epoch), e.i::int4"
		" FROM unnest($1, $2) WITH ORDINALITY e (tid, sid, i)"
		" JOIN sessauth.session s ON s.session_id = e.sid::uuid AND s.tenant_id = e.tid"
		" LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id"
		" LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id", 2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	Datum	   *tids = palloc(sizeof(Datum) * reconcile->count);
	Datum	   *sids = palloc(sizeof(Datum) * reconcile->count);
	KeyItem    *items = palloc0(sizeof(KeyItem) * reconcile->count);	/* of the ledger; version 0: no row */
	FoundKey  **keys = palloc(sizeof(FoundKey *) * reconcile->count);
	Datum		values[2];
	uint64		found;
	int			count = 0;

	for (int i = 0; i < reconcile->count; i++)
	{
		FoundKey   *key = &reconcile->keys[i];

		if (key->kind != KEY_ITEM_SESSION || !key->exists)
			continue;
		tids[count] = CStringGetTextDatum(key->tid);
		sids[count] = CStringGetTextDatum(key->sid);
		keys[count++] = key;
	}
	if (count == 0)
		return;
	values[0] = text_array(tids, count);
	values[1] = text_array(sids, count);
	found = worker_query(&query, values, NULL);
	for (uint64 row = 0; row < found; row++)
		feed_fill_session(row, &items[DatumGetInt32(row_datum(row, 11)) - 1]);
	for (int i = 0; i < count; i++)
		compare_session(reconcile, keys[i], items[i].version > 0 ? &items[i] : NULL);
}

static void
compare_session(Reconcile *reconcile, FoundKey *key, const KeyItem *item)
{
	Repair	   *wrong;

	reconcile->checked++;
	if (!key->genuine)
		reconcile->foreign++;
	else if (item == NULL)
	{
		/* A session that is nowhere is dead; that it has ended may stay there. */
		if (!key->live)
		{
			check_session_expiry(reconcile, key);
			return;
		}
		reconcile->stale++;
	}
	else if (!key->live && item->live)
	{
		key->uid = item->uid;
		if (adopt("session", key))
			reconcile->ahead++;
		return;
	}
	else if (key->version < item->version)
		return;					/* the ledger's rows will bring it up to date */
	else if (is_as_read(key, item))
	{
		check_session_expiry(reconcile, key);
		return;
	}
	else
		reconcile->ahead++;		/* of a session that goes on; its past is the ledger's */

	wrong = repair(reconcile, key, true);
	wrong->rewrite = item != NULL;
	if (item)
		wrong->item = *item;
}

static bool
is_as_read(const FoundKey *key, const KeyItem *item)
{
	char		mac[SA_MAC_TEXT_LEN + 1];

	return sa_session_mac(mirror_link_key, key->name, item->uid, strlen(item->uid), item->epoch, item->tepoch, item->exp,
						  item->live ? "active" : "revoked", item->version, mac) &&
		key->maclen == SA_MAC_TEXT_LEN && memcmp(mac, key->mac, SA_MAC_TEXT_LEN) == 0;
}

static void
check_expiry(Reconcile *reconcile, const FoundKey *key, int64 low, int64 high, int64 give)
{
	WrongExpiry *wrong;

	if (!key->timed || (key->expires_at >= low && key->expires_at <= high))
		return;
	wrong = &reconcile->expiries[reconcile->expiry_count++];
	wrong->name = key->name;
	wrong->mac = SA_FIELD(key->mac, key->maclen);
	wrong->low = low;
	wrong->high = high;
	wrong->give = give;
}

/*
 * A user's key lives as long as the longest of the sessions that it ever had, and the ledger may have forgotten that one. What is given here
 * is at least as long as tokens can live; the ledger's sessions, which are walked next, make it longer.
 */
static void
check_epoch_expiry(Reconcile *reconcile, const FoundKey *key, int64 needed)
{
	int64		now = unix_ms(ledger_now());

	if (key->kind == KEY_ITEM_TENANT)
		check_expiry(reconcile, key, -1, -1, -1);
	else
	{
		int64		low = needed == 0 ? 0 : needed / 1000 * 1000 + KEY_GRACE_MS;

		check_expiry(reconcile, key, low, Max(low, now + INT64CONST(1000) * SESSION_TTL_MAX + KEY_GRACE_MS), Max(low, now + ANY_TOKEN_MS));
	}
}

/* What it says itself, under its MAC. */
static void
check_session_expiry(Reconcile *reconcile, const FoundKey *key)
{
	int64		right = key->exp * 1000 + KEY_GRACE_MS;

	check_expiry(reconcile, key, right, right, right);
}

/* False also when the row is locked: then it is still there for the next time. */
static bool
adopt(const char *kind, const FoundKey *key)
{
	static WorkerQuery query = {
		"SELECT sessauth.adopt($1, $2, $3, $4::uuid, NULL, $5, NULL)", 5, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = CStringGetTextDatum(kind);
	values[1] = CStringGetTextDatum(key->tid);
	values[2] = CStringGetTextDatum(key->uid ? key->uid : "");
	values[3] = CStringGetTextDatum(key->sid);
	values[4] = Int64GetDatum(key->epoch);
	nulls[2] = key->uid == NULL;
	nulls[3] = key->sid[0] == '\0';
	nulls[4] = key->epoch == 0;
	worker_query(&query, values, nulls);
	return !row_isnull(0, 1) && DatumGetBool(row_datum(0, 1));
}

static Repair *
repair(Reconcile *reconcile, const FoundKey *key, bool by_force)
{
	Repair	   *result = &reconcile->repairs[reconcile->repair_count++];

	memset(result, 0, sizeof(*result));
	result->name = by_force ? key->name : NULL;
	result->mac = SA_FIELD(key->mac, key->maclen);
	return result;
}

static Datum
text_array(Datum *values, int count)
{
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT));
}

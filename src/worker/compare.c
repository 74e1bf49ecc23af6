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
#include "worker/worker.h"
#include "worker/worker_tx.h"

static void compare_epochs(Reconcile *reconcile, KeyItemKind kind);
static void compare_sessions(Reconcile *reconcile);
static void compare_session(Reconcile *reconcile, FoundKey *key, const KeyItem *item);
static bool is_as_read(const FoundKey *key, const KeyItem *item);
static bool adopt(const char *kind, const FoundKey *key);
static Repair *repair(Reconcile *reconcile, const FoundKey *key, bool by_force);
static Datum text_array(Datum *values, int count);

void
compare_found(Reconcile *reconcile)
{
	reconcile->repairs = palloc(sizeof(Repair) * Max(reconcile->count, 1));
	reconcile->repair_count = 0;
	compare_epochs(reconcile, KEY_ITEM_TENANT);
	compare_epochs(reconcile, KEY_ITEM_USER);
	compare_sessions(reconcile);
}

static void
compare_epochs(Reconcile *reconcile, KeyItemKind kind)
{
	static WorkerQuery users = {
		"SELECT e.i::int4, u.epoch FROM unnest($1, $2) WITH ORDINALITY e (tid, uid, i)"
		" JOIN sessauth.tenant_user u ON u.tenant_id = e.tid AND u.user_id = e.uid", 2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	static WorkerQuery tenants = {
		"SELECT e.i::int4, t.epoch FROM unnest($1, $2) WITH ORDINALITY e (tid, uid, i)"
		" JOIN sessauth.tenant t ON t.tenant_id = e.tid", 2, {TEXTARRAYOID, TEXTARRAYOID}
	};
	Datum	   *tids = palloc(sizeof(Datum) * reconcile->count);
	Datum	   *uids = palloc(sizeof(Datum) * reconcile->count);
	int64	   *epochs = palloc0(sizeof(int64) * reconcile->count);	/* of the ledger; 0: no row */
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
		epochs[DatumGetInt32(row_datum(row, 1)) - 1] = row_int8(row, 2);

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
			continue;
		if (!key->genuine)
			reconcile->foreign++;
		wrong = repair(reconcile, key, !key->genuine);
		wrong->rewrite = epochs[i] > 0;
		wrong->item.kind = kind;
		wrong->item.tid = key->tid;
		wrong->item.uid = key->uid;
		wrong->item.user_epoch = wrong->item.tenant_epoch = epochs[i];

		/* Until a session of the user says how long: as long as any token of before can live. */
		wrong->item.expire_at = unix_ms(ledger_now()) + INT64CONST(1000) * 60 * 60 * 25;
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
			return;
		reconcile->stale++;
	}
	else if (!key->live && item->live)
	{
		key->uid = item->uid;
		if (adopt("session", key))
			reconcile->ahead++;
		return;
	}
	else if (key->version < item->version || is_as_read(key, item))
		return;					/* what is older, the ledger's rows will bring up to date */
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

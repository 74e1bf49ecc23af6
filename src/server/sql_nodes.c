/*
 * sql_nodes.c
 *		The nodes that get their leases over SQL. See sql_nodes.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "server/clock.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "server/sql_nodes.h"

static SqlNode *find(const char *node);
static SqlNode *find_or_enter(const char *node);
static bool make_room(void);
static SqlNodeKey make_key(const char *node);
static SqlNode *find_call(const char *node, uint64 call);
static int64 now_ms(void);
static bool is_out(SqlNode *node, int64 now);
static bool is_forgotten(SqlNode *node, int64 now);

uint64
sql_node_asks(const char *node, const char *g, int64 n, int64 max_staleness, bool *advanced)
{
	SqlNode    *entry;
	uint64		call = 0;

	*advanced = false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find_or_enter(node);
	if (entry)
	{
		LeaseBook  *book = &entry->book;

		*advanced = g[0] != '\0' && (strcmp(book->generation, g) != 0 || book->acknowledged < n);
		if (g[0] != '\0')
			lease_book_acknowledge(book, g, n);
		entry->seen = now_ms();
		entry->seen_at = GetCurrentTimestamp();
		entry->max_staleness = max_staleness;
		entry->stray_until = Max(entry->stray_until, entry->pending_until);
		entry->pending_until = entry->seen + LEASE_WITH_MARGIN(max_staleness);
		call = ++entry->calls;
	}
	LWLockRelease(shared->lock);
	return call;
}

void
sql_node_answered(const char *node, uint64 call, const char *g, int64 n, int64 behind)
{
	SqlNode    *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find_call(node, call);
	if (entry)
	{
		lease_book_promise(&entry->book, g, n, now_ms(), entry->pending_until);
		entry->pending_until = 0;
		entry->behind = behind;
	}
	LWLockRelease(shared->lock);
}

void
sql_node_refused(const char *node, uint64 call)
{
	SqlNode    *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find_call(node, call);
	if (entry)
		entry->pending_until = 0;
	LWLockRelease(shared->lock);
}

bool
sql_node_gone(const char *node)
{
	SqlNodeKey	key = make_key(node);
	bool		found;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	hash_search(shared_sql_nodes, &key, HASH_REMOVE, &found);
	LWLockRelease(shared->lock);
	return found;
}

int64
sql_nodes_held_back_from(const char *g, int64 latest)
{
	int64		now = now_ms();
	int64		n = HOLDS_NOTHING;
	HASH_SEQ_STATUS seq;
	SqlNode    *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, shared_sql_nodes);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->key.database != MyDatabaseId)
			continue;
		if (is_forgotten(entry, now))
			hash_search(shared_sql_nodes, &entry->key, HASH_REMOVE, NULL);
		else if (Max(entry->pending_until, entry->stray_until) > now)
			n = Min(n, strcmp(entry->book.generation, g) == 0 && entry->book.acknowledged <= latest ? entry->book.acknowledged : 0);
		else
			n = Min(n, lease_book_held_back_from(&entry->book, g, latest, now));
	}
	LWLockRelease(shared->lock);
	return n;
}

void
sql_node_is_ahead(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == MyDatabaseId)
			shared->slots[i].node_ahead = true;
	LWLockRelease(shared->lock);
}

bool
sql_nodes_were_ahead(void)
{
	bool		result = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == MyDatabaseId)
		{
			result = result || shared->slots[i].node_ahead;
			shared->slots[i].node_ahead = false;
		}
	LWLockRelease(shared->lock);
	return result;
}

bool
sql_nodes_exist(void)
{
	HASH_SEQ_STATUS seq;
	SqlNode    *entry = NULL;

	LWLockAcquire(shared->lock, LW_SHARED);
	if (hash_get_num_entries(shared_sql_nodes) > 0)
	{
		hash_seq_init(&seq, shared_sql_nodes);
		while ((entry = hash_seq_search(&seq)) != NULL && entry->key.database != MyDatabaseId)
			;
		if (entry != NULL)
			hash_seq_term(&seq);
	}
	LWLockRelease(shared->lock);
	return entry != NULL;
}

int
sql_nodes_copy(SqlNode **out)
{
	int			count = 0;
	HASH_SEQ_STATUS seq;
	SqlNode    *entry;

	LWLockAcquire(shared->lock, LW_SHARED);
	*out = palloc(sizeof(SqlNode) * (hash_get_num_entries(shared_sql_nodes) + 1));
	hash_seq_init(&seq, shared_sql_nodes);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (entry->key.database == MyDatabaseId)
			(*out)[count++] = *entry;
	LWLockRelease(shared->lock);
	return count;
}

/* With the lock held, as all below. */
static SqlNode *
find(const char *node)
{
	SqlNodeKey	key = make_key(node);

	return hash_search(shared_sql_nodes, &key, HASH_FIND, NULL);
}

/* NULL when there is no room. */
static SqlNode *
find_or_enter(const char *node)
{
	SqlNodeKey	key = make_key(node);
	SqlNode    *entry = find(node);

	if (entry || (hash_get_num_entries(shared_sql_nodes) >= setting_max_nodes && !make_room()))
		return entry;
	entry = hash_search(shared_sql_nodes, &key, HASH_ENTER_NULL, NULL);
	if (entry)
		memset((char *) entry + sizeof(SqlNodeKey), 0, sizeof(SqlNode) - sizeof(SqlNodeKey));
	return entry;
}

/* Somebody may have been silent for long in a database that has no worker to forget him. */
static bool
make_room(void)
{
	HASH_SEQ_STATUS seq;
	SqlNode    *entry;
	int64		now = now_ms();
	bool		made = false;

	hash_seq_init(&seq, shared_sql_nodes);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (is_forgotten(entry, now))
		{
			hash_search(shared_sql_nodes, &entry->key, HASH_REMOVE, NULL);
			made = true;
		}
	return made;
}

static SqlNodeKey
make_key(const char *node)
{
	SqlNodeKey	key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	strlcpy(key.node, node, sizeof(key.node));
	return key;
}

/* A call that another of the same node has overtaken changes nothing any more. */
static SqlNode *
find_call(const char *node, uint64 call)
{
	SqlNode    *entry = find(node);

	return entry && entry->calls == call ? entry : NULL;
}

static bool
is_out(SqlNode *node, int64 now)
{
	return Max(node->pending_until, node->stray_until) > now || lease_book_is_out(&node->book, now);
}

static bool
is_forgotten(SqlNode *node, int64 now)
{
	return now - node->seen > FORGET_LEASES * (int64) setting_max_lease && !is_out(node, now);
}

static int64
now_ms(void)
{
	return clock_boot() / 1000;
}

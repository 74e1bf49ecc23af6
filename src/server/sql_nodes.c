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

static SqlNode *find(const char *node, bool create);
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
	entry = find(node, true);
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
	SqlNode    *entry;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	entry = find(node, false);
	if (entry)
		memset(entry, 0, sizeof(SqlNode));
	LWLockRelease(shared->lock);
	return entry != NULL;
}

int64
sql_nodes_held_back_from(const char *g)
{
	int64		now = now_ms();
	int64		n = HOLDS_NOTHING;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SQL_NODES_MAX; i++)
	{
		SqlNode    *entry = &shared->sql_nodes[i];

		if (entry->database != MyDatabaseId)
			continue;
		if (is_forgotten(entry, now))
			memset(entry, 0, sizeof(SqlNode));
		else if (Max(entry->pending_until, entry->stray_until) > now)
			n = Min(n, strcmp(entry->book.generation, g) == 0 ? entry->book.acknowledged : 0);
		else
			n = Min(n, lease_book_held_back_from(&entry->book, g, now));
	}
	LWLockRelease(shared->lock);
	return n;
}

bool
sql_nodes_exist(void)
{
	bool		exist = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < SQL_NODES_MAX && !exist; i++)
		exist = shared->sql_nodes[i].database == MyDatabaseId;
	LWLockRelease(shared->lock);
	return exist;
}

int
sql_nodes_copy(SqlNode **out)
{
	int			count = 0;

	*out = palloc(sizeof(shared->sql_nodes));
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < SQL_NODES_MAX; i++)
		if (shared->sql_nodes[i].database == MyDatabaseId)
			(*out)[count++] = shared->sql_nodes[i];
	LWLockRelease(shared->lock);
	return count;
}

/* With the lock held, as all below. A place is taken from who may be forgotten, should there be no other. */
static SqlNode *
find(const char *node, bool create)
{
	SqlNode    *place = NULL;

	for (int i = 0; i < SQL_NODES_MAX; i++)
	{
		SqlNode    *entry = &shared->sql_nodes[i];

		if (entry->database == MyDatabaseId && strcmp(entry->node, node) == 0)
			return entry;
		if (place == NULL && (!OidIsValid(entry->database) || (create && is_forgotten(entry, now_ms()))))
			place = entry;
	}
	if (place && create)
	{
		memset(place, 0, sizeof(SqlNode));
		place->database = MyDatabaseId;
		strlcpy(place->node, node, sizeof(place->node));
		return place;
	}
	return NULL;
}

/* A call that another of the same node has overtaken changes nothing any more. */
static SqlNode *
find_call(const char *node, uint64 call)
{
	SqlNode    *entry = find(node, false);

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

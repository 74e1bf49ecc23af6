/*
 * apply.c
 *		What the transports bring, put into what the node knows. See apply.h.
 *
 * Two locks. apply_lock makes the transports take turns, so that everybody hears the news in the order in which the node came to know
 * them; nobody who decides ever waits for it. Under it, known_lock is held for the change alone, and not while the news are told:
 * whoever watches a token after that finds the revocation in the memory.
 */
#include "node/apply.h"

#include <stdlib.h>
#include <string.h>

static void note_newest(SessauthNode *node, const SaEntry *entry);
static void make_room(SessauthNode *node, int count);
static void exchange(SessauthNode *node, MemoryTable *table);
static int64_t forgets_before_now(SessauthNode *node);
static void begin(SessauthNode *node);
static void end(SessauthNode *node, int64_t horizon, const SaEntry *entries, const bool *news, int count);
static bool is_news(const SessauthNode *node, const SaEntry *entry, int64_t forgets_before);

bool
apply_entries(SessauthNode *node, const SaEntry *entries, int count, int64_t received, bool *fit)
{
	bool		news[APPLY_MAX];
	bool		extended;
	int64_t		horizon;

	make_room(node, count);
	begin(node);
	horizon = node->lease.horizon;
	for (int i = 0; i < count; i++)
	{
		const SaEntry *entry = &entries[i];
		int64_t		forgets_before = node_forgets_before(node, received);

		news[i] = is_news(node, entry, forgets_before);
		if (entry->kind == SA_KIND_BEAT)
			ledger_clock_seen(&node->ledger_clock, entry->at, received);

		/* A numbered one that does not fit leaves a hole, and the lease then runs out. One without a number leaves none. */
		else if (!memory_apply(&node->memory, entry, forgets_before))
			*fit = *fit && entry->g[0] != '\0';
		else if (entry->g[0] != '\0')
		{
			lease_applied(&node->lease, entry->g, entry->n);
			note_newest(node, entry);
		}
	}
	extended = lease_extend(&node->lease);
	end(node, horizon, entries, news, count);
	return extended;
}

static void
note_newest(SessauthNode *node, const SaEntry *entry)
{
	if (entry->n <= node->newest.n && strcmp(node->newest.g, entry->g) == 0)
		return;
	memcpy(node->newest.g, entry->g, sizeof(node->newest.g));
	node->newest.n = entry->n;
	node->newest.at = entry->at;
}

bool
apply_answer(SessauthNode *node, const SaAnswer *answer, int64_t received)
{
	bool		extended = false;
	int64_t		horizon;

	begin(node);
	horizon = node->lease.horizon;
	if (lease_answer(&node->lease, answer, received))
	{
		ledger_clock_answered(&node->ledger_clock, answer->at, node->lease.t0, received);
		extended = lease_extend(&node->lease);
	}
	end(node, horizon, NULL, NULL, 0);
	return extended;
}

bool
apply_grant(SessauthNode *node, const LeaseGrant *grant, int64_t t0, int64_t received)
{
	bool		extended;
	int64_t		horizon;

	begin(node);
	horizon = node->lease.horizon;
	ledger_clock_answered(&node->ledger_clock, grant->at, t0, received);
	extended = lease_granted(&node->lease, grant, t0, received);
	end(node, horizon, NULL, NULL, 0);
	return extended;
}

/* Walking through a large memory takes long, so nobody who decides waits for it. */
void
apply_prune(SessauthNode *node)
{
	MemoryTable table;

	pthread_mutex_lock(&node->apply_lock);
	if (memory_build_pruned(&node->memory, forgets_before_now(node), false, &table))
		exchange(node, &table);
	pthread_mutex_unlock(&node->apply_lock);
}

void
apply_keys(SessauthNode *node, const SaKeySet *before, const SaKeySet *now)
{
	pthread_mutex_lock(&node->apply_lock);
	news_keys(node, before, now);
	pthread_mutex_unlock(&node->apply_lock);
}

void
apply_drop_lease(SessauthNode *node)
{
	begin(node);
	lease_drop(&node->lease);
	end(node, node->lease.horizon, NULL, NULL, 0);
}

/* The same for growing, and at the bound for forgetting. What does not fit nevertheless, memory_apply finds room for, or says so. */
static void
make_room(SessauthNode *node, int count)
{
	MemoryTable table;
	int64_t		forgets_before = forgets_before_now(node);

	pthread_mutex_lock(&node->apply_lock);
	if (node->memory.count + (size_t) count > node->memory.max && forgets_before >= node->memory.next_expiry &&
		memory_build_pruned(&node->memory, forgets_before, true, &table))
		exchange(node, &table);
	if (memory_build_grown(&node->memory, (size_t) count, forgets_before, &table))
		exchange(node, &table);
	pthread_mutex_unlock(&node->apply_lock);
}

/* With apply_lock, so that nobody changes the memory between building the table and this. */
static void
exchange(SessauthNode *node, MemoryTable *table)
{
	many_readers_write(&node->known_lock);
	memory_exchange(&node->memory, table);
	many_readers_end_write(&node->known_lock);
	free(table->entries);
}

static int64_t
forgets_before_now(SessauthNode *node)
{
	int64_t		result;

	many_readers_read(&node->known_lock);
	result = node_forgets_before(node, clock_now());
	many_readers_end_read(&node->known_lock);
	return result;
}

static void
begin(SessauthNode *node)
{
	pthread_mutex_lock(&node->apply_lock);
	many_readers_write(&node->known_lock);
}

/* Tells what is new; horizon is the lease's of before. */
static void
end(SessauthNode *node, int64_t horizon, const SaEntry *entries, const bool *news, int count)
{
	int64_t		moved = node->lease.horizon;
	int64_t		keys_from = node->lease.keys_from;
	bool		told = false;

	many_readers_end_write(&node->known_lock);
	for (int i = 0; i < count; i++)
	{
		if (news[i])
			news_revoked(node, &entries[i]);
		told = told || news[i];
	}
	if (moved != horizon)
	{
		if (keys_from > atomic_load(&node->keys_begun))
			keys_request(node);
		news_missed(node, horizon, moved);
	}
	if (told)
		watches_tell(&node->watches);
	pthread_mutex_unlock(&node->apply_lock);
}

/* What was told without a number is told again with it: whoever resumes by number must not miss it. */
static bool
is_news(const SessauthNode *node, const SaEntry *entry, int64_t forgets_before)
{
	MemoryName	name;
	int64_t		epoch;

	if (entry->kind == SA_KIND_BEAT)
		return false;
	if (entry->g[0] != '\0')
		return !coverage_has(&node->lease.cover, entry->g, entry->n, entry->n);
	memory_entry_name(&node->memory, entry, &name, &epoch);
	return entry->until > forgets_before && memory_epoch(&node->memory, &name) < epoch;
}

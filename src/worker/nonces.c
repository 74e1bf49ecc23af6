/*
 * nonces.c
 *		The nodes that follow a mirror, as their nonces tell.
 *
 * A node is one life of one process: its id has a random part, so a process
 * that starts again is another node, and the old one falls silent.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "server/clock.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "worker/worker.h"

static KnownNode *learn(Mirror *mirror, const redisReply *name, Instant now);
static void add_pending(Mirror *mirror, const char *node, const SaNonce *nonce);
static void forget_silent(Mirror *mirror, Instant now);
static void note_claim(const Mirror *mirror, const SaNonce *nonce);

/* The highest number that a node has claimed to know of the generation that its mirror is in. */
static char claimed_g[SA_UUID_SIZE];
static int64 claimed_n = 0;

void
nonces_ask(Mirror *mirror)
{
	char		key[SA_REDIS_KEY_SIZE];

	sa_name_nodes(mirror->where.prefix, key);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(key)});
}

/* Only a nonce that was not answered yet is answered; one that is not authentic never is. */
void
nonces_take(Mirror *mirror, const redisReply *reply, Instant now)
{
	HASH_SEQ_STATUS seq;
	KnownNode  *node;
	char		key[SA_REDIS_KEY_SIZE];

	sa_name_nodes(mirror->where.prefix, key);
	mirror->pending_count = 0;
	mirror->nonces_read = true;
	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		node->present = false;

	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2)
	{
		redisReply *name = reply->element[i];
		redisReply *value = reply->element[i + 1];
		SaNonce		nonce;

		if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING || name->len >= SA_NODE_ID_SIZE ||
			!sa_nonce_read(mirror_link_key, key, name->str, name->len, value->str, value->len, &nonce))
			continue;
		node = learn(mirror, name, now);
		if (node == NULL)
			continue;
		if (strcmp(node->asked, nonce.nonce) != 0)
		{
			strlcpy(node->asked, nonce.nonce, sizeof(node->asked));
			node->seen_at = now;
			lease_book_acknowledge(&node->book, nonce.g, nonce.n);
			note_claim(mirror, &nonce);
			status_node(mirror, node, &nonce, nonce.max_staleness > setting_max_lease);
		}
		if (strcmp(node->answered, nonce.nonce) != 0 && nonce.max_staleness <= setting_max_lease)
			add_pending(mirror, node->node, &nonce);
	}
	forget_silent(mirror, now);
}

/* NULL when there are too many: a stranger who knows the link key must not fill our memory. */
static KnownNode *
learn(Mirror *mirror, const redisReply *name, Instant now)
{
	char		id[SA_NODE_ID_SIZE] = {0};
	KnownNode  *node;

	memcpy(id, name->str, name->len);
	node = hash_search(mirror->nodes, id, HASH_FIND, NULL);
	if (node == NULL && hash_get_num_entries(mirror->nodes) >= setting_max_nodes)
	{
		if (!mirror->crowded)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("sessauth: mirror \"%s\" has more than %d nodes; the others get no answers", mirror->name, setting_max_nodes),
					 errhint("Raise sessauth.max_nodes and restart the server. Nodes that are silent for %d times sessauth.max_lease are forgotten.", FORGET_LEASES)));
		mirror->crowded = true;
		return NULL;
	}
	if (node == NULL)
	{
		node = hash_search(mirror->nodes, id, HASH_ENTER, NULL);
		memset((char *) node + SA_NODE_ID_SIZE, 0, sizeof(KnownNode) - SA_NODE_ID_SIZE);
		node->seen_at = now;
	}
	node->present = true;
	return node;
}

static void
add_pending(Mirror *mirror, const char *node, const SaNonce *nonce)
{
	if (mirror->pending_count == mirror->pending_size)
	{
		int			size = Max(64, mirror->pending_size * 2);

		mirror->pending = mirror->pending ? repalloc(mirror->pending, sizeof(PendingNonce) * size) :
			MemoryContextAlloc(TopMemoryContext, sizeof(PendingNonce) * size);
		mirror->pending_size = size;
	}
	strlcpy(mirror->pending[mirror->pending_count].node, node, SA_NODE_ID_SIZE);
	mirror->pending[mirror->pending_count++].nonce = *nonce;
}

/* A node that deleted its entry, or whose entry somebody deleted, is gone when its lease is over; the entry of one that fell silent is removed by the next beat. */
static void
forget_silent(Mirror *mirror, Instant now)
{
	HASH_SEQ_STATUS seq;
	KnownNode  *node;

	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
	{
		node->leaving = instant_is_past(node->seen_at, now, FORGET_LEASES * setting_max_lease);
		if (node->present || lease_book_is_out(&node->book, clock_boot() / 1000))
			continue;
		status_node_forget(mirror, node->node);
		hash_search(mirror->nodes, node->node, HASH_REMOVE, NULL);
	}
}

static void
note_claim(const Mirror *mirror, const SaNonce *nonce)
{
	if (strcmp(nonce->g, mirror->generation) != 0)
		return;
	if (strcmp(claimed_g, nonce->g) != 0)
		claimed_n = 0;
	strlcpy(claimed_g, nonce->g, sizeof(claimed_g));
	claimed_n = Max(claimed_n, nonce->n);
}

bool
nonces_are_ahead(const LedgerState *state)
{
	return strcmp(claimed_g, state->generation) == 0 && claimed_n > state->n;
}

void
nonces_put_off(Mirror *mirror)
{
	mirror->pending_count = 0;
}

/* The beat has arrived. */
void
nonces_answered(Mirror *mirror)
{
	for (int i = 0; i < mirror->pending_count; i++)
	{
		KnownNode  *node = hash_search(mirror->nodes, mirror->pending[i].node, HASH_FIND, NULL);

		if (node)
			strlcpy(node->answered, mirror->pending[i].nonce.nonce, sizeof(node->answered));
	}
	mirror->pending_count = 0;
	mirror->nonces_read = false;
}

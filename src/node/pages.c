/*
 * pages.c
 *		A node that lacks many revocations reads them by the page.
 *
 * A page repeats what the stream has, for a fraction of the work, and says behind which entry of the stream reading goes on. Nobody vouches
 * for that: if it is wrong, a hole shows it, and the stream is read from its start, without pages. Of a page that is missing or not
 * authentic the stream has everything, too.
 */
#include <stdlib.h>
#include <string.h>

#include "node/apply.h"
#include "node/follower.h"

#define WORTH_PAGES		(2 * SA_PAGE_ENTRIES)	/* numbers that are lacking */
#define UNDER_WAY_MAX	4

static bool lacks_page(const Follower *follower, int64_t *first, int64_t *last, char g[SA_UUID_SIZE]);
static void ask(Follower *follower);
static void page_replied(void *arg, const redisReply *reply);
static bool take_page(Follower *follower, const redisReply *reply, int64_t first, uint64_t id[2]);
static const redisReply *text_of(const redisReply *reply, size_t i);

void
pages_connected(Follower *follower)
{
	follower->pages_asked = 0;
	follower->pages_tried = 0;
}

bool
pages_read(Follower *follower)
{
	int64_t		first;
	int64_t		last;
	char		g[SA_UUID_SIZE];

	if (follower->pages_asked > 0)
		return true;

	/* Having been led astray once, by whatever, it reads all of the stream. */
	if (follower->rescan_wait != 0 || !lacks_page(follower, &first, &last, g))
		return false;
	if (strcmp(follower->pages_g, g) != 0)
	{
		memcpy(follower->pages_g, g, sizeof(follower->pages_g));
		follower->pages_tried = 0;
	}
	if (first <= follower->pages_tried)
		return false;
	follower->pages_next = follower->pages_taken = first;
	follower->pages_last = last;
	follower->pages_broken = false;
	ask(follower);
	return follower->pages_asked > 0;
}

/* The first numbers of the first and the last page that would help. */
static bool
lacks_page(const Follower *follower, int64_t *first, int64_t *last, char g[SA_UUID_SIZE])
{
	int64_t		lo;
	int64_t		hi;
	bool		waits;

	many_readers_read(&follower->node->known_lock);
	waits = lease_waits(&follower->node->lease, &lo, &hi);
	memcpy(g, follower->node->lease.answer.g, SA_UUID_SIZE);
	many_readers_end_read(&follower->node->known_lock);
	if (!waits || hi - lo < WORTH_PAGES)
		return false;
	*first = SA_PAGE_FIRST(lo);
	*last = SA_PAGE_FIRST(hi + 1) - SA_PAGE_ENTRIES;
	return true;
}

static void
ask(Follower *follower)
{
	while (follower->pages_asked < UNDER_WAY_MAX && !follower->pages_broken && follower->pages_next <= follower->pages_last)
	{
		char		key[SA_REDIS_KEY_SIZE];

		if (sa_name_page(follower->node->redis.prefix, follower->pages_g, follower->pages_next, key) == 0 ||
			!redis_link_command(follower->reader, page_replied, REPLY_TIMEOUT_MS, 5,
								(SaField[]) {SA_FIELD("HMGET", 5), SA_FIELD_STR(key), SA_FIELD("id", 2), SA_FIELD("m", 1), SA_FIELD("b", 1)}))
			return;
		follower->pages_next += SA_PAGE_ENTRIES;
		follower->pages_asked++;
	}
}

static void
page_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	int64_t		first = follower->pages_taken;
	uint64_t	id[2];

	follower->pages_taken += SA_PAGE_ENTRIES;
	follower->pages_tried = first;
	follower->pages_asked--;
	if (reply->type == REDIS_REPLY_ERROR)
		follower->pages_tried = INT64_MAX;	/* it may read the stream, but not this */
	ask(follower);				/* Redis looks for it while this one is read */

	/* Behind a gap the rest is known as well, but reading goes on before it. */
	if (!take_page(follower, reply, first, id))
		follower->pages_broken = true;
	else if (!follower->pages_broken)
		stream_skip(follower, id);
	if (follower->pages_asked == 0)
		stream_read(follower, clock_now());
}

/* Applies it, and tells the id of the stream's entry that it ends with. */
static bool
take_page(Follower *follower, const redisReply *reply, int64_t first, uint64_t id[2])
{
	SessauthNode *node = follower->node;
	const redisReply *place = text_of(reply, 0);
	const redisReply *mac = text_of(reply, 1);
	const redisReply *body = text_of(reply, 2);
	const char *at = body ? body->str : NULL;
	const char *end = body ? body->str + body->len : NULL;
	char		key[SA_REDIS_KEY_SIZE];
	int64_t		now = clock_now();
	bool		fit = true;
	int			count = 0;

	if (!place || !mac || !body || !stream_parse_id(place, id) ||
		sa_name_page(node->redis.prefix, follower->pages_g, first, key) == 0)
		return false;
	if (!sa_page_authentic(follower->mac_key, key, body->str, (size_t) body->len, mac->str, (size_t) mac->len))
	{
		many_readers_write(&node->known_lock);
		node->refused_entries++;
		many_readers_end_write(&node->known_lock);
		return false;
	}
	for (int64_t n = first; n < first + SA_PAGE_ENTRIES; n++)
	{
		SaEntry    *entry = &follower->batch[count];

		if (!sa_page_take(&at, end, entry))
			return false;
		memcpy(entry->g, follower->pages_g, sizeof(entry->g));
		entry->n = n;
		if (++count < APPLY_MAX && n < first + SA_PAGE_ENTRIES - 1)
			continue;
		(void) apply_entries(node, follower->batch, count, now, &fit);
		count = 0;
	}
	return at == end && fit;
}

static const redisReply *
text_of(const redisReply *reply, size_t i)
{
	return reply->type == REDIS_REPLY_ARRAY && i < reply->elements && reply->element[i]->type == REDIS_REPLY_STRING ? reply->element[i] : NULL;
}

/*
 * stream.c
 *		Reads the stream of revocations into the node's memory.
 *
 * One connection reads on from the last id, blocking in Redis until there is news. When an answer asks for a number
 * that reading on did not bring, the stream was changed behind our back (flushed, trimmed, restored, an entry
 * lost), and reading starts again at its beginning. Entries that are not authentic are counted and passed over:
 * one that stood for a number leaves a hole, which no answer's range may have, and one that somebody
 * merely added changes nothing.
 *
 * Nothing that Redis replies may do more than keep the node from knowing. So ids must grow for reading to go on at
 * once; every other reply, error or nonsense is followed by a pause.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/apply.h"
#include "node/follower.h"

#define READ_COUNT			500
#define READ_BLOCK_MS		500
#define FIELDS_MAX			64
#define ERROR_PAUSE_US		250000
#define RESCAN_FIRST_US		100000
#define RESCAN_MAX_US		2000000

static void stream_replied(void *arg, const redisReply *reply);
static bool waits_for_numbers(const Follower *follower, int64_t *since);
static bool rescan(Follower *follower, int64_t now);
static const redisReply *entries_of(const redisReply *reply);
static bool read_ids(Follower *follower, const redisReply *entries);
static bool take_entries(Follower *follower, const redisReply *entries);
static const redisReply *fields_of(const redisReply *item);
static void apply_batch(Follower *follower, int count, int64_t refused, int64_t now);
static bool read_entry(const Follower *follower, const redisReply *item, SaEntry *out);
static bool read_on_from(Follower *follower, const uint64_t id[2]);

bool
stream_init(Follower *follower)
{
	follower->batch = calloc(APPLY_MAX, sizeof(SaEntry));
	return follower->batch != NULL;
}

void
stream_free(Follower *follower)
{
	free(follower->batch);
}

void
stream_connected(Follower *follower)
{
	follower->reading = false;
	follower->read_not_before = 0;
	pages_connected(follower);
	stream_read(follower, clock_now());
}

/*
 * While an answer waits for numbers, reading does not block: an empty reply to a
 * read that began after the answer proves that they are not behind last_id.
 */
void
stream_read(Follower *follower, int64_t now)
{
	char		count[16];
	char		block[16];
	char		id[48];
	int64_t		since;
	SaField		argv[8];
	int			argc = 0;

	if (follower->reading || follower->stopping || now < follower->read_not_before || !redis_link_is_up(follower->reader) || pages_read(follower))
		return;
	follower->read_waits = !waits_for_numbers(follower, &since);
	follower->read_begun = now;
	snprintf(count, sizeof(count), "%d", READ_COUNT);
	snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, follower->last_id[0], follower->last_id[1]);

	argv[argc++] = SA_FIELD("XREAD", 5);
	argv[argc++] = SA_FIELD("COUNT", 5);
	argv[argc++] = SA_FIELD_STR(count);
	if (follower->read_waits)
	{
		snprintf(block, sizeof(block), "%d", READ_BLOCK_MS);
		argv[argc++] = SA_FIELD("BLOCK", 5);
		argv[argc++] = SA_FIELD_STR(block);
	}
	argv[argc++] = SA_FIELD("STREAMS", 7);
	argv[argc++] = SA_FIELD_STR(follower->stream_key);
	argv[argc++] = SA_FIELD_STR(id);
	follower->reading = redis_link_command(follower->reader, stream_replied, READ_BLOCK_MS + REPLY_TIMEOUT_MS, argc, argv);
}

static void
stream_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	const redisReply *entries = entries_of(reply);
	int64_t		now = clock_now();
	bool		advanced = false;
	bool		beat = false;
	int64_t		since;

	follower->reading = false;
	if (reply->type == REDIS_REPLY_NIL)
	{
		follower_state(follower, REDIS_READ, "%s", "");

		/* Having waited in vain is the normal case; an empty reply at once must not make a busy loop. */
		if (follower->read_waits)
			advanced = now - follower->read_begun > READ_BLOCK_MS * 500;
		else if (!waits_for_numbers(follower, &since) || since > follower->read_begun)
			advanced = true;
		else
			advanced = rescan(follower, now);
	}
	else if (entries)
	{
		follower_state(follower, REDIS_READ, "%s", "");
		advanced = read_ids(follower, entries);

		/* There is more: Redis puts it together while these are verified. */
		if (advanced && entries->elements == READ_COUNT)
			stream_read(follower, now);
		beat = take_entries(follower, entries);
	}
	else
	{
		/* Perhaps it does not like the id, so forget it. */
		memset(follower->last_id, 0, sizeof(follower->last_id));
		follower->read_not_before = now + ERROR_PAUSE_US;
		follower_state(follower, REDIS_READ, "the server does not show the stream: %.100s",
					   reply->type == REDIS_REPLY_ERROR ? reply->str : "its reply makes no sense");
	}
	if (advanced)
		stream_read(follower, now);	/* else the next tick does */
	if (beat)
	{
		follower->beat = true;
		follower_ask(follower);
	}
}

/* Since: when the answer came that waits. */
static bool
waits_for_numbers(const Follower *follower, int64_t *since)
{
	int64_t		lo;
	int64_t		hi;
	bool		waits;

	many_readers_read(&follower->node->known_lock);
	waits = lease_waits(&follower->node->lease, &lo, &hi);
	*since = follower->node->lease.answered;
	many_readers_end_read(&follower->node->known_lock);
	return waits;
}

/* False when the last time was too short a while ago, or when what is missing would not fit. */
static bool
rescan(Follower *follower, int64_t now)
{
	SessauthNode *node = follower->node;
	bool		full;

	many_readers_read(&node->known_lock);
	full = node->memory.count >= node->memory.max && node_forgets_before(node, now) < node->memory.next_expiry;
	many_readers_end_read(&node->known_lock);
	if (full || now < follower->rescan_not_before)
		return false;
	memset(follower->last_id, 0, sizeof(follower->last_id));
	follower->rescan_wait = follower->rescan_wait == 0 ? RESCAN_FIRST_US :
		follower->rescan_wait * 2 > RESCAN_MAX_US ? RESCAN_MAX_US : follower->rescan_wait * 2;
	follower->rescan_not_before = now + follower->rescan_wait;
	many_readers_write(&node->known_lock);
	node->rescans++;
	many_readers_end_write(&node->known_lock);
	return true;
}

/* The entries in XREAD's reply for one stream, or NULL when it is something else. */
static const redisReply *
entries_of(const redisReply *reply)
{
	const redisReply *stream;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 1)
		return NULL;
	stream = reply->element[0];
	if (stream->type != REDIS_REPLY_ARRAY || stream->elements != 2 || stream->element[1]->type != REDIS_REPLY_ARRAY)
		return NULL;
	return stream->element[1];
}

/* Reading goes on behind the highest id. True when that is higher than before. */
static bool
read_ids(Follower *follower, const redisReply *entries)
{
	bool		advanced = false;

	for (size_t i = 0; i < entries->elements; i++)
	{
		uint64_t	id[2];

		if (fields_of(entries->element[i]) == NULL || !stream_parse_id(entries->element[i]->element[0], id))
			continue;
		advanced = read_on_from(follower, id) || advanced;
	}
	return advanced;
}

static bool
read_on_from(Follower *follower, const uint64_t id[2])
{
	if (id[0] < follower->last_id[0] || (id[0] == follower->last_id[0] && id[1] <= follower->last_id[1]))
		return false;
	memcpy(follower->last_id, id, sizeof(follower->last_id));
	return true;
}

void
stream_skip(Follower *follower, const uint64_t id[2])
{
	(void) read_on_from(follower, id);
}

/* True when there was a beat among them. */
static bool
take_entries(Follower *follower, const redisReply *entries)
{
	int64_t		now = clock_now();
	int64_t		refused = 0;
	int			count = 0;
	bool		beat = false;

	for (size_t i = 0; i < entries->elements; i++)
	{
		const redisReply *fields = fields_of(entries->element[i]);
		SaEntry    *entry = &follower->batch[count];

		if (fields == NULL || !read_entry(follower, fields, entry))
		{
			refused++;
			continue;
		}
		beat = beat || entry->kind == SA_KIND_BEAT;
		if (++count == APPLY_MAX)
		{
			apply_batch(follower, count, refused, now);
			count = 0;
			refused = 0;
		}
	}
	apply_batch(follower, count, refused, now);
	return beat;
}

/* An item of the stream is its id and its fields; NULL when this is something else. */
static const redisReply *
fields_of(const redisReply *item)
{
	return item->type == REDIS_REPLY_ARRAY && item->elements == 2 ? item->element[1] : NULL;
}

static void
apply_batch(Follower *follower, int count, int64_t refused, int64_t now)
{
	SessauthNode *node = follower->node;
	bool		fit = true;

	if (refused > 0)
	{
		many_readers_write(&node->known_lock);
		node->refused_entries += refused;
		many_readers_end_write(&node->known_lock);
	}
	if (apply_entries(node, follower->batch, count, now, &fit))
		follower->rescan_wait = 0;
}

static bool
read_entry(const Follower *follower, const redisReply *item, SaEntry *out)
{
	SaField		args[FIELDS_MAX];

	if (item->type != REDIS_REPLY_ARRAY || item->elements > FIELDS_MAX)
		return false;
	for (size_t i = 0; i < item->elements; i++)
	{
		if (item->element[i]->type != REDIS_REPLY_STRING)
			return false;
		args[i] = SA_FIELD(item->element[i]->str, (size_t) item->element[i]->len);
	}
	return sa_entry_read_with(follower->mac_key, follower->stream_key, args, item->elements, out);
}

/* milliseconds-sequence, two numbers below 2^64. */
bool
stream_parse_id(const redisReply *id, uint64_t out[2])
{
	int			part = 0;
	int			digits = 0;

	if (id->type != REDIS_REPLY_STRING)
		return false;
	out[0] = out[1] = 0;
	for (size_t i = 0; i < (size_t) id->len; i++)
	{
		char		c = id->str[i];

		if (c == '-' && part == 0 && digits > 0)
		{
			part = 1;
			digits = 0;
			continue;
		}
		if (c < '0' || c > '9' || out[part] > (UINT64_MAX - (uint64_t) (c - '0')) / 10)
			return false;
		out[part] = out[part] * 10 + (uint64_t) (c - '0');
		digits++;
	}
	return part == 1 && digits > 0;
}

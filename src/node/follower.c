/*
 * follower.c
 *		Keeps the node's memory equal to the ledger's revocations, over Redis.
 *
 * Two connections: one reads the stream, blocking in Redis until there is
 * news; the other writes nonces and reads answers. Reading starts at the beginning of the stream and goes on at its
 * tail; when an answer asks for a number that is not there, the stream was changed behind our back, and reading
 * starts again. Nothing here decides whether the node may serve: lease.c does, from what was applied and answered.
 */
#include "node/node.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/redis_link.h"

#define READ_COUNT			"1000"
#define READ_BLOCK_MS		500
#define REPLY_TIMEOUT_MS	2000
#define TICK_MS				50
#define REWRITE_US			1000000 /* a nonce that Redis may have lost is written again */
#define PRUNE_US			5000000
#define RESCAN_FIRST_US		100000
#define RESCAN_MAX_US		2000000
#define BACKOFF_FIRST_MS	50
#define BACKOFF_MAX_MS		2000
#define GOODBYE_MS			500
#define FIELDS_MAX			64

struct Follower
{
	SessauthNode *node;
	pthread_t	thread;
	struct event_base *base;
	RedisLink  *reader;
	RedisLink  *control;
	struct event *tick;
	struct event *wake;
	struct event *goodbye;
	int			pipe[2];
	bool		stopping;
	bool		has_key;
	unsigned char key[SA_KEY_LEN];	/* the link key */

	char		stream_key[SA_REDIS_KEY_SIZE];
	char		nodes_key[SA_REDIS_KEY_SIZE];
	char		answers_key[SA_REDIS_KEY_SIZE];

	/* reading */
	char		last_id[48];
	bool		reading;		/* an XREAD is under way */
	bool		read_nowait;	/* and it does not block */
	int64_t		read_at;		/* when it was sent */
	int64_t		rescan_at;		/* not before */
	int64_t		rescan_wait;

	/* asking */
	bool		getting;		/* an HGET is under way */
	int64_t		written_at;
	int64_t		pruned_at;

	/* connecting; index 0: reader, 1: control */
	int64_t		retry_at[2];
	int			backoff[2];
};

static void *run(void *arg);
static void on_wake(evutil_socket_t fd, short what, void *arg);
static void on_tick(evutil_socket_t fd, short what, void *arg);
static void on_goodbye(evutil_socket_t fd, short what, void *arg);
static void on_up(void *arg, RedisLink *link);
static void on_down(void *arg, RedisLink *link, const char *why);
static void read_on(Follower *follower);
static void stream_replied(void *arg, const redisReply *reply);
static bool apply_entries(Follower *follower, const redisReply *entries, bool *beat);
static bool take_id(Follower *follower, const redisReply *id);
static bool apply_entry(Follower *follower, const redisReply *fields);
static void rewind_stream(Follower *follower);
static void control_step(Follower *follower);
static void ask(Follower *follower, int64_t now);
static void write_nonce(Follower *follower);
static void written(void *arg, const redisReply *reply);
static void answer_replied(void *arg, const redisReply *reply);
static void goodbye_replied(void *arg, const redisReply *reply);
static void refused(SessauthNode *node, RedisTask task, const char *what, const redisReply *reply);
static void set_state(SessauthNode *node, RedisTask task, const char *state);
static void load_key(Follower *follower);

bool
follower_start(SessauthNode *node)
{
	Follower   *follower = calloc(1, sizeof(*follower));
	RedisEvents events = {on_up, on_down, follower};
	struct timeval tv = {0, TICK_MS * 1000};

	if (follower == NULL)
		return false;
	follower->node = node;
	follower->pipe[0] = follower->pipe[1] = -1;
	strcpy(follower->last_id, "0-0");
	sa_name_stream(node->prefix, follower->stream_key);
	sa_name_nodes(node->prefix, follower->nodes_key);
	sa_name_answers(node->prefix, follower->answers_key);
	node->follower = follower;
	if (pipe(follower->pipe) != 0)
		return false;
	follower->base = event_base_new();
	if (follower->base == NULL)
		return false;
	follower->reader = redis_link_new(follower->base, &node->redis, node->redis_password_file, &events);
	follower->control = redis_link_new(follower->base, &node->redis, node->redis_password_file, &events);
	follower->tick = event_new(follower->base, -1, EV_PERSIST, on_tick, follower);
	follower->wake = event_new(follower->base, follower->pipe[0], EV_READ | EV_PERSIST, on_wake, follower);
	follower->goodbye = evtimer_new(follower->base, on_goodbye, follower);
	if (!follower->reader || !follower->control || !follower->tick || !follower->wake || !follower->goodbye)
		return false;
	event_add(follower->tick, &tv);
	event_add(follower->wake, NULL);
	set_state(node, REDIS_READ, "not connected to Redis yet");
	return pthread_create(&follower->thread, NULL, run, follower) == 0 || (follower->stopping = true, false);
}

void
follower_stop(SessauthNode *node)
{
	Follower   *follower = node->follower;

	if (follower == NULL)
		return;
	if (follower->thread && write(follower->pipe[1], "q", 1) == 1)
		pthread_join(follower->thread, NULL);
	redis_link_free(follower->reader);
	redis_link_free(follower->control);
	if (follower->tick)
		event_free(follower->tick);
	if (follower->wake)
		event_free(follower->wake);
	if (follower->goodbye)
		event_free(follower->goodbye);
	if (follower->base)
		event_base_free(follower->base);
	if (follower->pipe[0] >= 0)
	{
		close(follower->pipe[0]);
		close(follower->pipe[1]);
	}
	sa_wipe(follower->key, sizeof(follower->key));
	free(follower);
	node->follower = NULL;
}

void
follower_link_key_arrived(SessauthNode *node)
{
	/* A full pipe means that a wake-up is on its way anyhow. */
	if (node->follower && write(node->follower->pipe[1], "k", 1) != 1)
		return;
}

static void *
run(void *arg)
{
	Follower   *follower = arg;

	event_base_dispatch(follower->base);
	return NULL;
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	Follower   *follower = arg;
	char		bytes[16];
	ssize_t		n = read(fd, bytes, sizeof(bytes));

	(void) what;
	for (ssize_t i = 0; i < n; i++)
	{
		if (bytes[i] == 'k')
			load_key(follower);
		else if (!follower->stopping)
		{
			struct timeval tv = {0, GOODBYE_MS * 1000};

			follower->stopping = true;
			if (redis_link_command(follower->control, written, GOODBYE_MS, 3,
								   (SaField[]) {SA_FIELD("HDEL", 4), SA_FIELD_STR(follower->nodes_key), SA_FIELD_STR(follower->node->id)}) &&
				redis_link_command(follower->control, goodbye_replied, GOODBYE_MS, 3,
								   (SaField[]) {SA_FIELD("HDEL", 4), SA_FIELD_STR(follower->answers_key), SA_FIELD_STR(follower->node->id)}))
				evtimer_add(follower->goodbye, &tv);
			else
				event_base_loopbreak(follower->base);
		}
	}
}

static void
goodbye_replied(void *arg, const redisReply *reply)
{
	(void) reply;
	event_base_loopbreak(((Follower *) arg)->base);
}

static void
on_goodbye(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	event_base_loopbreak(((Follower *) arg)->base);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	Follower   *follower = arg;
	int64_t		now = clock_now();

	(void) fd;
	(void) what;
	if (follower->stopping || !follower->has_key)
		return;
	for (int i = 0; i < 2; i++)
	{
		if (follower->retry_at[i] != 0 && now >= follower->retry_at[i])
		{
			follower->retry_at[i] = 0;
			redis_link_connect(i == 0 ? follower->reader : follower->control);
		}
	}
	if (redis_link_is_up(follower->reader) && !follower->reading)
		read_on(follower);
	control_step(follower);
	if (now - follower->pruned_at > PRUNE_US)
	{
		follower->pruned_at = now;
		pthread_rwlock_wrlock(&follower->node->lock);
		memory_prune(&follower->node->memory, node_forgets_before(follower->node, now), false);
		pthread_rwlock_unlock(&follower->node->lock);
	}
}

static void
load_key(Follower *follower)
{
	SessauthNode *node = follower->node;

	pthread_mutex_lock(&node->keys_lock);
	memcpy(follower->key, node->link_key, SA_KEY_LEN);
	pthread_mutex_unlock(&node->keys_lock);
	if (!follower->has_key)
	{
		follower->has_key = true;
		follower->retry_at[0] = follower->retry_at[1] = clock_now();
	}
}

static void
on_up(void *arg, RedisLink *link)
{
	Follower   *follower = arg;

	if (link == follower->reader)
	{
		follower->reading = false;
		read_on(follower);
	}
	else
	{
		follower->getting = false;
		follower->written_at = 0;
		control_step(follower);
	}
}

static void
on_down(void *arg, RedisLink *link, const char *why)
{
	Follower   *follower = arg;
	int			i = link == follower->reader ? 0 : 1;

	follower->backoff[i] = follower->backoff[i] == 0 ? BACKOFF_FIRST_MS :
		follower->backoff[i] * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : follower->backoff[i] * 2;
	follower->retry_at[i] = clock_now() + follower->backoff[i] * (int64_t) 500 +
		(int64_t) (random() % (follower->backoff[i] * 500 + 1));
	if (i == 0)
		follower->reading = false;
	else
		follower->getting = false;
	if (!follower->stopping)
		set_state(follower->node, i == 0 ? REDIS_READ : REDIS_ASK, why);
	else if (i == 1)
		event_base_loopbreak(follower->base);
}

/*
 * While an answer waits for a number, reading does not block: an empty reply
 * to a read that began after the answer proves that the number is not behind last_id.
 */
static void
read_on(Follower *follower)
{
	SessauthNode *node = follower->node;
	int64_t		lo;
	int64_t		hi;
	char		block[16];
	SaField		argv[8];
	int			argc = 0;

	pthread_rwlock_rdlock(&node->lock);
	follower->read_nowait = lease_waits(&node->lease, &lo, &hi);
	pthread_rwlock_unlock(&node->lock);

	argv[argc++] = SA_FIELD("XREAD", 5);
	argv[argc++] = SA_FIELD("COUNT", 5);
	argv[argc++] = SA_FIELD_STR(READ_COUNT);
	if (!follower->read_nowait)
	{
		snprintf(block, sizeof(block), "%d", READ_BLOCK_MS);
		argv[argc++] = SA_FIELD("BLOCK", 5);
		argv[argc++] = SA_FIELD_STR(block);
	}
	argv[argc++] = SA_FIELD("STREAMS", 7);
	argv[argc++] = SA_FIELD_STR(follower->stream_key);
	argv[argc++] = SA_FIELD_STR(follower->last_id);
	follower->read_at = clock_now();
	follower->reading = redis_link_command(follower->reader, stream_replied, READ_BLOCK_MS + REPLY_TIMEOUT_MS, argc, argv);
}

/*
 * Reads on at once while that brings news; else the next tick does, so that no
 * reply, however odd, can keep both sides busy.
 */
static void
stream_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	SessauthNode *node = follower->node;
	int64_t		now = clock_now();
	int64_t		lo;
	int64_t		hi;
	bool		again = false;
	bool		waits;
	bool		beat = false;

	follower->reading = false;
	if (reply->type == REDIS_REPLY_ERROR)
	{
		/* It may be last_id that it does not like. */
		refused(node, REDIS_READ, "to show the stream", reply);
		rewind_stream(follower);
		return;
	}
	if (reply->type == REDIS_REPLY_NIL)
	{
		again = !follower->read_nowait && now - follower->read_at >= TICK_MS * 1000;
		if (follower->read_nowait && now >= follower->rescan_at)
		{
			pthread_rwlock_rdlock(&node->lock);
			waits = lease_waits(&node->lease, &lo, &hi);
			pthread_rwlock_unlock(&node->lock);
			if (waits)
			{
				rewind_stream(follower);
				follower->rescan_wait = follower->rescan_wait == 0 ? RESCAN_FIRST_US :
					follower->rescan_wait * 2 > RESCAN_MAX_US ? RESCAN_MAX_US : follower->rescan_wait * 2;
				follower->rescan_at = now + follower->rescan_wait;
				again = true;
			}
		}
	}
	else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 && reply->element[0]->type == REDIS_REPLY_ARRAY &&
			 reply->element[0]->elements == 2 && reply->element[0]->element[1]->type == REDIS_REPLY_ARRAY &&
			 reply->element[0]->element[1]->elements > 0 && apply_entries(follower, reply->element[0]->element[1], &beat))
		again = true;
	else
	{
		set_state(node, REDIS_READ, "the server does not answer like Redis");
		return;
	}
	set_state(node, REDIS_READ, "");
	follower->backoff[0] = 0;
	if (follower->stopping)
		return;
	if (again)
		read_on(follower);
	if (beat)
		control_step(follower);
}

/* False when this is no list of entries; *beat is set when there was a beat among them. */
static bool
apply_entries(Follower *follower, const redisReply *entries, bool *beat)
{
	SessauthNode *node = follower->node;
	bool		good = true;

	for (size_t i = 0; good && i < entries->elements; i++)
	{
		const redisReply *item = entries->element[i];

		good = item->type == REDIS_REPLY_ARRAY && item->elements == 2 && take_id(follower, item->element[0]);
		if (good && apply_entry(follower, item->element[1]))
			*beat = true;
	}
	pthread_rwlock_wrlock(&node->lock);
	if (lease_extend(&node->lease))
		follower->rescan_wait = 0;
	pthread_rwlock_unlock(&node->lock);
	return good;
}

static bool
take_id(Follower *follower, const redisReply *id)
{
	size_t		len = id->type == REDIS_REPLY_STRING ? (size_t) id->len : 0;

	if (len == 0 || len >= sizeof(follower->last_id) || strspn(id->str, "0123456789-") != len)
		return false;
	memcpy(follower->last_id, id->str, len + 1);
	return true;
}

/*
 * True when it was a beat. What is not authentic, and a revocation that does
 * not fit into memory, leaves a hole: the lease then runs out. The lock is taken for each entry, not for
 * all of them, and not while MACs are computed, so that deciders hardly wait.
 */
static bool
apply_entry(Follower *follower, const redisReply *fields)
{
	SessauthNode *node = follower->node;
	SaField		args[FIELDS_MAX];
	SaEntry		entry;
	int64_t		now = clock_now();
	bool		good = fields->type == REDIS_REPLY_ARRAY && fields->elements <= FIELDS_MAX;

	for (size_t i = 0; good && i < fields->elements; i++)
	{
		good = fields->element[i]->type == REDIS_REPLY_STRING;
		if (good)
			args[i] = SA_FIELD(fields->element[i]->str, (size_t) fields->element[i]->len);
	}
	good = good && sa_entry_read(follower->key, follower->stream_key, args, fields->elements, &entry);

	pthread_rwlock_wrlock(&node->lock);
	if (!good)
		node->refused_entries++;
	else if (entry.kind == SA_KIND_BEAT)
		ledger_clock_seen(&node->ledger_clock, entry.at, now);
	else if (memory_apply(&node->memory, &entry, node_forgets_before(node, now)))
		lease_applied(&node->lease, entry.g, entry.n);
	pthread_rwlock_unlock(&node->lock);
	return good && entry.kind == SA_KIND_BEAT;
}

static void
rewind_stream(Follower *follower)
{
	SessauthNode *node = follower->node;

	if (strcmp(follower->last_id, "0-0") == 0)
		return;
	strcpy(follower->last_id, "0-0");
	pthread_rwlock_wrlock(&node->lock);
	node->rescans++;
	pthread_rwlock_unlock(&node->lock);
}

/* Nonce by nonce: ask, look for the answer, ask again once it has served. */
static void
control_step(Follower *follower)
{
	SessauthNode *node = follower->node;
	int64_t		now = clock_now();
	LeaseNonce	state;
	int64_t		age;

	if (follower->stopping || !redis_link_is_up(follower->control))
		return;
	pthread_rwlock_rdlock(&node->lock);
	state = node->lease.state;
	age = now - node->lease.t0;
	pthread_rwlock_unlock(&node->lock);

	/* After max_staleness an answer is worth nothing; before, a new nonce would only make the worker's answer miss. */
	if (state == LEASE_NONCE_NONE || age >= node->max_staleness)
		ask(follower, now);
	else if (state == LEASE_NONCE_OUTSTANDING)
	{
		if (now - follower->written_at >= REWRITE_US)
			write_nonce(follower);
		if (!follower->getting)
			follower->getting = redis_link_command(follower->control, answer_replied, REPLY_TIMEOUT_MS, 3,
												   (SaField[]) {SA_FIELD("HGET", 4), SA_FIELD_STR(follower->answers_key), SA_FIELD_STR(node->id)});
	}
}

static void
ask(Follower *follower, int64_t now)
{
	SessauthNode *node = follower->node;
	unsigned char bytes[16];
	char		nonce[SA_NONCE_SIZE];

	if (!sa_random(bytes, sizeof(bytes)))
		return;
	sa_hex_encode(bytes, sizeof(bytes), nonce);
	pthread_rwlock_wrlock(&node->lock);
	lease_ask(&node->lease, nonce, now);
	pthread_rwlock_unlock(&node->lock);
	write_nonce(follower);
}

static void
write_nonce(Follower *follower)
{
	SessauthNode *node = follower->node;
	SaNonce		nonce = {.max_staleness = node->max_staleness / 1000};
	char		line[SA_LINE_SIZE];
	size_t		len;

	pthread_rwlock_rdlock(&node->lock);
	memcpy(nonce.nonce, node->lease.nonce, sizeof(nonce.nonce));
	lease_position(&node->lease, nonce.g, &nonce.n);
	pthread_rwlock_unlock(&node->lock);
	len = sa_nonce_write(follower->key, follower->nodes_key, node->id, &nonce, line);
	if (len > 0 &&
		redis_link_command(follower->control, written, REPLY_TIMEOUT_MS, 4,
						   (SaField[]) {SA_FIELD("HSET", 4), SA_FIELD_STR(follower->nodes_key), SA_FIELD_STR(node->id), SA_FIELD(line, len)}))
		follower->written_at = clock_now();
}

static void
written(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;

	if (reply->type == REDIS_REPLY_ERROR)
	{
		refused(follower->node, REDIS_ASK, "to take a nonce", reply);
		return;
	}
	set_state(follower->node, REDIS_ASK, "");
	follower->backoff[1] = 0;
}

static void
answer_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	SessauthNode *node = follower->node;
	int64_t		now = clock_now();
	SaAnswer	answer;
	bool		extended = false;

	follower->getting = false;
	if (reply->type == REDIS_REPLY_ERROR)
		refused(node, REDIS_LISTEN, "to show the answer", reply);
	else
		set_state(node, REDIS_LISTEN, "");
	if (reply->type != REDIS_REPLY_STRING ||
		!sa_answer_read(follower->key, follower->answers_key, node->id, reply->str, (size_t) reply->len, &answer))
		return;
	pthread_rwlock_wrlock(&node->lock);
	if (lease_answer(&node->lease, &answer, now))
	{
		ledger_clock_answered(&node->ledger_clock, answer.at, node->lease.t0, now);
		extended = lease_extend(&node->lease);
		if (extended)
			follower->rescan_wait = 0;
	}
	pthread_rwlock_unlock(&node->lock);
	if (extended)
		control_step(follower);
}

static void
refused(SessauthNode *node, RedisTask task, const char *what, const redisReply *reply)
{
	char		text[160];

	snprintf(text, sizeof(text), "the server refuses %s: %.90s", what, reply->str);
	set_state(node, task, text);
}

/* Each thing that is done in Redis may fail on its own; said, with one log line for each change, is the first that does. */
static void
set_state(SessauthNode *node, RedisTask task, const char *state)
{
	char		before[sizeof(node->redis_state[0])];
	char		after[sizeof(before)];

	pthread_rwlock_wrlock(&node->lock);
	snprintf(before, sizeof(before), "%s", node_redis_state(node));
	snprintf(node->redis_state[task], sizeof(before), "%s", state);

	/* Some of it comes from the server, and goes into logs and HTTP answers. */
	for (char *c = node->redis_state[task]; *c; c++)
		if ((unsigned char) *c < ' ' || (unsigned char) *c > '~')
			*c = '?';
	snprintf(after, sizeof(after), "%s", node_redis_state(node));
	pthread_rwlock_unlock(&node->lock);
	if (strcmp(before, after) == 0)
		return;
	if (after[0] == '\0')
		node_log(node, SESSAUTH_LOG_INFO, "following Redis");
	else
		node_log(node, SESSAUTH_LOG_WARNING, "Redis: %s", after);
}

/*
 * follower.c
 *		Keeps the node's memory equal to the ledger's revocations, over Redis.
 *
 * Two connections: one reads the stream (stream.c), the other writes nonces and reads answers. Nothing here decides
 * whether the node may serve: lease.c does, from what was applied and answered.
 */
#include "node/follower.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/apply.h"

#define TICK_MS				50
#define LOOK_US				200000	/* for an answer, when no beat says that there may be one */
#define REWRITE_US			1000000 /* a nonce that Redis may have lost is written again */
#define BACKOFF_FIRST_MS	50
#define BACKOFF_MAX_MS		2000
#define GOODBYE_MS			500
#define BASE_DESCRIPTORS	8

static struct event_base *new_base(void);
static void *run(void *arg);
static void on_wake(evutil_socket_t fd, short what, void *arg);
static void load_key(Follower *follower);
static void say_goodbye(Follower *follower);
static void on_goodbye(evutil_socket_t fd, short what, void *arg);
static void on_tick(evutil_socket_t fd, short what, void *arg);
static void on_up(void *arg, RedisLink *link);
static void on_down(void *arg, RedisLink *link, const char *why);
static void new_nonce(Follower *follower, int64_t now);
static void write_nonce(Follower *follower);
static void nonce_written(void *arg, const redisReply *reply);
static void look_for_answer(Follower *follower, int64_t now);
static void answer_replied(void *arg, const redisReply *reply);
static void forgotten(void *arg, const redisReply *reply);

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
	sa_name_stream(node->redis.prefix, follower->stream_key);
	sa_name_nodes(node->redis.prefix, follower->nodes_key);
	sa_name_answers(node->redis.prefix, follower->answers_key);
	node->follower = follower;
	if (pipe2(follower->pipe, O_CLOEXEC | O_NONBLOCK) != 0)
		return false;
	follower->base = new_base();
	if (follower->base == NULL)
		return false;
	follower->reader = redis_link_new(follower->base, &node->redis, node->redis_password_file, &events);
	follower->control = redis_link_new(follower->base, &node->redis, node->redis_password_file, &events);
	follower->tick = event_new(follower->base, -1, EV_PERSIST, on_tick, follower);
	follower->wake = event_new(follower->base, follower->pipe[0], EV_READ | EV_PERSIST, on_wake, follower);
	follower->goodbye = evtimer_new(follower->base, on_goodbye, follower);
	if (!follower->reader || !follower->control || !follower->tick || !follower->wake || !follower->goodbye || !stream_init(follower) ||
		!questions_init(follower))
		return false;
	if (event_add(follower->tick, &tv) != 0 || event_add(follower->wake, NULL) != 0)
		return false;
	snprintf(node->redis_state[REDIS_READ], sizeof(node->redis_state[REDIS_READ]), "not connected yet");
	follower->running = node_start_thread(&follower->thread, run, follower);
	return follower->running;
}

/*
 * libevent ends the process when it cannot have the descriptors that a loop needs, four at most. So as many and some more are had and given back
 * before; that another thread of the host takes the very last ones in between is what remains.
 */
static struct event_base *
new_base(void)
{
	int			spare[BASE_DESCRIPTORS];
	int			count = 0;

	while (count < BASE_DESCRIPTORS && (spare[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		count++;
	for (int i = 0; i < count; i++)
		close(spare[i]);
	return count == BASE_DESCRIPTORS ? event_base_new() : NULL;
}

void
follower_stop(SessauthNode *node)
{
	Follower   *follower = node->follower;

	if (follower == NULL)
		return;
	atomic_store(&follower->stop, true);
	if (follower->running && (write(follower->pipe[1], "q", 1) == 1 || errno == EAGAIN))	/* a full pipe wakes it as well */
		pthread_join(follower->thread, NULL);
	redis_link_free(follower->reader);
	redis_link_free(follower->control);
	stream_free(follower);
	questions_free(follower);
	if (follower->tick)
		event_free(follower->tick);
	if (follower->wake)
		event_free(follower->wake);
	if (follower->goodbye)
		event_free(follower->goodbye);
	if (follower->base)
	{
		/* A connection that ends with a callback under way is freed by the loop. */
		(void) event_base_loop(follower->base, EVLOOP_NONBLOCK);
		event_base_free(follower->base);
	}
	if (follower->pipe[0] >= 0)
	{
		close(follower->pipe[0]);
		close(follower->pipe[1]);
	}
	sa_mac_key_free(follower->mac_key);
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

void
follower_question_waits(SessauthNode *node)
{
	if (node->follower && write(node->follower->pipe[1], "a", 1) != 1)
		return;
}

void
follower_state(Follower *follower, RedisTask task, const char *format,...)
{
	SessauthNode *node = follower->node;
	char		before[sizeof(node->redis_state[0])];
	char		after[sizeof(node->redis_state[0])];
	char		text[sizeof(node->redis_state[0])];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	node_clean(text);
	if (follower->stopping || strcmp(node->redis_state[task], text) == 0)
		return;

	many_readers_write(&node->known_lock);
	snprintf(before, sizeof(before), "%s", node_redis_state(node));
	memcpy(node->redis_state[task], text, sizeof(text));
	snprintf(after, sizeof(after), "%s", node_redis_state(node));
	many_readers_end_write(&node->known_lock);
	if (strcmp(before, after) == 0)
		return;
	if (after[0] == '\0')
		node_log(node, SESSAUTH_LOG_INFO, "following Redis");
	else
		node_log(node, SESSAUTH_LOG_WARNING, "Redis: %s", after);
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
		else if (bytes[i] == 'a')
			questions_send(follower);
	}
	if (atomic_load(&follower->stop) && !follower->stopping)
		say_goodbye(follower);
}

static void
load_key(Follower *follower)
{
	SessauthNode *node = follower->node;
	SaMacKey   *mac_key;

	pthread_mutex_lock(&node->keys_lock);
	memcpy(follower->key, node->link_key, SA_KEY_LEN);
	pthread_mutex_unlock(&node->keys_lock);
	mac_key = sa_mac_key_new(follower->key);
	if (mac_key == NULL)
		return;					/* the next refresh of the keys tries again */
	sa_mac_key_free(follower->mac_key);
	follower->mac_key = mac_key;
	if (!follower->has_key)
	{
		follower->has_key = true;
		follower->retry_at[0] = follower->retry_at[1] = clock_now();
	}
}

/* The lease goes first: whoever reads that the node is gone may rely on it. */
static void
say_goodbye(Follower *follower)
{
	SessauthNode *node = follower->node;
	struct timeval tv = {0, GOODBYE_MS * 1000};

	follower->stopping = true;
	apply_drop_lease(node);
	if (redis_link_command(follower->control, nonce_written, GOODBYE_MS, 3,
						   (SaField[]) {SA_FIELD("HDEL", 4), SA_FIELD_STR(follower->nodes_key), SA_FIELD_STR(node->id)}) &&
		redis_link_command(follower->control, forgotten, GOODBYE_MS, 3,
						   (SaField[]) {SA_FIELD("HDEL", 4), SA_FIELD_STR(follower->answers_key), SA_FIELD_STR(node->id)}))
		evtimer_add(follower->goodbye, &tv);
	else
		event_base_loopbreak(follower->base);
}

static void
forgotten(void *arg, const redisReply *reply)
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
	stream_read(follower, now);
	follower_ask(follower);
	questions_tick(follower, now);
}

static void
on_up(void *arg, RedisLink *link)
{
	Follower   *follower = arg;

	follower->up_at[link == follower->reader ? 0 : 1] = clock_now();
	many_readers_write(&follower->node->known_lock);
	follower->node->connects++;
	many_readers_end_write(&follower->node->known_lock);
	if (link == follower->reader)
		stream_connected(follower);
	else
	{
		follower->getting = false;
		follower->written_at = 0;
		follower_ask(follower);
	}
}

static void
on_down(void *arg, RedisLink *link, const char *why)
{
	Follower   *follower = arg;
	int			i = link == follower->reader ? 0 : 1;
	int64_t		now = clock_now();
	uint32_t	jitter = 0;
	int64_t		wait;

	/* Only a connection that has lasted earns a quick new one. */
	if (follower->up_at[i] != 0 && now - follower->up_at[i] > BACKOFF_MAX_MS * 1000)
		follower->backoff[i] = 0;
	follower->up_at[i] = 0;
	follower->backoff[i] = follower->backoff[i] == 0 ? BACKOFF_FIRST_MS :
		follower->backoff[i] * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : follower->backoff[i] * 2;
	wait = follower->backoff[i] * INT64_C(500);
	(void) sa_random(&jitter, sizeof(jitter));
	follower->retry_at[i] = now + wait + jitter % wait;
	if (i == 0)
		follower->reading = false;
	else
	{
		follower->getting = false;
		questions_lost(follower);
	}
	follower_state(follower, i == 0 ? REDIS_READ : REDIS_ASK, "%s", why);
	if (follower->stopping && i == 1)
		event_base_loopbreak(follower->base);
}

/*
 * Nonce by nonce. After max_staleness an answer is worth nothing, so a new nonce
 * takes over; before, it would only make the worker's answer miss.
 */
void
follower_ask(Follower *follower)
{
	SessauthNode *node = follower->node;
	int64_t		now = clock_now();
	LeaseNonce	state;
	int64_t		t0;

	if (follower->stopping || !redis_link_is_up(follower->control))
		return;
	many_readers_read(&node->known_lock);
	state = node->lease.state;
	t0 = node->lease.t0;
	many_readers_end_read(&node->known_lock);
	if (state == LEASE_NONCE_NONE || now - t0 >= node->max_staleness)
		new_nonce(follower, now);
	else if (state == LEASE_NONCE_OUTSTANDING)
	{
		if (now - follower->written_at >= REWRITE_US)
			write_nonce(follower);
		look_for_answer(follower, now);
	}
}

static void
new_nonce(Follower *follower, int64_t now)
{
	SessauthNode *node = follower->node;
	unsigned char bytes[16];
	char		nonce[SA_NONCE_SIZE];

	if (!sa_random(bytes, sizeof(bytes)))
		return;
	sa_hex_encode(bytes, sizeof(bytes), nonce);
	many_readers_write(&node->known_lock);
	lease_ask(&node->lease, nonce, now);
	many_readers_end_write(&node->known_lock);
	follower->got_at = now;
	write_nonce(follower);
}

static void
write_nonce(Follower *follower)
{
	SessauthNode *node = follower->node;
	SaNonce		nonce = {.max_staleness = node->max_staleness / 1000};
	char		line[SA_LINE_SIZE];
	size_t		len;

	many_readers_read(&node->known_lock);
	memcpy(nonce.nonce, node->lease.nonce, sizeof(nonce.nonce));
	lease_position(&node->lease, nonce.g, &nonce.n);
	many_readers_end_read(&node->known_lock);
	len = sa_nonce_write(follower->key, follower->nodes_key, node->id, &nonce, line);
	if (len > 0 &&
		redis_link_command(follower->control, nonce_written, REPLY_TIMEOUT_MS, 4,
						   (SaField[]) {SA_FIELD("HSET", 4), SA_FIELD_STR(follower->nodes_key), SA_FIELD_STR(node->id), SA_FIELD(line, len)}))
		follower->written_at = clock_now();
}

static void
nonce_written(void *arg, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_ERROR)
		follower_state(arg, REDIS_ASK, "the server does not take a nonce: %.100s", reply->str);
	else
		follower_state(arg, REDIS_ASK, "%s", "");
}

/* On a beat at once, because the worker answers with it; else now and then. */
static void
look_for_answer(Follower *follower, int64_t now)
{
	int64_t		pause = follower->node->max_staleness / 10 < LOOK_US ? follower->node->max_staleness / 10 : LOOK_US;

	if (follower->getting || (!follower->beat && now - follower->got_at < pause))
		return;
	follower->beat = false;
	follower->got_at = now;
	follower->getting = redis_link_command(follower->control, answer_replied, REPLY_TIMEOUT_MS, 3,
										   (SaField[]) {SA_FIELD("HGET", 4), SA_FIELD_STR(follower->answers_key), SA_FIELD_STR(follower->node->id)});
}

static void
answer_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	SessauthNode *node = follower->node;
	int64_t		now = clock_now();
	SaAnswer	answer;

	follower->getting = false;
	if (reply->type == REDIS_REPLY_ERROR)
	{
		follower_state(follower, REDIS_LISTEN, "the server does not show the answer: %.100s", reply->str);
		return;
	}
	follower_state(follower, REDIS_LISTEN, "%s", "");
	if (reply->type != REDIS_REPLY_STRING ||
		!sa_answer_read(follower->key, follower->answers_key, node->id, reply->str, (size_t) reply->len, &answer))
		return;
	if (apply_answer(node, &answer, now))
	{
		follower->rescan_wait = 0;
		follower_ask(follower);
	}
}

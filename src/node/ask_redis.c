/*
 * ask_redis.c
 *		Asks Redis about tokens, in the follower's thread, over the connection of nonces and answers.
 *
 * A key with a good MAC was once the ledger's word, and of it only what stays true for ever is believed: that a session has been revoked, or
 * that an epoch is above the token's. That it says otherwise may be from the past: a key that is missing, without a good MAC or
 * below the token's epoch says nothing. So whoever can write to Redis can refuse nobody here and let nobody in.
 *
 * With trust_redis the administrator says that nobody but the worker writes there. Then keys may accept, and G1 holds still:
 *
 * - an answer to a nonce of t0 says that everything committed before t0 is in low..n of g;
 * - the worker writes "keys" only when everything up to that number has arrived in keys (src/worker/publish.c). It is read before them here, over one
 *	 connection, and is n of g or more: so they are as of t0 or later. A Redis that falls back to an older copy falls back with both;
 * - signing keys are not in Redis. The token's was among the node's keys when these were read last, and that moment counts as t0 does.
 *
 * So the older of the two moments is what the answer rests on, and ask.c holds it against max_staleness.
 */
#include <stdlib.h>
#include <string.h>

#include "node/ask.h"
#include "node/follower.h"

#define IN_FLIGHT_MAX		16
#define FOLLOWERS_OWN		8		/* commands: it must be able to ask for its lease, whatever is asked about tokens */
#define FIELDS_MAX			14
#define PATIENCE_US			200000	/* then PostgreSQL is asked instead */

/* What is asked for, in this order. */
enum
{
	ASK_MIRROR,					/* up to which number the keys go; only with trust_redis */
	ASK_SESSION,
	ASK_USER,
	ASK_TENANT,
	ASK_COUNT
};

_Static_assert(IN_FLIGHT_MAX * ASK_COUNT + FOLLOWERS_OWN <= REDIS_LINK_COMMANDS_MAX, "questions must leave room for the follower");

typedef struct InFlight
{
	Question   *question;		/* NULL: given up; its replies are still to come */
	int64_t		sent;
	int			commands;		/* from the first one that this node sends, up to this */
	int			replies;		/* likewise */
	bool		refused;
	unsigned	proven;			/* bits: what speaks for the token */

	/* with trust_redis: the last answer when it was asked */
	int64_t		answered_t0;
	char		g[SA_UUID_SIZE];
	int64_t		n;
} InFlight;

/* In the order of their commands, which is that of their replies. */
struct RedisQuestions
{
	InFlight	in_flight[IN_FLIGHT_MAX];
	int			first;
	int			count;
};

static void give_up(Follower *follower, int64_t sent_by);
static bool is_late(const RedisQuestions *questions);
static bool is_current(const Follower *follower, int64_t now);
static bool send_question(Follower *follower, Question *question, int64_t now);
static bool send_command(Follower *follower, const Claims *claims, int what);
static void replied(void *arg, const redisReply *reply);
static void weigh(const Follower *follower, InFlight *one, const redisReply *reply);
static bool is_over(SessauthNode *node, int64_t exp);
static int64_t rests_on(SessauthNode *node, const InFlight *one);
static size_t name_of(const Follower *follower, const Claims *claims, int what, char *out);

bool
questions_init(Follower *follower)
{
	follower->questions = calloc(1, sizeof(RedisQuestions));
	return follower->questions != NULL;
}

void
questions_free(Follower *follower)
{
	if (follower->questions)
		questions_lost(follower);
	free(follower->questions);
}

void
questions_send(Follower *follower)
{
	SessauthNode *node = follower->node;
	RedisQuestions *questions = follower->questions;
	int64_t		now = clock_now();

	while (questions->count < IN_FLIGHT_MAX || is_late(questions))
	{
		Question   *question = ask_take_for_redis(node);

		if (question == NULL)
			return;
		if (is_late(questions) || !is_current(follower, now) || !send_question(follower, question, now))
			ask_postgres_instead(node, question);
	}
}

void
questions_tick(Follower *follower, int64_t now)
{
	give_up(follower, now - PATIENCE_US);
	questions_send(follower);
}

void
questions_lost(Follower *follower)
{
	give_up(follower, INT64_MAX);
	follower->questions->count = 0;
	questions_send(follower);	/* that is, to PostgreSQL */
}

/* Those that were sent by that time. */
static void
give_up(Follower *follower, int64_t sent_by)
{
	RedisQuestions *questions = follower->questions;

	for (int i = 0; i < questions->count; i++)
	{
		InFlight   *one = &questions->in_flight[(questions->first + i) % IN_FLIGHT_MAX];
		Question   *question = one->question;

		if (question && one->sent <= sent_by)
		{
			one->question = NULL;
			ask_postgres_instead(follower->node, question);
		}
	}
}

/* What was given up still waits for its replies: Redis hangs, and nobody else shall wait for it. */
static bool
is_late(const RedisQuestions *questions)
{
	return questions->count > 0 && questions->in_flight[questions->first].question == NULL;
}

/*
 * Answers to this node's nonces come, so the worker writes to this Redis. What is read here needs no such proof to be true; but from a mirror that
 * nobody keeps up to date there is little to learn, and PostgreSQL would be asked later for it.
 */
static bool
is_current(const Follower *follower, int64_t now)
{
	return !follower->stopping && follower->has_key && redis_link_is_up(follower->control) && node_is_answered(follower->node, now);
}

static bool
send_question(Follower *follower, Question *question, int64_t now)
{
	SessauthNode *node = follower->node;
	RedisQuestions *questions = follower->questions;
	InFlight   *one = &questions->in_flight[(questions->first + questions->count) % IN_FLIGHT_MAX];
	int			first = node->trust_redis ? ASK_MIRROR : ASK_SESSION;

	*one = (InFlight) {.question = question, .sent = now, .commands = first, .replies = first};
	many_readers_read(&node->known_lock);
	one->answered_t0 = node->lease.answered_t0;
	memcpy(one->g, node->lease.answer.g, sizeof(one->g));
	one->n = node->lease.answer.n;
	many_readers_end_read(&node->known_lock);

	/* Before the commands: a connection that breaks at one of them gives up everything in flight. */
	questions->count++;
	ask_count_redis(node);
	while (one->commands < ASK_COUNT && send_command(follower, &question->claims, one->commands))
		one->commands++;
	if (one->commands == ASK_COUNT || !redis_link_is_up(follower->control))
		return true;

	/* Memory is short. What was sent will be replied to. */
	one->question = NULL;
	if (one->commands == first)
		questions->count--;
	return false;
}

static bool
send_command(Follower *follower, const Claims *claims, int what)
{
	char		key[SA_REDIS_KEY_SIZE];

	if (name_of(follower, claims, what, key) == 0)
		return false;
	if (what == ASK_MIRROR)
		return redis_link_command(follower->control, replied, REPLY_TIMEOUT_MS, 4,
								  (SaField[]) {SA_FIELD("HMGET", 5), SA_FIELD_STR(key), SA_FIELD("generation", 10), SA_FIELD("keys", 4)});
	return redis_link_command(follower->control, replied, REPLY_TIMEOUT_MS, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(key)});
}

static void
replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	SessauthNode *node = follower->node;
	RedisQuestions *questions = follower->questions;
	InFlight   *one = &questions->in_flight[questions->first];
	Question   *question = one->question;
	int64_t		since = 0;

	if (question)
		weigh(follower, one, reply);
	if (++one->replies < one->commands)
		return;
	questions->first = (questions->first + 1) % IN_FLIGHT_MAX;
	questions->count--;
	if (question && one->proven == (1 << ASK_COUNT) - 1)
		since = rests_on(node, one);
	if (question && one->refused)
		ask_answer(node, question, SESSAUTH_REVOKED, SESSAUTH_SOURCE_REDIS, 0);
	else if (question && since != 0 && clock_now() < since + node->max_staleness)
		ask_answer(node, question, SESSAUTH_ACTIVE, SESSAUTH_SOURCE_REDIS, since);
	else if (question)
		ask_postgres_instead(node, question);
	questions_send(follower);
}

/* What one reply says against the token, and for it. */
static void
weigh(const Follower *follower, InFlight *one, const redisReply *reply)
{
	const Claims *claims = &one->question->claims;
	char		key[SA_REDIS_KEY_SIZE];
	SaField		fields[FIELDS_MAX];
	SaSessionValue session;
	int64_t		number;
	int64_t		current;
	int			what = one->replies;
	bool		for_it = false;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements > FIELDS_MAX)
		return;
	for (size_t i = 0; i < reply->elements; i++)
	{
		if (reply->element[i]->type != REDIS_REPLY_STRING)
			return;
		fields[i] = SA_FIELD(reply->element[i]->str, (size_t) reply->element[i]->len);
	}
	name_of(follower, claims, what, key);
	switch (what)
	{
		case ASK_MIRROR:
			for_it = reply->elements == 2 && strcmp(fields[0].data, one->g) == 0 &&
				sa_number_parse(fields[1].data, fields[1].len, &number) && number >= one->n;
			break;
		case ASK_SESSION:
			if (!sa_session_read(follower->key, key, fields, reply->elements, &session))
				break;
			one->refused |= !session.live;
			for_it = session.live && !is_over(follower->node, session.exp) && strcmp(session.uid, claims->uid) == 0 &&
				session.epoch == claims->epoch && session.tepoch == claims->tepoch;
			break;
		default:
			if (!sa_epoch_read(follower->key, key, fields, reply->elements, &number))
				break;
			current = what == ASK_USER ? claims->epoch : claims->tepoch;
			one->refused |= number > current;
			for_it = number == current;
	}
	if (for_it)
		one->proven |= 1u << what;
}

/* By the ledger's clock; exp in unix seconds. */
static bool
is_over(SessauthNode *node, int64_t exp)
{
	int64_t		time;

	many_readers_read(&node->known_lock);
	time = node_ledger_time(node, clock_now());
	many_readers_end_read(&node->known_lock);
	return exp <= time / 1000000;
}

/* The moment of which everything is known that an acceptance needs; see the head of this file. */
static int64_t
rests_on(SessauthNode *node, const InFlight *one)
{
	SharedKeys *keys = keys_use(node);
	int64_t		begun = keys ? keys->begun : 0;

	if (keys)
		keys_release(keys);

	/* Without being asked they are read too seldom for this. */
	if (clock_now() - begun > node->max_staleness / 2)
		keys_request(node);
	return begun < one->answered_t0 ? begun : one->answered_t0;
}

static size_t
name_of(const Follower *follower, const Claims *claims, int what, char *out)
{
	const char *prefix = follower->node->redis.prefix;

	switch (what)
	{
		case ASK_MIRROR:
			return sa_name_mirror(prefix, out);
		case ASK_SESSION:
			return sa_name_session(prefix, claims->tid, strlen(claims->tid), claims->sid, out);
		case ASK_USER:
			return sa_name_user_epoch(prefix, claims->tid, strlen(claims->tid), claims->uid, strlen(claims->uid), out);
		default:
			return sa_name_tenant_epoch(prefix, claims->tid, strlen(claims->tid), out);
	}
}

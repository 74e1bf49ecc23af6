/*
 * ask_redis.c
 *		Asks Redis about tokens, in the follower's thread, over the connection of nonces and answers.
 *
 * A key with a good MAC was once the ledger's word, and of it only what stays true for ever is believed: that a session has been revoked, or
 * that an epoch is above the token's. That it says otherwise may be from the past: a key that is missing, without a good MAC or
 * below the token's epoch says nothing. So whoever can write to Redis can refuse nobody here and let nobody in.
 */
#include <stdlib.h>
#include <string.h>

#include "node/ask.h"
#include "node/follower.h"

#define IN_FLIGHT_MAX		16
#define KEYS				3		/* of the session, its user, its tenant */
#define FIELDS_MAX			14
#define PATIENCE_US			200000	/* then PostgreSQL is asked instead */

typedef struct InFlight
{
	Question   *question;		/* NULL: given up; its replies are still to come */
	int64_t		sent;
	int			commands;
	int			replies;
	bool		refused;
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
static bool send_key(Follower *follower, const char *key);
static void key_replied(void *arg, const redisReply *reply);
static bool refuses(const Follower *follower, const Question *question, int which, const redisReply *reply);
static size_t name_of(const Follower *follower, const Claims *claims, int which, char *out);

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
	RedisQuestions *questions = follower->questions;
	char		keys[KEYS][SA_REDIS_KEY_SIZE];
	InFlight   *one;

	for (int i = 0; i < KEYS; i++)
		if (name_of(follower, &question->claims, i, keys[i]) == 0)
			return false;

	/* Before the commands: a connection that breaks at one of them gives up everything in flight. */
	one = &questions->in_flight[(questions->first + questions->count) % IN_FLIGHT_MAX];
	*one = (InFlight) {.question = question, .sent = now};
	questions->count++;
	ask_count_redis(follower->node);
	while (one->commands < KEYS && send_key(follower, keys[one->commands]))
		one->commands++;
	if (one->commands == KEYS || !redis_link_is_up(follower->control))
		return true;

	/* Memory is short. What was sent will be replied to. */
	one->question = NULL;
	if (one->commands == 0)
		questions->count--;
	return false;
}

static bool
send_key(Follower *follower, const char *key)
{
	return redis_link_command(follower->control, key_replied, REPLY_TIMEOUT_MS, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(key)});
}

static void
key_replied(void *arg, const redisReply *reply)
{
	Follower   *follower = arg;
	RedisQuestions *questions = follower->questions;
	InFlight   *one = &questions->in_flight[questions->first];
	Question   *question = one->question;

	if (question && refuses(follower, question, one->replies, reply))
		one->refused = true;
	if (++one->replies < one->commands)
		return;
	questions->first = (questions->first + 1) % IN_FLIGHT_MAX;
	questions->count--;
	if (question && one->refused)
		ask_answer(follower->node, question, SESSAUTH_REVOKED, SESSAUTH_SOURCE_REDIS, 0);
	else if (question)
		ask_postgres_instead(follower->node, question);
	questions_send(follower);
}

/* True when an authentic key says that the token is revoked. */
static bool
refuses(const Follower *follower, const Question *question, int which, const redisReply *reply)
{
	const Claims *claims = &question->claims;
	char		key[SA_REDIS_KEY_SIZE];
	SaField		fields[FIELDS_MAX];
	SaSessionValue session;
	int64_t		epoch;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements > FIELDS_MAX)
		return false;
	for (size_t i = 0; i < reply->elements; i++)
	{
		if (reply->element[i]->type != REDIS_REPLY_STRING)
			return false;
		fields[i] = SA_FIELD(reply->element[i]->str, (size_t) reply->element[i]->len);
	}
	name_of(follower, claims, which, key);
	if (which == 0)
		return sa_session_read(follower->key, key, fields, reply->elements, &session) && !session.live;
	return sa_epoch_read(follower->key, key, fields, reply->elements, &epoch) &&
		epoch > (which == 1 ? claims->epoch : claims->tepoch);
}

static size_t
name_of(const Follower *follower, const Claims *claims, int which, char *out)
{
	const char *prefix = follower->node->redis.prefix;

	switch (which)
	{
		case 0:
			return sa_name_session(prefix, claims->tid, strlen(claims->tid), claims->sid, out);
		case 1:
			return sa_name_user_epoch(prefix, claims->tid, strlen(claims->tid), claims->uid, strlen(claims->uid), out);
		default:
			return sa_name_tenant_epoch(prefix, claims->tid, strlen(claims->tid), out);
	}
}

/*
 * ask.c
 *		Tokens that the node cannot decide alone: who waits for an answer, and what becomes of it.
 *
 * Why this keeps G1. An "active" rests on the newest state at some moment after the question went out ("since"); a revocation that it
 * does not know was committed later than that. The clock is read last, as in decide.c: at that moment since + max_staleness has
 * not passed, so nothing that was revoked longer ago than max_staleness is accepted, however long the answer was on its way or
 * the thread was stopped. Whoever joins a question does so before it goes out, so nobody gets an answer from before the own request.
 *
 * What is known against a token by the node itself is not forgotten meanwhile: it is looked at once more before an answer is passed on.
 */
#include "node/ask.h"

#include <stdlib.h>
#include <string.h>

#define HELD_GRACE_US	250000		/* who holds a question that is late is about to say so himself */

static bool wait_for_answer(SessauthNode *node, const char *token, size_t len, int64_t arrived, const Claims *claims, Waiter *waiter,
							bool may_ask_redis);
static bool postgres_may_be_asked(const Asker *asker, int64_t now);
static void join(Question *into, Question *from);
static Question *find(const QuestionQueue *queue, const char *token, size_t len);
static Question *new_question(SessauthNode *node, const char *token, size_t len, const Claims *claims, int64_t now);
static void append(QuestionQueue *queue, Question *question);
static void free_question(Question *question);
static void let_go(Asker *asker, Question *question);
static void take_late(QuestionQueue *queue, int64_t now, Question **late);

/* A thread that waits in sessauth_decide_wait. */
typedef struct Blocked
{
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool		answered;
	SessauthDecision *out;
} Blocked;

static void on_blocked_answered(void *arg, const SessauthDecision *decision);

bool
ask_start(SessauthNode *node)
{
	Asker	   *asker;
	pthread_condattr_t attr;

	asker = calloc(1, sizeof(*asker));
	if (asker == NULL)
		return false;
	pthread_mutex_init(&asker->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&asker->wanted, &attr);
	pthread_condattr_destroy(&attr);
	node->asker = asker;
	return node->pg_conninfo == NULL || ask_postgres_start(node);
}

void
ask_stop(SessauthNode *node)
{
	Asker	   *asker = node->asker;

	if (asker == NULL)
		return;
	pthread_mutex_lock(&asker->lock);
	asker->stopping = true;
	pthread_cond_broadcast(&asker->wanted);
	pthread_mutex_unlock(&asker->lock);
	ask_postgres_stop(node);
}

void
ask_free(SessauthNode *node)
{
	Asker	   *asker = node->asker;
	Question   *question;

	if (asker == NULL)
		return;
	while ((question = ask_take(asker, &asker->redis)) != NULL || (question = ask_take(asker, &asker->postgres)) != NULL)
		ask_answer(node, question, SESSAUTH_CANNOT_TELL, SESSAUTH_SOURCE_POSTGRES, 0);
	pthread_cond_destroy(&asker->wanted);
	pthread_mutex_destroy(&asker->lock);
	free(asker);
	node->asker = NULL;
}

void
ask_status(SessauthNode *node, SessauthStatus *out)
{
	Asker	   *asker = node->asker;

	if (asker == NULL)
		return;
	pthread_mutex_lock(&asker->lock);
	out->asked_redis = asker->asked_redis;
	out->asked_postgres = asker->asked_postgres;
	out->ask_failures = asker->failures;
	out->asks_refused = asker->refused;
	out->ask_breaker_open = asker->breaker.state != BREAKER_CLOSED;
	pthread_mutex_unlock(&asker->lock);
}

bool
sessauth_ask(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out,
			 void (*answered) (void *arg, const SessauthDecision *decision), void *arg)
{
	Claims		claims;
	Waiter	   *waiter;

	(void) decide_token(node, token, len, arrived, out, &claims);
	if (out->code != SESSAUTH_CANNOT_TELL || (out->why != SESSAUTH_WHY_LEASE && out->why != SESSAUTH_WHY_TIME))
		return false;
	waiter = malloc(sizeof(*waiter));
	if (waiter == NULL)
		return false;
	*waiter = (Waiter) {.answered = answered, .arg = arg};
	if (wait_for_answer(node, token, len, arrived, &claims, waiter, out->why == SESSAUTH_WHY_LEASE))
		return true;
	free(waiter);
	return false;
}

SessauthCode
sessauth_decide_wait(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out)
{
	Blocked		blocked = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .out = out};

	if (sessauth_ask(node, token, len, arrived, out, on_blocked_answered, &blocked))
	{
		pthread_mutex_lock(&blocked.lock);
		while (!blocked.answered)
			pthread_cond_wait(&blocked.done, &blocked.lock);
		pthread_mutex_unlock(&blocked.lock);
	}
	pthread_cond_destroy(&blocked.done);
	pthread_mutex_destroy(&blocked.lock);
	return out->code;
}

static void
on_blocked_answered(void *arg, const SessauthDecision *decision)
{
	Blocked    *blocked = arg;

	/* Signalled under the lock: once it is given back, what is on the other thread's stack may be gone. */
	pthread_mutex_lock(&blocked->lock);
	*blocked->out = *decision;
	blocked->answered = true;
	pthread_cond_signal(&blocked->done);
	pthread_mutex_unlock(&blocked->lock);
}

/* False when nobody can be asked now. */
static bool
wait_for_answer(SessauthNode *node, const char *token, size_t len, int64_t arrived, const Claims *claims, Waiter *waiter, bool may_ask_redis)
{
	Asker	   *asker = node->asker;
	int64_t		now = clock_now();
	bool		of_redis = may_ask_redis && node_is_answered(node, now);
	QuestionQueue *queue = of_redis ? &asker->redis : &asker->postgres;
	Question   *question = NULL;
	bool		is_new = false;

	pthread_mutex_lock(&asker->lock);
	if (!asker->stopping && asker->waiters < ASK_WAITERS_MAX && (of_redis || postgres_may_be_asked(asker, now)))
	{
		question = find(queue, token, len);
		is_new = question == NULL && queue->count < ASK_QUESTIONS_MAX;
		if (is_new)
			question = new_question(node, token, len, claims, now);
		if (is_new && question)
			append(queue, question);
	}
	if (question)
	{
		if (arrived > question->arrived)
			question->arrived = arrived;
		waiter->next = question->waiters;
		question->waiters = waiter;
		asker->waiters++;
	}
	else
		asker->refused++;
	if (is_new && question && !of_redis)
		pthread_cond_signal(&asker->wanted);
	pthread_mutex_unlock(&asker->lock);
	if (is_new && question && of_redis)
		follower_question_waits(node);
	return question != NULL;
}

static bool
postgres_may_be_asked(const Asker *asker, int64_t now)
{
	return asker->thread_count > 0 && breaker_would(&asker->breaker, now);
}

Question *
ask_take_for_redis(SessauthNode *node)
{
	Asker	   *asker = node->asker;
	Question   *question;

	pthread_mutex_lock(&asker->lock);
	question = ask_take(asker, &asker->redis);
	pthread_mutex_unlock(&asker->lock);
	return question;
}

void
ask_count_redis(SessauthNode *node)
{
	pthread_mutex_lock(&node->asker->lock);
	node->asker->asked_redis++;
	pthread_mutex_unlock(&node->asker->lock);
}

void
ask_postgres_instead(SessauthNode *node, Question *question)
{
	Asker	   *asker = node->asker;
	int64_t		now = clock_now();
	Question   *same = NULL;
	bool		queued = false;

	pthread_mutex_lock(&asker->lock);
	let_go(asker, question);
	if (!asker->stopping && now < question->deadline && postgres_may_be_asked(asker, now))
	{
		same = find(&asker->postgres, question->token, question->len);
		if (same)
			join(same, question);
		else if (asker->postgres.count < ASK_QUESTIONS_MAX)
		{
			append(&asker->postgres, question);
			queued = true;
			pthread_cond_signal(&asker->wanted);
		}
	}
	if (same == NULL && !queued)
		asker->refused++;
	pthread_mutex_unlock(&asker->lock);
	if (same)
		free_question(question);
	else if (!queued)
		ask_answer(node, question, SESSAUTH_CANNOT_TELL, SESSAUTH_SOURCE_REDIS, 0);
}

/* Everybody who waits for one question now waits for the other. */
static void
join(Question *into, Question *from)
{
	Waiter	  **last = &into->waiters;

	while (*last)
		last = &(*last)->next;
	*last = from->waiters;
	from->waiters = NULL;
	if (from->arrived > into->arrived)
		into->arrived = from->arrived;
}

static Question *
find(const QuestionQueue *queue, const char *token, size_t len)
{
	Question   *question = queue->first;

	while (question && (question->len != len || memcmp(question->token, token, len) != 0))
		question = question->next;
	return question;
}

static Question *
new_question(SessauthNode *node, const char *token, size_t len, const Claims *claims, int64_t now)
{
	Question   *question = malloc(sizeof(*question) + len + 1);

	if (question == NULL)
		return NULL;
	*question = (Question) {.deadline = now + node->ask_timeout, .claims = *claims, .len = len};
	memcpy(question->token, token, len);
	question->token[len] = '\0';
	return question;
}

static void
append(QuestionQueue *queue, Question *question)
{
	question->next = NULL;
	if (queue->last)
		queue->last->next = question;
	else
		queue->first = question;
	queue->last = question;
	queue->count++;
}

Question *
ask_take(Asker *asker, QuestionQueue *queue)
{
	Question   *question = queue->first;

	if (question)
	{
		queue->first = question->next;
		if (queue->first == NULL)
			queue->last = NULL;
		queue->count--;
		question->next = asker->held;
		asker->held = question;
	}
	return question;
}

/* With the lock held: from here on it is the caller's alone. */
static void
let_go(Asker *asker, Question *question)
{
	for (Question **link = &asker->held; *link; link = &(*link)->next)
	{
		if (*link == question)
		{
			*link = question->next;
			break;
		}
	}
	question->next = NULL;
}

void
ask_expire(SessauthNode *node)
{
	Asker	   *asker = node->asker;
	int64_t		now = clock_now();
	Question   *late = NULL;
	Question   *question;

	pthread_mutex_lock(&asker->lock);
	take_late(&asker->redis, now, &late);
	take_late(&asker->postgres, now, &late);
	for (question = asker->held; question; question = question->next)
	{
		Question   *instead;

		/* Who holds it will answer when he can, but then nobody waits for it any more. */
		if (question->waiters == NULL || now < question->deadline + HELD_GRACE_US ||
			(instead = new_question(node, question->token, question->len, &question->claims, now)) == NULL)
			continue;
		join(instead, question);
		instead->next = late;
		late = instead;
	}
	pthread_mutex_unlock(&asker->lock);
	while ((question = late) != NULL)
	{
		late = question->next;
		question->next = NULL;
		ask_answer(node, question, SESSAUTH_CANNOT_TELL, SESSAUTH_SOURCE_POSTGRES, 0);
	}
}

static void
take_late(QuestionQueue *queue, int64_t now, Question **late)
{
	Question   *rest = queue->first;

	*queue = (QuestionQueue) {0};
	while (rest)
	{
		Question   *question = rest;

		rest = question->next;
		if (now < question->deadline)
			append(queue, question);
		else
		{
			question->next = *late;
			*late = question;
		}
	}
}

void
ask_answer(SessauthNode *node, Question *question, SessauthCode verdict, SessauthSource source, int64_t since)
{
	Asker	   *asker = node->asker;
	SessauthDecision decision;
	Claims		claims;
	int			count = 0;

	pthread_mutex_lock(&asker->lock);
	let_go(asker, question);
	pthread_mutex_unlock(&asker->lock);
	(void) decide_token(node, question->token, question->len, question->arrived, &decision, &claims);
	if (decision.code == SESSAUTH_CANNOT_TELL)
	{
		/* Redis knows nothing of keys: when they have changed since the question went out, it cannot vouch for the signature. */
		if (verdict == SESSAUTH_ACTIVE && source == SESSAUTH_SOURCE_REDIS && decision.why != SESSAUTH_WHY_LEASE)
			verdict = SESSAUTH_CANNOT_TELL;
		decide_describe(&question->claims, &decision);
		decision.code = verdict;
		decision.why = SESSAUTH_WHY_NONE;
		if (verdict == SESSAUTH_ACTIVE && clock_now() >= since + node->max_staleness)
			decision.code = SESSAUTH_CANNOT_TELL;
		if (decision.code == SESSAUTH_CANNOT_TELL)
			decision.why = SESSAUTH_WHY_UNANSWERED;
		else
			decision.source = source;
	}
	while (question->waiters)
	{
		Waiter	   *waiter = question->waiters;

		question->waiters = waiter->next;
		waiter->answered(waiter->arg, &decision);
		free(waiter);
		count++;
	}
	free_question(question);
	pthread_mutex_lock(&asker->lock);
	asker->waiters -= count;
	pthread_mutex_unlock(&asker->lock);
}

static void
free_question(Question *question)
{
	sa_wipe(question->token, question->len);
	free(question);
}

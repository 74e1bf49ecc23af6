/*
 * ask.h
 *		What ask.c (questions), ask_redis.c and ask_postgres.c (asking) share.
 */
#ifndef SESSAUTH_NODE_ASK_H
#define SESSAUTH_NODE_ASK_H

#include "node/breaker.h"
#include "node/node.h"

#define ASK_CONNECTIONS_MAX	64
#define ASK_QUESTIONS_MAX	256		/* that wait for their turn, in each queue */
#define ASK_WAITERS_MAX		16384

typedef struct Waiter
{
	struct Waiter *next;
	void		(*answered) (void *arg, const SessauthDecision *decision);
	void	   *arg;
} Waiter;

/* One question about one token. Whoever wants to know the same before it is asked waits for its answer too. */
typedef struct Question
{
	struct Question *next;
	Waiter	   *waiters;
	int64_t		arrived;		/* the last of their requests */
	int64_t		deadline;
	Claims		claims;
	size_t		len;
	char		token[];		/* with a NUL */
} Question;

typedef struct QuestionQueue
{
	Question   *first;
	Question   *last;
	int			count;
} QuestionQueue;

struct Asker
{
	pthread_mutex_t lock;		/* guards everything below; taken last, and never while something is called */
	pthread_cond_t wanted;		/* by the threads: there is a question, or they shall end */
	bool		stopping;
	int			waiters;
	QuestionQueue redis;
	QuestionQueue postgres;
	Question   *held;			/* those that were taken out of a queue, and are not answered yet */
	Breaker		breaker;
	int64_t		asked_redis;
	int64_t		asked_postgres;
	int64_t		failures;
	int64_t		refused;

	/* fixed once started */
	pthread_t	threads[ASK_CONNECTIONS_MAX];
	int			thread_count;
	int			wake[2];		/* a pipe: written to when the threads shall stop waiting for PostgreSQL */
};

/* ask.c */
extern bool ask_start(SessauthNode *node);
extern void ask_stop(SessauthNode *node);	/* no question goes out any more, and the threads have ended */
extern void ask_free(SessauthNode *node);	/* after everything else that may hold a question: answers the rest */
extern void ask_status(SessauthNode *node, SessauthStatus *out);

/* The next question, to be given to ask_answer; NULL when there is none. With the lock held. */
extern Question *ask_take(Asker *asker, QuestionQueue *queue);

/* Answers those that nobody has answered in time: who was to ask may be held up, by a name server for one. */
extern void ask_expire(SessauthNode *node);

/*
 * Answers everybody who waits, and frees the question. SESSAUTH_CANNOT_TELL: nobody knew. What the verdict says of revocations was the
 * newest state at some time after "since" (clock_now's). Without the lock.
 */
extern void ask_answer(SessauthNode *node, Question *question, SessauthCode verdict, SessauthSource source, int64_t since);

/* For ask_redis.c: the next question, or NULL; and what Redis did not know, or nobody could ask it. */
extern Question *ask_take_for_redis(SessauthNode *node);
extern void ask_count_redis(SessauthNode *node);
extern void ask_postgres_instead(SessauthNode *node, Question *question);

/* ask_postgres.c */
extern bool ask_postgres_start(SessauthNode *node);
extern void ask_postgres_stop(SessauthNode *node);

#endif							/* SESSAUTH_NODE_ASK_H */

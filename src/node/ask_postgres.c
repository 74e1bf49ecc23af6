/*
 * ask_postgres.c
 *		Asks PostgreSQL about tokens: a few threads, each with a connection of its own.
 *
 * The thread is the connection's only user, so there is nothing to share but the queue. A connection is made for the first question and closed when
 * there has been none for a while. The token travels as a parameter, and is in no message.
 */
#include "node/ask.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/postgres.h"

#define IDLE_S			30

/* What a standby says is of the past, also where its administrator lets it answer (sessauth.standby_verify). */
#define QUESTION \
	"SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'cannot_tell' ELSE outcome END FROM sessauth.verify($1)"

static void *run(void *arg);
static bool wait_for_question(Asker *asker);
static bool ask(SessauthNode *node, PGconn **conn, const Question *question, SessauthCode *verdict, int64_t *since, char *why, size_t size);
static bool verdict_of(PGresult *rows, SessauthCode *verdict);
static void settle(SessauthNode *node, bool ok, const char *why);

bool
ask_postgres_start(SessauthNode *node)
{
	Asker	   *asker = node->asker;

	if (pipe2(asker->wake, O_CLOEXEC | O_NONBLOCK) != 0)
		return false;
	while (asker->thread_count < node->ask_connections)
	{
		if (!node_start_thread(&asker->threads[asker->thread_count], run, node))
			return false;
		asker->thread_count++;
	}
	return true;
}

void
ask_postgres_stop(SessauthNode *node)
{
	Asker	   *asker = node->asker;

	/* Nobody reads it: it stays readable for all of them. */
	if (asker->thread_count > 0 && write(asker->wake[1], "q", 1) == 1)
		while (asker->thread_count > 0)
			pthread_join(asker->threads[--asker->thread_count], NULL);
	if (asker->wake[1] > 0)
	{
		close(asker->wake[0]);
		close(asker->wake[1]);
	}
}

static void *
run(void *arg)
{
	SessauthNode *node = arg;
	Asker	   *asker = node->asker;
	PGconn	   *conn = NULL;
	Question   *question;

	pthread_mutex_lock(&asker->lock);
	while (!asker->stopping)
	{
		SessauthCode verdict = SESSAUTH_CANNOT_TELL;
		int64_t		since = 0;
		int64_t		now;
		char		why[256];
		bool		let_through;

		question = ask_take(asker, &asker->postgres);
		if (question == NULL)
		{
			if (!wait_for_question(asker) && conn)
			{
				pthread_mutex_unlock(&asker->lock);
				PQfinish(conn);
				conn = NULL;
				pthread_mutex_lock(&asker->lock);
			}
			continue;
		}
		now = clock_now();
		let_through = now < question->deadline && breaker_try(&asker->breaker, now);
		if (let_through)
			asker->asked_postgres++;
		else
			asker->refused++;
		pthread_mutex_unlock(&asker->lock);
		if (let_through)
			settle(node, ask(node, &conn, question, &verdict, &since, why, sizeof(why)), why);
		ask_answer(node, question, verdict, SESSAUTH_SOURCE_POSTGRES, since);
		pthread_mutex_lock(&asker->lock);
	}
	pthread_mutex_unlock(&asker->lock);
	PQfinish(conn);
	return NULL;
}

/* False when there was none for a while. With the lock held. */
static bool
wait_for_question(Asker *asker)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_S;
	while (asker->postgres.count == 0 && !asker->stopping)
		if (pthread_cond_timedwait(&asker->wanted, &asker->lock, &until) != 0)
			return false;
	return true;
}

/* False, and why, when there was no answer. */
static bool
ask(SessauthNode *node, PGconn **conn, const Question *question, SessauthCode *verdict, int64_t *since, char *why, size_t size)
{
	const char *parameters[] = {question->token};
	int			wake_fd = node->asker->wake[0];
	bool		used = *conn != NULL;
	bool		broken = false;
	PGresult   *rows = NULL;
	bool		ok;

	if (used)
	{
		*since = clock_now();
		rows = postgres_query(*conn, wake_fd, question->deadline, QUESTION, 1, parameters, &broken, why, size);
	}

	/* A connection that has been idle may have died with its server; that is no reason to fail. */
	if (!used || (rows == NULL && broken && clock_now() < question->deadline))
	{
		PQfinish(*conn);
		*conn = postgres_connect(node->pg_conninfo, wake_fd, question->deadline, why, size);
		if (*conn == NULL)
			return false;
		*since = clock_now();
		rows = postgres_query(*conn, wake_fd, question->deadline, QUESTION, 1, parameters, &broken, why, size);
	}

	ok = rows && verdict_of(rows, verdict);
	if (rows && !ok)
		snprintf(why, size, "PostgreSQL: it cannot tell; name the primary, or all hosts and target_session_attrs=read-write");
	PQclear(rows);

	/* One that has become a standby's leads nowhere; a new one may find the primary. */
	if (broken || (rows && !ok))
	{
		PQfinish(*conn);
		*conn = NULL;
	}
	return ok;
}

/* False for "cannot_tell", and for what this version does not know. */
static bool
verdict_of(PGresult *rows, SessauthCode *verdict)
{
	if (PQntuples(rows) != 1 || PQnfields(rows) != 1)
		return false;
	for (SessauthCode code = SESSAUTH_ACTIVE; code < SESSAUTH_CANNOT_TELL; code++)
		if (strcmp(PQgetvalue(rows, 0, 0), sessauth_code_name(code)) == 0)
		{
			*verdict = code;
			return true;
		}
	return false;
}

/* Tells the breaker, and the log when PostgreSQL is given up or comes back. */
static void
settle(SessauthNode *node, bool ok, const char *why)
{
	Asker	   *asker = node->asker;
	BreakerState before;
	BreakerState after;
	uint32_t	chance = 0;
	bool		first;
	bool		stopping;

	(void) sa_random(&chance, sizeof(chance));
	pthread_mutex_lock(&asker->lock);
	before = asker->breaker.state;
	stopping = asker->stopping;
	if (ok)
		breaker_succeeded(&asker->breaker);
	else
	{
		asker->failures++;
		breaker_failed(&asker->breaker, clock_now(), chance);
	}
	after = asker->breaker.state;
	first = before == BREAKER_CLOSED;
	pthread_mutex_unlock(&asker->lock);
	if (stopping || before == after)
		return;
	if (after == BREAKER_CLOSED)
		node_log(node, SESSAUTH_LOG_INFO, "PostgreSQL answers questions about tokens again");
	else if (first)
		node_log(node, SESSAUTH_LOG_WARNING, "questions about tokens: %s; it is left alone for a while", why);
}

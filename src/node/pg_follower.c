/*
 * pg_follower.c
 *		Keeps the node's memory equal to the ledger's revocations, over PostgreSQL.
 *
 * One connection, on which the node calls sessauth.lease(): at once when a notification says that there may be news, at once again to
 * acknowledge what a call has brought, and otherwise often enough that the lease does not run out by itself. A notification is no
 * more than a hint: lost ones cost time, made-up ones cost a call. In a thread of its own, because libpq's resolver blocks.
 */
#include "node/pg_follower.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/apply.h"
#include "node/pg_lease.h"
#include "node/postgres.h"

#define CONNECT_US		3000000
#define CALL_EACH_US	1000000 /* at least, and three times in max_staleness */
#define CALL_PAUSE_US	10000	/* between two: a storm of notifications must not become one of calls */
#define BACKOFF_FIRST_US	50000
#define BACKOFF_MAX_US	2000000
#define GOODBYE_US		500000

struct PgFollower
{
	SessauthNode *node;
	pthread_t	thread;
	bool		running;
	int			pipe[2];		/* written to end the thread, and never read */
	atomic_bool stopping;
	PGconn	   *conn;
	PgCursor	cursor;
	int64_t		backoff;
	bool		complained;		/* of this outage */
};

static void *run(void *arg);
static int64_t call(PgFollower *follower);
static bool connect_to(PgFollower *follower, char *why, size_t size);
static int64_t failed(PgFollower *follower, const char *why);
static void recovered(PgFollower *follower);
static bool wait_until(PgFollower *follower, int64_t begun, int64_t due);
static bool take_notifications(PGconn *conn);
static void disconnect(PgFollower *follower);

bool
pg_follower_start(SessauthNode *node)
{
	PgFollower *follower = calloc(1, sizeof(*follower));

	if (follower == NULL)
		return false;
	follower->node = node;
	node->pg_follower = follower;
	snprintf(node->pg_state, sizeof(node->pg_state), "PostgreSQL: not connected yet");
	if (pipe2(follower->pipe, O_CLOEXEC | O_NONBLOCK) != 0)
	{
		follower->pipe[0] = follower->pipe[1] = -1;
		return false;
	}
	follower->running = node_start_thread(&follower->thread, run, follower);
	return follower->running;
}

void
pg_follower_stop(SessauthNode *node)
{
	PgFollower *follower = node->pg_follower;

	if (follower == NULL)
		return;
	atomic_store(&follower->stopping, true);
	if (follower->running && write(follower->pipe[1], "q", 1) == 1)
		pthread_join(follower->thread, NULL);
	if (follower->pipe[0] >= 0)
	{
		close(follower->pipe[0]);
		close(follower->pipe[1]);
	}
	free(follower);
	node->pg_follower = NULL;
}

static void *
run(void *arg)
{
	PgFollower *follower = arg;
	int64_t		begun;

	do
		begun = clock_now();
	while (wait_until(follower, begun, call(follower)));

	/* The lease goes first: whoever reads that the node is gone may rely on it. */
	apply_drop_lease(follower->node);
	if (follower->conn)
		pg_lease_end(follower->node, follower->conn, clock_now() + GOODBYE_US);
	disconnect(follower);
	return NULL;
}

/* Returns when to call again. */
static int64_t
call(PgFollower *follower)
{
	SessauthNode *node = follower->node;
	int64_t		each = node->max_staleness / 3 < CALL_EACH_US ? node->max_staleness / 3 : CALL_EACH_US;
	int64_t		begun = clock_now();
	char		why[200] = "";
	PgOutcome	outcome;

	if (follower->conn == NULL && !connect_to(follower, why, sizeof(why)))
		return failed(follower, why);
	outcome = pg_lease_call(node, follower->conn, follower->pipe[0], &follower->cursor, why, sizeof(why));
	if (outcome.granted)
		recovered(follower);
	if (outcome.advanced)
		return begun + CALL_PAUSE_US;
	if (outcome.granted)
		return begun + each;
	if (outcome.broken && !atomic_load(&follower->stopping))
		disconnect(follower);	/* else there is somebody to say goodbye to */
	return failed(follower, why);
}

/* What is revoked after LISTEN is notified; what was before, the first call tells. */
static bool
connect_to(PgFollower *follower, char *why, size_t size)
{
	SessauthNode *node = follower->node;
	int			wake = follower->pipe[0];
	bool		broken;
	PGresult   *result;

	follower->conn = postgres_connect(node->pg_conninfo, wake, clock_now() + CONNECT_US, why, size);
	if (follower->conn == NULL)
		return false;
	result = postgres_query(follower->conn, wake, clock_now() + CONNECT_US, "SELECT pg_catalog.pg_is_in_recovery()", 0, NULL, &broken,
							why, size);
	if (result && strcmp(PQgetvalue(result, 0, 0), "f") == 0)
	{
		PQclear(result);
		result = postgres_query(follower->conn, wake, clock_now() + CONNECT_US, "LISTEN sessauth_revocation", 0, NULL, &broken, why, size);
		if (result)
		{
			PQclear(result);
			many_readers_write(&node->known_lock);
			node->pg_connects++;
			many_readers_end_write(&node->known_lock);
			return true;
		}
	}
	else if (result)
	{
		PQclear(result);
		snprintf(why, size, "PostgreSQL: it is a standby, which gives no leases; name the primary, or all hosts and "
				 "target_session_attrs=read-write");
	}
	disconnect(follower);
	return false;
}

/* Returns when to try again. The first reason of an outage is logged; the last one is what the node's status says. */
static int64_t
failed(PgFollower *follower, const char *why)
{
	SessauthNode *node = follower->node;
	uint32_t	jitter = 0;
	char		text[sizeof(node->pg_state)];
	int64_t		now = clock_now();

	follower->backoff = follower->backoff == 0 ? BACKOFF_FIRST_US :
		follower->backoff * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : follower->backoff * 2;
	(void) sa_random(&jitter, sizeof(jitter));
	if (!atomic_load(&follower->stopping))
	{
		snprintf(text, sizeof(text), "%s", why);
		node_clean(text);
		many_readers_write(&node->known_lock);
		memcpy(node->pg_state, text, sizeof(text));
		many_readers_end_write(&node->known_lock);
		if (!follower->complained)
			node_log(node, SESSAUTH_LOG_WARNING, "%s", text);
		follower->complained = true;
	}
	return now + follower->backoff / 2 + jitter % (follower->backoff / 2);
}

static void
recovered(PgFollower *follower)
{
	SessauthNode *node = follower->node;

	follower->backoff = 0;
	follower->complained = false;
	if (node->pg_state[0] == '\0')	/* nobody else writes it */
		return;
	many_readers_write(&node->known_lock);
	node->pg_state[0] = '\0';
	many_readers_end_write(&node->known_lock);
	node_log(node, SESSAUTH_LOG_INFO, "following PostgreSQL");
}

/* Until then, or until a notification that came later than the last call. False when the thread has to end. */
static bool
wait_until(PgFollower *follower, int64_t begun, int64_t due)
{
	while (!atomic_load(&follower->stopping))
	{
		struct pollfd fds[2] = {{.fd = follower->pipe[0], .events = POLLIN}, {.fd = -1, .events = POLLIN}};
		int64_t		left;

		/* A ledger that refuses is not asked more often for them. */
		if (follower->conn && take_notifications(follower->conn) && follower->backoff == 0 && due > begun + CALL_PAUSE_US)
			due = begun + CALL_PAUSE_US;
		left = due - clock_now();
		if (left <= 0)
			return true;
		if (follower->conn)
			fds[1].fd = PQsocket(follower->conn);
		if (poll(fds, 2, (int) ((left + 999) / 1000)) < 0 && errno != EINTR)
			return true;
		if (fds[1].revents && !PQconsumeInput(follower->conn))
		{
			disconnect(follower);
			due = failed(follower, "PostgreSQL: the connection was lost");
		}
	}
	return false;
}

/* True when there were any. */
static bool
take_notifications(PGconn *conn)
{
	PGnotify   *notification;
	bool		any = false;

	while ((notification = PQnotifies(conn)) != NULL)
	{
		PQfreemem(notification);
		any = true;
	}
	return any;
}

static void
disconnect(PgFollower *follower)
{
	PQfinish(follower->conn);
	follower->conn = NULL;
}

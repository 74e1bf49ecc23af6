/*
 * postgres.c
 *		What the keys' thread asks PostgreSQL, through libpq's asynchronous calls.
 *
 * Of libpq only the resolver can block longer than the deadlines here.
 */
#include "node/postgres.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "node/clock.h"

#define CONNECT_US		3000000
#define QUERY_US		3000000 /* for each statement */

static bool fetch(PGconn *conn, int wake_fd, char **jwks, char *link_key, size_t link_key_size, char *why, size_t size);
static PGconn *connect_to(const char *conninfo, int wake_fd, char *why, size_t size);
static char *ask_for(PGconn *conn, int wake_fd, const char *statement, char *why, size_t size);
static bool wait_for(PGconn *conn, int wake_fd, short events, int64_t deadline);
static void ignore_notice(void *arg, const PGresult *result);
static void explain(char *why, size_t size, const char *message);

bool
postgres_conninfo_valid(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &error);
	bool		valid = options != NULL;

	PQconninfoFree(options);
	if (error)
		PQfreemem(error);
	return valid;
}

bool
postgres_keys(Postgres **postgres, const char *conninfo, int wake_fd, char **jwks, char *link_key, size_t link_key_size,
			  char *why, size_t size)
{
	/* A connection that has been idle may have died with its server; that is no reason to fail. */
	if (*postgres)
	{
		if (fetch(*postgres, wake_fd, jwks, link_key, link_key_size, why, size))
			return true;
		PQfinish(*postgres);
	}
	*postgres = connect_to(conninfo, wake_fd, why, size);
	if (*postgres == NULL)
		return false;
	if (fetch(*postgres, wake_fd, jwks, link_key, link_key_size, why, size))
		return true;
	PQfinish(*postgres);
	*postgres = NULL;
	return false;
}

void
postgres_close(Postgres *postgres)
{
	if (postgres)
		PQfinish(postgres);
}

static bool
fetch(PGconn *conn, int wake_fd, char **jwks, char *link_key, size_t link_key_size, char *why, size_t size)
{
	char	   *text;

	if (link_key)
	{
		text = ask_for(conn, wake_fd, "SELECT pg_catalog.encode(sessauth.link_key(), 'hex')", why, size);
		if (text == NULL)
			return false;
		snprintf(link_key, link_key_size, "%s", text);
		sa_wipe(text, strlen(text));
		free(text);
	}
	if (jwks)
	{
		/* A standby may lag behind: by its keys, a token of a new key would look forged. */
		*jwks = ask_for(conn, wake_fd, "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN sessauth.jwks() END", why, size);
		if (*jwks == NULL)
			return false;
	}
	return true;
}

static PGconn *
connect_to(const char *conninfo, int wake_fd, char *why, size_t size)
{
	const char *names[] = {"fallback_application_name", "dbname", NULL};
	const char *values[] = {"sessauth node", conninfo, NULL};
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	int64_t		deadline = clock_now() + CONNECT_US;
	PGconn	   *conn = PQconnectStartParams(names, values, 1);

	if (conn == NULL)
	{
		snprintf(why, size, "out of memory");
		return NULL;
	}
	PQsetNoticeReceiver(conn, ignore_notice, NULL);
	while (PQstatus(conn) != CONNECTION_BAD && status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		if (!wait_for(conn, wake_fd, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
		{
			snprintf(why, size, "PostgreSQL: timeout while connecting");
			PQfinish(conn);
			return NULL;
		}
		status = PQconnectPoll(conn);
	}
	if (status == PGRES_POLLING_OK && PQsetnonblocking(conn, 1) == 0)
		return conn;
	explain(why, size, PQerrorMessage(conn));
	PQfinish(conn);
	return NULL;
}

/* One value as text, malloc'ed; NULL and why when there is none. */
static char *
ask_for(PGconn *conn, int wake_fd, const char *statement, char *why, size_t size)
{
	int64_t		deadline = clock_now() + QUERY_US;
	char	   *text = NULL;
	int			unsent;

	if (!PQsendQuery(conn, statement))
	{
		explain(why, size, PQerrorMessage(conn));
		return NULL;
	}
	snprintf(why, size, "PostgreSQL: no answer in time");
	while ((unsent = PQflush(conn)) == 1)
	{
		if (!wait_for(conn, wake_fd, POLLIN | POLLOUT, deadline) || !PQconsumeInput(conn))
			goto failed;
	}
	for (;;)
	{
		PGresult   *result;

		/* PQgetResult waits without a limit unless asked only when it need not. */
		while (unsent == 0 && PQisBusy(conn))
		{
			if (!wait_for(conn, wake_fd, POLLIN, deadline))
				goto failed;
			if (!PQconsumeInput(conn))
			{
				explain(why, size, PQerrorMessage(conn));
				goto failed;
			}
		}
		result = PQgetResult(conn);
		if (result == NULL)
			break;
		if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0) && text == NULL)
			text = strdup(PQgetvalue(result, 0, 0));
		else if (text == NULL)
			explain(why, size, PQresultStatus(result) != PGRES_TUPLES_OK ? PQresultErrorMessage(result) :
					"it is a standby, whose keys may be old; name the primary, or all hosts and target_session_attrs=read-write");
		PQclear(result);
	}
	return text;

failed:
	if (text)
		sa_wipe(text, strlen(text));
	free(text);
	return NULL;
}

/* False when the deadline is over or somebody wants the thread to end. */
static bool
wait_for(PGconn *conn, int wake_fd, short events, int64_t deadline)
{
	struct pollfd fds[2] = {{.fd = PQsocket(conn), .events = events}, {.fd = wake_fd, .events = POLLIN}};

	for (;;)
	{
		int64_t		left = deadline - clock_now();
		int			n;

		if (left <= 0)
			return false;
		n = poll(fds, 2, (int) (left / 1000) + 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || fds[1].revents)
			return false;
		if (fds[0].revents)
			return true;
	}
}

/* libpq's own would print it. */
static void
ignore_notice(void *arg, const PGresult *result)
{
	(void) arg;
	(void) result;
}

/* The first line of a message of libpq's. */
static void
explain(char *why, size_t size, const char *message)
{
	int			len = (int) strcspn(message, "\r\n");

	snprintf(why, size, "PostgreSQL: %.*s", len, len > 0 ? message : "");
	for (char *c = why; *c; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			*c = '?';
	}
}

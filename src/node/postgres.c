/*
 * postgres.c
 *		Talking to PostgreSQL through libpq's asynchronous calls. See postgres.h.
 */
#include "node/postgres.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "node/clock.h"
#include "node/pg_hosts.h"

static PGconn *connect_to_host(const char *conninfo, const PgHost *host, int wake_fd, int64_t deadline, char *why, size_t size);
static bool is_woken(int wake_fd);
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

PGconn *
postgres_connect(const char *conninfo, int wake_fd, int64_t deadline, char *why, size_t size)
{
	int			count = pg_hosts_count(conninfo);
	PGconn	   *conn = NULL;

	/* Each has an equal part of what the ones before it have left. */
	for (int i = 0; i < count && conn == NULL && (i == 0 || !is_woken(wake_fd)); i++)
	{
		int64_t		now = clock_now();
		PgHost		host;

		if (count > 1 && !pg_hosts_get(conninfo, i, &host))
			snprintf(why, size, "PostgreSQL: the name of a host is too long");
		else
			conn = connect_to_host(conninfo, count > 1 ? &host : NULL, wake_fd, now + (deadline - now) / (count - i), why, size);
	}
	return conn;
}

/* NULL: to whatever the conninfo says. */
static PGconn *
connect_to_host(const char *conninfo, const PgHost *host, int wake_fd, int64_t deadline, char *why, size_t size)
{
	/*
	 * What stands before dbname, the conninfo may change, and what stands behind it changes the conninfo. A server that is gone without a word
	 * is noticed in half a minute.
	 */
	const char *names[] = {
		"fallback_application_name", "keepalives_idle", "keepalives_interval", "keepalives_count", "dbname", "client_encoding",
		host ? "host" : NULL, "hostaddr", "port", NULL
	};
	const char *values[] = {
		"sessauth node", "10", "5", "4", conninfo, "UTF8", host ? host->host : NULL, host ? host->hostaddr : NULL, host ? host->port : NULL
	};
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	PGconn	   *conn = PQconnectStartParams(names, values, 1);

	if (conn == NULL)
	{
		snprintf(why, size, "out of memory");
		return NULL;
	}
	PQsetNoticeReceiver(conn, ignore_notice, NULL);
	while (PQstatus(conn) != CONNECTION_BAD && status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		if (!postgres_wait(conn, wake_fd, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
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

static bool
is_woken(int wake_fd)
{
	struct pollfd fd = {.fd = wake_fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

PGresult *
postgres_query(PGconn *conn, int wake_fd, int64_t deadline, const char *statement, int count, const char *const *parameters,
			   bool *broken, char *why, size_t size)
{
	*broken = true;
	if (!postgres_send(conn, wake_fd, deadline, statement, count, parameters, false, why, size))
		return NULL;
	return postgres_receive(conn, wake_fd, deadline, broken, why, size);
}

bool
postgres_send(PGconn *conn, int wake_fd, int64_t deadline, const char *statement, int count, const char *const *parameters,
			  bool binary, char *why, size_t size)
{
	int			unsent;

	if (!PQsendQueryParams(conn, statement, count, NULL, parameters, NULL, NULL, binary))
	{
		explain(why, size, PQerrorMessage(conn));
		return false;
	}
	snprintf(why, size, "PostgreSQL: no answer in time");
	while ((unsent = PQflush(conn)) == 1)
	{
		if (!postgres_wait(conn, wake_fd, POLLIN | POLLOUT, deadline) || !PQconsumeInput(conn))
			return false;
	}
	if (unsent != 0)
		explain(why, size, PQerrorMessage(conn));
	return unsent == 0;
}

PGresult *
postgres_receive(PGconn *conn, int wake_fd, int64_t deadline, bool *broken, char *why, size_t size)
{
	PGresult   *rows = NULL;

	*broken = true;
	snprintf(why, size, "PostgreSQL: no answer in time");
	for (;;)
	{
		PGresult   *result;

		/* PQgetResult waits without a limit unless asked only when it need not. */
		while (PQisBusy(conn))
		{
			if (!postgres_wait(conn, wake_fd, POLLIN, deadline))
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
		if ((PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK) && rows == NULL)
			rows = result;
		else
		{
			if (rows == NULL)
				explain(why, size, PQresultErrorMessage(result));
			PQclear(result);
		}
	}
	*broken = PQstatus(conn) != CONNECTION_OK;
	return rows;

failed:
	PQclear(rows);
	return NULL;
}

bool
postgres_drain(PGconn *conn, int64_t deadline)
{
	for (;;)
	{
		PGresult   *result;

		while (PQisBusy(conn))
		{
			if (PQflush(conn) < 0 || !postgres_wait(conn, -1, POLLIN, deadline) || !PQconsumeInput(conn))
				return false;
		}
		result = PQgetResult(conn);
		if (result == NULL)
			return PQstatus(conn) == CONNECTION_OK;
		PQclear(result);
	}
}

bool
postgres_wait(PGconn *conn, int wake_fd, short events, int64_t deadline)
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

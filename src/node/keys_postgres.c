/*
 * keys_postgres.c
 *		What the keys' thread asks PostgreSQL.
 */
#include "node/keys_postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "node/clock.h"

#define CONNECT_US		3000000
#define QUERY_US		3000000 /* for each statement */

static bool fetch(PGconn *conn, int wake_fd, char **jwks, char *link_key, size_t link_key_size, char *why, size_t size);
static char *value_of(PGconn *conn, int wake_fd, const char *statement, char *why, size_t size);

bool
keys_fetch(PGconn **conn, const char *conninfo, int wake_fd, char **jwks, char *link_key, size_t link_key_size, char *why, size_t size)
{
	/* A connection that has been idle may have died with its server; that is no reason to fail. */
	if (*conn)
	{
		if (fetch(*conn, wake_fd, jwks, link_key, link_key_size, why, size))
			return true;
		PQfinish(*conn);
	}
	*conn = postgres_connect(conninfo, wake_fd, clock_now() + CONNECT_US, why, size);
	if (*conn == NULL)
		return false;
	if (fetch(*conn, wake_fd, jwks, link_key, link_key_size, why, size))
		return true;
	PQfinish(*conn);
	*conn = NULL;
	return false;
}

static bool
fetch(PGconn *conn, int wake_fd, char **jwks, char *link_key, size_t link_key_size, char *why, size_t size)
{
	char	   *text;

	if (link_key)
	{
		text = value_of(conn, wake_fd, "SELECT pg_catalog.encode(sessauth.link_key(), 'hex')", why, size);
		if (text == NULL)
			return false;
		snprintf(link_key, link_key_size, "%s", text);
		sa_wipe(text, strlen(text));
		free(text);
	}
	if (jwks)
	{
		/* A standby may lag behind: by its keys, a token of a new key would look forged. */
		*jwks = value_of(conn, wake_fd, "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN sessauth.jwks() END", why, size);
		if (*jwks == NULL)
			return false;
	}
	return true;
}

/* One value as text, malloc'ed; NULL and why when there is none. */
static char *
value_of(PGconn *conn, int wake_fd, const char *statement, char *why, size_t size)
{
	bool		broken;
	PGresult   *rows = postgres_query(conn, wake_fd, clock_now() + QUERY_US, statement, 0, NULL, &broken, why, size);
	char	   *text = NULL;

	if (rows && PQntuples(rows) == 1 && !PQgetisnull(rows, 0, 0))
		text = strdup(PQgetvalue(rows, 0, 0));
	else if (rows)
		snprintf(why, size, "PostgreSQL: it is a standby, whose keys may be old; name the primary, or all hosts and "
				 "target_session_attrs=read-write");
	PQclear(rows);
	return text;
}

/*
 * postgres.h
 *		What the keys' thread asks PostgreSQL. Nothing here waits longer than its
 *		deadlines, nor after wake_fd has become readable.
 */
#ifndef SESSAUTH_NODE_POSTGRES_H
#define SESSAUTH_NODE_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>

typedef struct pg_conn Postgres;	/* libpq's PGconn */

/* False when libpq cannot read the text at all. Nothing of it is repeated: it may hold a password. */
extern bool postgres_conninfo_valid(const char *conninfo);

/*
 * Fetches the JWK set (malloc'ed) and the link key (hex) where these are not NULL. *postgres is the connection, kept
 * for the next time; NULL: none. On failure false, and why says it in one line; the connection is closed then.
 */
extern bool postgres_keys(Postgres **postgres, const char *conninfo, int wake_fd, char **jwks, char *link_key,
						  size_t link_key_size, char *why, size_t size);

extern void postgres_close(Postgres *postgres); /* NULL is fine */

#endif							/* SESSAUTH_NODE_POSTGRES_H */

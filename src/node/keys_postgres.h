/*
 * keys_postgres.h
 *		The signing keys and the link key, from PostgreSQL.
 */
#ifndef SESSAUTH_NODE_KEYS_POSTGRES_H
#define SESSAUTH_NODE_KEYS_POSTGRES_H

#include "node/postgres.h"

/*
 * Fetches the JWK set (malloc'ed) and the link key (hex) where these are not NULL. *conn is the connection, kept
 * for the next time; NULL: none. On failure false, and why says it in one line; the connection is closed then.
 */
extern bool keys_fetch(PGconn **conn, const char *conninfo, int wake_fd, char **jwks, char *link_key, size_t link_key_size,
					   char *why, size_t size);

#endif							/* SESSAUTH_NODE_KEYS_POSTGRES_H */

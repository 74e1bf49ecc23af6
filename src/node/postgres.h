/*
 * postgres.h
 *		Talking to PostgreSQL through libpq's asynchronous calls.
 *
 * Nothing here waits beyond its deadline (of clock_now), nor after wake_fd has become readable; only libpq's resolver can block
 * longer. A failure is told in why, as one line without secrets.
 */
#ifndef SESSAUTH_NODE_POSTGRES_H
#define SESSAUTH_NODE_POSTGRES_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False when libpq cannot read the text at all. Nothing of it is repeated: it may hold a password. */
extern bool postgres_conninfo_valid(const char *conninfo);

/* A new connection, to be given to PQfinish; NULL and why when there is none. */
extern PGconn *postgres_connect(const char *conninfo, int wake_fd, int64_t deadline, char *why, size_t size);

/*
 * One statement with text parameters. The result is PGRES_TUPLES_OK or PGRES_COMMAND_OK, and to be given to PQclear; otherwise NULL and why. When
 * *broken is set, the connection is of no more use: it is lost, or still busy with the statement.
 */
extern PGresult *postgres_query(PGconn *conn, int wake_fd, int64_t deadline, const char *statement, int count,
								const char *const *parameters, bool *broken, char *why, size_t size);

/* The same in two steps, with other work between them; the values of a binary result are as the server has them. False and why: as *broken. */
extern bool postgres_send(PGconn *conn, int wake_fd, int64_t deadline, const char *statement, int count,
						  const char *const *parameters, bool binary, char *why, size_t size);
extern PGresult *postgres_receive(PGconn *conn, int wake_fd, int64_t deadline, bool *broken, char *why, size_t size);

/* Waits for the end of a statement whose answer nobody wants any more. False: the connection is of no more use. */
extern bool postgres_drain(PGconn *conn, int64_t deadline);

/* Waits for poll's events on the connection. False when the deadline is over or wake_fd is readable. */
extern bool postgres_wait(PGconn *conn, int wake_fd, short events, int64_t deadline);

#endif							/* SESSAUTH_NODE_POSTGRES_H */

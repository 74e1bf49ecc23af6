/*
 * pg_lease.h
 *		One call of sessauth.lease(), from the claim to what came of it.
 */
#ifndef SESSAUTH_NODE_PG_LEASE_H
#define SESSAUTH_NODE_PG_LEASE_H

#include "node/node.h"
#include "node/postgres.h"

/* How far a node that has not joined the ledger's generation yet has come in it. */
typedef struct PgCursor
{
	char		g[SA_UUID_SIZE];	/* empty: nowhere */
	int64_t		n;
} PgCursor;

typedef struct PgOutcome
{
	bool		granted;
	bool		advanced;		/* the node can claim more than before: call again */
	bool		broken;			/* the connection is of no more use */
} PgOutcome;

/* When neither granted nor advanced, why says what is wrong, in one line. */
extern PgOutcome pg_lease_call(SessauthNode *node, PGconn *conn, int wake_fd, PgCursor *cursor, char *why, size_t size);

/* Tells the ledger that the node is gone, which may no longer rely on a lease of it. Waits until the deadline at most. */
extern void pg_lease_end(SessauthNode *node, PGconn *conn, int64_t deadline);

#endif							/* SESSAUTH_NODE_PG_LEASE_H */

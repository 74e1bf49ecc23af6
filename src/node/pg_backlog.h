/*
 * pg_backlog.h
 *		What a node lacks, by the ten thousand, over PostgreSQL.
 */
#ifndef SESSAUTH_NODE_PG_BACKLOG_H
#define SESSAUTH_NODE_PG_BACKLOG_H

#include "node/pg_lease.h"

/*
 * Applies what the ledger has numbered in the cursor's generation after it, and moves the cursor with it; as far as it comes. It proves
 * nothing: whether that was all, the next call of the lease says. *broken as postgres_query has it.
 */
extern void pg_backlog_read(SessauthNode *node, PGconn *conn, int wake_fd, PgCursor *cursor, bool *broken);

#endif							/* SESSAUTH_NODE_PG_BACKLOG_H */

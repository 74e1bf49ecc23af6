/*
 * pg_follower.h
 *		The transport over PostgreSQL.
 */
#ifndef SESSAUTH_NODE_PG_FOLLOWER_H
#define SESSAUTH_NODE_PG_FOLLOWER_H

#include "node/node.h"

extern bool pg_follower_start(SessauthNode *node);

/* Drops the lease, tells the ledger so (for at most half a second), and ends the thread. Nothing when there is none. */
extern void pg_follower_stop(SessauthNode *node);

#endif							/* SESSAUTH_NODE_PG_FOLLOWER_H */

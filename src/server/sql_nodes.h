/*
 * sql_nodes.h
 *		The nodes that get their leases over SQL.
 *
 * They are entered here by the backends that give the leases (ledger/lease.c), and read by the worker, who decides on
 * receipts (worker/receipts.c). Shared memory is as durable as that needs: it is lost only together with the worker, and a
 * worker that begins confirms nothing before the longest lease is over.
 */
#ifndef SESSAUTH_SERVER_SQL_NODES_H
#define SESSAUTH_SERVER_SQL_NODES_H

#include "datatype/timestamp.h"

#include "core/wire.h"
#include "server/lease_book.h"

/* Stands for them in receipt_state, beside the names of mirrors; no mirror can have that name. */
#define RECEIPTS_OVER_SQL	"*"

typedef struct SqlNodeKey		/* zeroes behind the name */
{
	Oid			database;
	char		node[SA_NODE_ID_SIZE];
} SqlNodeKey;

typedef struct SqlNode
{
	SqlNodeKey	key;
	LeaseBook	book;
	uint64		calls;
	int64		pending_until;	/* ms of clock_boot(): the last call is under way, and may give a lease that lacks everything */
	int64		stray_until;	/* the same of calls that another has overtaken */
	int64		behind;			/* when it last called */
	int64		max_staleness;	/* ms */
	int64		seen;			/* ms of clock_boot(), and */
	TimestampTz seen_at;		/* the same for people: its last call */
} SqlNode;

/*
 * A call begins: before its snapshot is taken. Enters the node, and what it has applied (an empty g: nothing). Returns what to
 * give to sql_node_answered, 0 when there are sessauth.max_nodes of them. *advanced: it has applied more than it had.
 */
extern uint64 sql_node_asks(const char *node, const char *g, int64 n, int64 max_staleness, bool *advanced);

/* Its result is complete: what is in g up to n. "behind": how much of that it had not. Without this the node counts as one that lacks everything. */
extern void sql_node_answered(const char *node, uint64 call, const char *g, int64 n, int64 behind);

/* Its result gives no lease. */
extern void sql_node_refused(const char *node, uint64 call);

/* It has dropped its lease. False when it is not known. */
extern bool sql_node_gone(const char *node);

/* In the worker: the highest number of g, which ends with "latest", that no such node of this database holds back. Forgets who is silent for long. */
extern int64 sql_nodes_held_back_from(const char *g, int64 latest);

/* One has claimed to know more than there is; and for the worker, whether that has happened since it last asked. */
extern void sql_node_is_ahead(void);
extern bool sql_nodes_were_ahead(void);

/* This database has some. */
extern bool sql_nodes_exist(void);

/* A copy of those of this database, palloc'ed; returns how many. */
extern int	sql_nodes_copy(SqlNode **out);

#endif							/* SESSAUTH_SERVER_SQL_NODES_H */

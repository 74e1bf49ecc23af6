/*
 * shmem.h
 *		Shared memory: which worker serves which database, and what DBAs see of it.
 *
 * Everything is protected by shared->lock unless it says otherwise. Losing it, with the server, loses wake-ups and statistics; what aborts have handed
 * over (handover.h says what that means); and who holds a lease, which is why a worker that begins waits for the longest one.
 */
#ifndef SESSAUTH_SERVER_SHMEM_H
#define SESSAUTH_SERVER_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#include "core/wire.h"
#include "server/handover.h"
#include "server/sql_nodes.h"

#define SLOTS_MAX			64	/* databases with a worker */
#define MIRROR_STATUS_MAX	128 /* mirrors, all databases together */
#define HOLDS_MAX			32	/* databases that a statement wants for itself */
#define STATUS_TEXT			256
#define RECONCILE_COUNTS	5	/* checked, missing, stale, foreign, ahead */

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_STARTING,				/* the launcher has asked for a worker */
	SLOT_RUNNING,
	SLOT_ABSENT,				/* the worker found no extension, and ended */
	SLOT_FAILED					/* the worker ended by an error */
} SlotState;

typedef struct WorkerSlot
{
	/* Atomic, for commits, which take no lock: whom to wake for which database; 0 while no worker runs. */
	pg_atomic_uint32 wake_database;
	pg_atomic_uint32 wake_process;	/* its process number */

	Oid			database;
	SlotState	state;
	pid_t		pid;
	bool		stop;			/* the worker is asked to end */
	bool		unsettled;		/* it does not know yet who holds a lease: receipts.c */
	bool		node_ahead;		/* a node over SQL knows more than the ledger: worker.c */
} WorkerSlot;

typedef struct MirrorStatus
{
	Oid			database;		/* InvalidOid: free */
	char		name[64];
	char		state[16];
	char		generation[SA_UUID_SIZE];
	int64		n;
	int64		behind;			/* entries of the revocation log not yet in the mirror */
	TimestampTz last_beat_at;	/* 0: never, as the next two */
	TimestampTz synced_at;
	TimestampTz error_at;
	char		error[STATUS_TEXT];
	char		warning[STATUS_TEXT];

	/* The comparison under way, and the last one that came to its end. */
	const char *reconcile_phase;	/* a constant of the library; NULL: none is under way */
	int64		reconcile_checked;
	TimestampTz reconciled_at;	/* 0: never */
	int64		found[RECONCILE_COUNTS];
} MirrorStatus;

typedef struct NodeStatusKey	/* zeroes behind the names */
{
	Oid			database;
	char		mirror[64];
	char		node[SA_NODE_ID_SIZE];
} NodeStatusKey;

typedef struct NodeStatus
{
	NodeStatusKey key;
	char		generation[SA_UUID_SIZE];
	int64		n;
	int64		behind;
	int64		max_staleness;	/* ms */
	bool		refused;		/* asks for more than sessauth.max_lease */
	TimestampTz seen_at;		/* when its last new nonce was read */
} NodeStatus;

typedef struct SharedState
{
	LWLock	   *lock;
	pg_atomic_uint64 clock_offset;	/* atomic; clock.c */
	pid_t		launcher_pid;
	Latch	   *launcher_latch; /* in the PGPROC array, so never dangling; NULL while there is none */
	bool		probe_all;		/* look again at every database */
	Oid			probe[SLOTS_MAX];	/* look again at these; InvalidOid: free */
	struct
	{
		Oid			database;	/* InvalidOid: free */
		pid_t		holder;
	}			holds[HOLDS_MAX];
	WorkerSlot	slots[SLOTS_MAX];
	MirrorStatus mirrors[MIRROR_STATUS_MAX];
	Handover	handover[HANDOVER_MAX];
	HandoverLoss losses[HANDOVER_LOSSES];
	ConditionVariable receipts; /* some revocation is known everywhere now */
} SharedState;

/* NULL until the postmaster has set it up: the library was not preloaded. */
extern SharedState *shared;

/* Beside it, for sessauth.max_nodes entries each, under the same lock. */
extern HTAB *shared_nodes;		/* NodeStatus: all mirrors together */
extern HTAB *shared_sql_nodes;	/* SqlNode: all databases together */

extern void shmem_init(void);	/* from _PG_init */
extern bool sessauth_preloaded(void);

/* Asks the launcher to look at a database (InvalidOid: at all of them). Never throws. */
extern void shmem_request_probe(Oid database);

/* Sets the latch of a slot's worker, if there is one. Takes no lock; never throws. */
extern void shmem_wake_worker(WorkerSlot *slot);

#endif							/* SESSAUTH_SERVER_SHMEM_H */

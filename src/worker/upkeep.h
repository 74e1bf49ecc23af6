/*
 * upkeep.h
 *		The slow duties of the worker.
 */
#ifndef SESSAUTH_WORKER_UPKEEP_H
#define SESSAUTH_WORKER_UPKEEP_H

#include "server/clock.h"

typedef enum UpkeepResult
{
	UPKEEP_DONE,				/* nothing left for now */
	UPKEEP_MORE,				/* there is more: go on soon */
	UPKEEP_LATER				/* cannot be done now: try again, less and less often */
} UpkeepResult;

/* Outside transactions. Does one step of one duty, if any is due. Never throws. */
extern void upkeep(Instant now);

/* When upkeep() must be called again. */
extern Instant upkeep_next_event(void);

/*
 * ---- partitions.c: steps, each in a transaction of its own that is begun and committed there. They throw; a lock that is not to be had
 * within a moment is ERRCODE_LOCK_NOT_AVAILABLE. ----
 */

/* Makes one of the partitions of this month and the next two, where one is missing. */
extern UpkeepResult partitions_make(void);

/* Removes one partition, or some rows of the default one, that are beyond sessauth.history_retention. */
extern UpkeepResult partitions_remove(void);

/* True in the transaction that is open when this ledger is in service: active, and no copy whose mirrors wait for activate(). */
extern bool upkeep_allowed(void);

/* How long a step may wait for a lock: logins that come meanwhile wait behind it. */
#define UPKEEP_LOCK_TIMEOUT_MS	10

#endif							/* SESSAUTH_WORKER_UPKEEP_H */

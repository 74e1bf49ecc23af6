/*
 * clock.h
 *		The node's two clocks: its own, and what it knows of the ledger's.
 *
 * The node's own is CLOCK_BOOTTIME: it cannot be set, and unlike
 * CLOCK_MONOTONIC it goes on while the machine sleeps, so that a lease cannot outlive a
 * suspended laptop. Wall clocks play no part anywhere in the node.
 */
#ifndef SESSAUTH_NODE_CLOCK_H
#define SESSAUTH_NODE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Microseconds of CLOCK_BOOTTIME; never 0. */
extern int64_t clock_now(void);

/*
 * Bounds of the ledger's time, in microseconds since 1970, as offsets to the
 * node's own clock. Guarded by the node state's lock.
 */
typedef struct LedgerClock
{
	bool		has_lower;
	bool		has_upper;
	int64_t		lower;			/* the ledger's time is at least own time + lower; only grows */
	int64_t		upper;			/* and was at most own time + upper when last answered */
} LedgerClock;

/* An authentic "at" (unix ms) that was read at own time "received". */
extern void ledger_clock_seen(LedgerClock *clock, int64_t at, int64_t received);

/* The same for an answer to a nonce that was written at own time "asked". */
extern void ledger_clock_answered(LedgerClock *clock, int64_t at, int64_t asked, int64_t received);

#endif							/* SESSAUTH_NODE_CLOCK_H */

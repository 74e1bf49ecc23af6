/*
 * numbering.h
 *		From events to the revocation log: the ledger as a worker's transaction sees it.
 */
#ifndef SESSAUTH_WORKER_NUMBERING_H
#define SESSAUTH_WORKER_NUMBERING_H

#include "datatype/timestamp.h"

#include "core/wire.h"

/* sessauth.ledger_state as the current transaction sees it. */
typedef struct LedgerState
{
	char		ledger_id[SA_UUID_SIZE];
	char		generation[SA_UUID_SIZE];
	int			timeline;
	int64		n;
	int64		low;			/* lowest n that still matters; n + 1 when none does */
	TimestampTz now;			/* the ledger's time, read after the snapshot was taken; whole milliseconds */
	int64		now_ms;			/* the same as unix ms */
	int64		floor;			/* events up to this id are history only */
	int64		longest_lease;	/* ms; receipts.c */
	char	   *seen;			/* snapshot up to which events have been numbered, as text */
	char	   *snapshot;		/* this transaction's, as text, in the transaction's memory */
} LedgerState;

/* Grows whenever new events have been found: a reader that has seen this number has nothing to look for. */
extern uint64 ledger_news;

/* All of these run inside the worker's transaction. */

/* False: the ledger is dormant. Recognises copies and new timelines, and then opens a new generation. */
extern bool ledger_state_read(LedgerState *state);

/* Gives numbers to the revocations that have become visible; returns how many. Sends the NOTIFY hint. */
extern int64 number_new_events(LedgerState *state);

/* Outside: the transaction that looked for new events has committed. */
extern void numbering_settled(void);

/* A generation in which no number has been used: carries over what still matters. */
extern void open_generation(LedgerState *state, const char *why);

/* Fills low; deletes old rows of the log now and then. */
extern void find_low(LedgerState *state);

/* Entry n of the current generation; false when it is not there (any more). */
extern bool log_entry_read(const LedgerState *state, int64 n, SaEntry *out);

/* Entries above n, in order, at most max. Returns how many; *out is palloc'ed. */
extern int	log_entries_read(const LedgerState *state, int64 above, int max, SaEntry **out);

#endif							/* SESSAUTH_WORKER_NUMBERING_H */

/*
 * lease.h
 *		The node's right to decide alone: nonces, answers, calls, and until when.
 *
 * A pure state machine: no I/O, no clock, no lock of its own (the node
 * state's lock guards it). Times are microseconds of the node's own clock.
 */
#ifndef SESSAUTH_NODE_LEASE_H
#define SESSAUTH_NODE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/wire.h"
#include "node/coverage.h"

typedef enum LeaseNonce
{
	LEASE_NONCE_NONE,
	LEASE_NONCE_OUTSTANDING,	/* written, or about to be */
	LEASE_NONCE_ANSWERED		/* answer kept until the stream has caught up with it */
} LeaseNonce;

/* What a call to sessauth.lease() says at its end: everything committed before it is in low to n of g, or was told without a number. */
typedef struct LeaseGrant
{
	char		g[SA_UUID_SIZE];
	int64_t		low;
	int64_t		n;
	int64_t		at;				/* unix ms */
} LeaseGrant;

typedef struct Lease
{
	int64_t		max_staleness;

	LeaseNonce	state;
	char		nonce[SA_NONCE_SIZE];
	int64_t		t0;				/* before the nonce was written for the first time */
	SaAnswer	answer;			/* LEASE_NONCE_ANSWERED */
	int64_t		answered;		/* when it was read */
	int64_t		answered_t0;	/* t0 of the last nonce that was answered, whatever became of the lease; 0: none */

	char		g[SA_UUID_SIZE];	/* generation of the last lease; empty before the first */
	int64_t		complete;		/* everything of g up to here that matters is applied */
	int64_t		end;			/* the node may decide alone before this; 0: never could */

	/*
	 * Ledger time (us) up to which forgotten entries may be missing here: what expired
	 * before it, the stream no longer had when this node joined.
	 */
	int64_t		horizon;

	/*
	 * Among what is missing may be the end of a signing key, and a key that is known is believed. So only keys that were asked
	 * for after this (own time) have a say.
	 */
	int64_t		keys_from;

	Coverage	cover;
} Lease;

extern void lease_init(Lease *lease, int64_t max_staleness);

/* A new nonce takes the place of the old one; t0 was read before anything could see the nonce. */
extern void lease_ask(Lease *lease, const char *nonce, int64_t t0);

/* An authentic answer. False when it is not the answer to the outstanding nonce; then nothing changes. */
extern bool lease_answer(Lease *lease, const SaAnswer *answer, int64_t now);

/* One revocation was applied to the memory. */
extern void lease_applied(Lease *lease, const char *g, int64_t n);

/* Extends the lease when there is an answer and everything that it asks for is applied. True when it did. */
extern bool lease_extend(Lease *lease);

/*
 * The answer to a call that was begun at t0, and that told everything the node lacked by it. Extends the lease, and is true, when all
 * of low to n is applied. The nonce, if there is one, is not touched.
 */
extern bool lease_granted(Lease *lease, const LeaseGrant *grant, int64_t t0, int64_t received);

/* True when there is an answer that waits for numbers; then *lo and *hi are the first and the last of the range they are in. */
extern bool lease_waits(const Lease *lease, int64_t *lo, int64_t *hi);

/* What the next nonce may claim: the generation (empty: none) and the number applied without a hole. */
extern void lease_position(const Lease *lease, char g[SA_UUID_SIZE], int64_t *n);

/* Ends the lease at once and for good until a new nonce is answered. */
extern void lease_drop(Lease *lease);

#endif							/* SESSAUTH_NODE_LEASE_H */

/*
 * apply.h
 *		What the transports bring, put into what the node knows.
 *
 * The only way to change the memory, the lease and the ledger's clock (but for asking with a new nonce), from any thread. One caller at a
 * time: what it brought is known and told before the next begins.
 */
#ifndef SESSAUTH_NODE_APPLY_H
#define SESSAUTH_NODE_APPLY_H

#include "node/node.h"

#define APPLY_MAX	64			/* entries under one lock: whoever decides waits for it */

/*
 * Revocations and beats that were read at own time "received", at most APPLY_MAX. A revocation without a generation has no number yet: it is
 * remembered, and counts for no lease. *fit is false when one of those did not fit into the memory. True when an answer was
 * waiting for these and has extended the lease.
 */
extern bool apply_entries(SessauthNode *node, const SaEntry *entries, int count, int64_t received, bool *fit);

/* An authentic answer to a nonce. True when it has extended the lease. */
extern bool apply_answer(SessauthNode *node, const SaAnswer *answer, int64_t received);

/* A grant to a call that was begun at t0, all of whose revocations have been applied. True when it has extended the lease. */
extern bool apply_grant(SessauthNode *node, const LeaseGrant *grant, int64_t t0, int64_t received);

/* Forgets what has expired. */
extern void apply_prune(SessauthNode *node);

/* Other signing keys are in use: those who watch tokens of one that has gone are told. */
extern void apply_keys(SessauthNode *node, const SaKeySet *before, const SaKeySet *now);

/* Ends the lease: before a transport tells its other side that the node is gone. */
extern void apply_drop_lease(SessauthNode *node);

#endif							/* SESSAUTH_NODE_APPLY_H */

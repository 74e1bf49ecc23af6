/*
 * lease.c
 *		Nonces, answers, calls and the moment until which the node may decide alone.
 *
 * Why this keeps G1. The worker reads a nonce, then takes a snapshot, then
 * publishes everything in it, and only then answers with the last number. So an answer to
 * a nonce that came into being at t0 says: whatever had committed before t0 is in
 * low..n of g, or can no longer matter. A node that has applied those numbers
 * lacks nothing older than t0, so for a lease that ends at t0 + max_staleness nothing that it
 * accepts was revoked longer ago than max_staleness. Three things must not happen:
 *
 * - counting from the receipt of the answer instead of t0: it may have been delayed for ever;
 * - taking an answer to any other nonce: it may be older than it looks. An attacker can
 *	 replay an authentic one, but not one that carries a nonce made after it;
 * - extending before the numbers are applied, or across a hole.
 *
 * Writing the same nonce again (Redis lost it) does no harm: t0 stays the time of the first try.
 *
 * A call to PostgreSQL is a round trip by itself: its snapshot is younger than the t0 that was read before it was sent, and no other
 * call's answer can come in its place. So it needs no nonce, and the rest is the same. Numbers are the ledger's, whatever way they came,
 * so what one transport has brought counts for the answers of the other.
 */
#include <string.h>

#include "node/lease.h"

#define TOLD_US				60000000	/* a revocation is told for at least as long (doc/protocol.md, section 3, until) */
#define ACCESS_TTL_MIN_US	1000000 /* of sessauth.access_ttl: of keys asked for no longer ago than that, every end is still told */

static bool prove(Lease *lease, const LeaseGrant *proof, int64_t t0, int64_t received);
static LeaseGrant proof_of(const SaAnswer *answer);
static int64_t first_needed(const Lease *lease, const LeaseGrant *proof);

void
lease_init(Lease *lease, int64_t max_staleness)
{
	memset(lease, 0, sizeof(*lease));
	lease->max_staleness = max_staleness;
}

void
lease_ask(Lease *lease, const char *nonce, int64_t t0)
{
	lease->state = LEASE_NONCE_OUTSTANDING;
	memcpy(lease->nonce, nonce, SA_NONCE_SIZE);
	lease->t0 = t0;
}

bool
lease_answer(Lease *lease, const SaAnswer *answer, int64_t now)
{
	if (lease->state != LEASE_NONCE_OUTSTANDING || strcmp(lease->nonce, answer->nonce) != 0)
		return false;
	lease->state = LEASE_NONCE_ANSWERED;
	lease->answer = *answer;
	lease->answered = now;
	lease->answered_t0 = lease->t0;
	return true;
}

void
lease_applied(Lease *lease, const char *g, int64_t n)
{
	coverage_add(&lease->cover, g, n, lease->g, lease->state == LEASE_NONCE_ANSWERED ? lease->answer.g : "");
}

bool
lease_extend(Lease *lease)
{
	LeaseGrant	proof = proof_of(&lease->answer);

	if (lease->state != LEASE_NONCE_ANSWERED || !prove(lease, &proof, lease->t0, lease->answered))
		return false;
	lease->state = LEASE_NONCE_NONE;
	return true;
}

bool
lease_granted(Lease *lease, const LeaseGrant *grant, int64_t t0, int64_t received)
{
	return prove(lease, grant, t0, received);
}

bool
lease_waits(const Lease *lease, int64_t *lo, int64_t *hi)
{
	LeaseGrant	proof = proof_of(&lease->answer);

	if (lease->state != LEASE_NONCE_ANSWERED)
		return false;
	*hi = proof.n;
	*lo = coverage_first_missing(&lease->cover, proof.g, first_needed(lease, &proof), proof.n);
	return *lo <= *hi;
}

void
lease_position(const Lease *lease, char g[SA_UUID_SIZE], int64_t *n)
{
	memcpy(g, lease->g, SA_UUID_SIZE);
	*n = lease->g[0] == '\0' ? 0 : coverage_reach(&lease->cover, lease->g, lease->complete);
}

void
lease_drop(Lease *lease)
{
	lease->end = lease->answered_t0 = 0;
	lease->state = LEASE_NONCE_NONE;
}

static bool
prove(Lease *lease, const LeaseGrant *proof, int64_t t0, int64_t received)
{
	int64_t		end = t0 + lease->max_staleness;
	bool		same = strcmp(lease->g, proof->g) == 0;

	if (!coverage_has(&lease->cover, proof->g, first_needed(lease, proof), proof->n))
		return false;
	if (!same || proof->low > lease->complete + 1)
	{
		/* The node relied on "low": what it never saw below it had expired by then. */
		if (proof->at <= INT64_MAX / 1000 && proof->at * 1000 > lease->horizon)
			lease->horizon = proof->at * 1000;

		/* By a recent proof it has heard of every key that ended. Otherwise what was told meanwhile may be told no more, and its keys are too old. */
		if (lease->end <= received || lease->end - lease->max_staleness <= received - TOLD_US)
			lease->keys_from = received - ACCESS_TTL_MIN_US;
	}
	if (!same)
		memcpy(lease->g, proof->g, sizeof(lease->g));
	if (!same || proof->n > lease->complete)
		lease->complete = proof->n;
	if (end > lease->end)
		lease->end = end;
	return true;
}

static LeaseGrant
proof_of(const SaAnswer *answer)
{
	LeaseGrant	proof = {.low = answer->low, .n = answer->n, .at = answer->at};

	memcpy(proof.g, answer->g, sizeof(proof.g));
	return proof;
}

/* A node that was complete up to some number of the same generation needs only what came after it. */
static int64_t
first_needed(const Lease *lease, const LeaseGrant *proof)
{
	int64_t		first = proof->low;

	if (strcmp(lease->g, proof->g) == 0 && lease->complete + 1 > first)
		first = lease->complete + 1;
	return first < 1 ? 1 : first;
}

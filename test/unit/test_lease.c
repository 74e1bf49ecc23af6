/*
 * test_lease.c
 *		The lease: what extends it, until when, and all that must not; and the two clocks' bounds.
 */
#include "node/clock.h"
#include "node/lease.h"
#include "tap.h"

#define G1		"aaaaaaaa-0000-4000-8000-000000000001"
#define G2		"aaaaaaaa-0000-4000-8000-000000000002"
#define G3		"aaaaaaaa-0000-4000-8000-000000000003"
#define STALE	INT64_C(5000000)
#define AT		INT64_C(1700000000000)

static const char nonce1[SA_NONCE_SIZE] = "00000000000000000000000000000001";
static const char nonce2[SA_NONCE_SIZE] = "00000000000000000000000000000002";

static Lease lease;

static bool
answered(const char *nonce, const char *g, int64_t low, int64_t n, int64_t at, int64_t now)
{
	SaAnswer	answer = {.low = low, .n = n, .at = at};

	memcpy(answer.nonce, nonce, sizeof(answer.nonce));
	strcpy(answer.g, g);
	return lease_answer(&lease, &answer, now);
}

static void
apply(const char *g, int64_t from, int64_t to)
{
	for (int64_t n = from; n <= to; n++)
		lease_applied(&lease, g, n);
}

/* A node that is complete up to 10 of G1 and whose lease ends at 1000 + STALE. */
static void
begin(void)
{
	lease_init(&lease, STALE);
	apply(G1, 1, 10);
	lease_ask(&lease, nonce1, 1000);
	answered(nonce1, G1, 1, 10, AT, 2000);
	lease_extend(&lease);
}

static void
test_joining(void)
{
	char		g[SA_UUID_SIZE];
	int64_t		n;
	int64_t		lo;
	int64_t		hi;

	lease_init(&lease, STALE);
	ok(lease.end == 0 && !lease_extend(&lease), "a new node may not decide");
	lease_position(&lease, g, &n);
	ok(g[0] == '\0' && n == 0, "and claims nothing");
	apply(G1, 1, 10);
	ok(!lease_extend(&lease) && lease.end == 0, "having applied everything is no lease");
	lease_position(&lease, g, &n);
	ok(g[0] == '\0' && n == 0, "only an answer makes it join a generation");
	lease_ask(&lease, nonce1, 1000);
	ok(!lease_extend(&lease) && lease.end == 0, "nor is having asked");
	ok(answered(nonce1, G1, 1, 11, AT, 900000), "the answer is taken");
	ok(!lease_extend(&lease) && lease.end == 0, "and is not enough while a number is missing");
	ok(lease_waits(&lease, &lo, &hi) && lo == 11 && hi == 11, "which it waits for");
	apply(G1, 11, 11);
	ok(!lease_waits(&lease, &lo, &hi), "no more when it has come");
	ok(lease_extend(&lease) && lease.end == 1000 + STALE, "then the lease counts from before the nonce was written, not from the answer's receipt");
	ok(!lease_extend(&lease), "an answer serves once");
	lease_position(&lease, g, &n);
	ok(strcmp(g, G1) == 0 && n == 11, "the node claims what it has applied");
	apply(G1, 13, 14);
	lease_position(&lease, g, &n);
	ok(n == 11, "up to the first hole");
	apply(G1, 12, 12);
	lease_position(&lease, g, &n);
	ok(n == 14, "which may close");

	lease_init(&lease, STALE);
	lease_ask(&lease, nonce1, 1000);
	ok(answered(nonce1, G1, 1, 0, AT, 2000) && lease_extend(&lease), "in a young ledger, where nothing was ever revoked, nothing is needed");
	lease_init(&lease, STALE);
	apply(G1, 7, 9);
	lease_ask(&lease, nonce1, 1000);
	ok(answered(nonce1, G1, 7, 9, AT, 2000) && lease_extend(&lease) && lease.complete == 9, "what is below low is not needed");
	ok(lease.horizon == AT * 1000, "but what expired before that answer may be missing");
}

static void
test_nonces(void)
{
	begin();
	ok(!answered(nonce1, G1, 1, 10, AT, 3000) && lease.end == 1000 + STALE, "an answer that comes again does nothing");
	lease_ask(&lease, nonce2, 500000);
	ok(!answered(nonce1, G1, 1, 10, AT, 510000) && !lease_extend(&lease), "nor does that to an earlier nonce");
	ok(lease.end == 1000 + STALE, "the lease stays as it was");
	ok(answered(nonce2, G1, 1, 10, AT, 520000) && lease_extend(&lease) && lease.end == 500000 + STALE, "the right one extends it");

	begin();
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G1, 1, 11, AT, 510000), "an answer that waits for a number");
	lease_ask(&lease, nonce1, 900000);
	apply(G1, 11, 11);
	ok(!lease_extend(&lease) && lease.end == 1000 + STALE, "is forgotten when another nonce takes its place");

	begin();
	lease_ask(&lease, nonce2, 500);
	ok(answered(nonce2, G1, 1, 10, AT, 2500) && lease_extend(&lease) && lease.end == 1000 + STALE, "a lease never gets shorter");

	begin();
	lease_ask(&lease, nonce2, 500000);
	lease_drop(&lease);
	ok(lease.end == 0 && !answered(nonce2, G1, 1, 10, AT, 510000) && !lease_extend(&lease), "a dropped lease is over, also for the answer under way");
	lease_ask(&lease, nonce1, 600000);
	ok(answered(nonce1, G1, 1, 10, AT, 610000) && lease_extend(&lease) && lease.end == 600000 + STALE, "until a new nonce is answered");
}

static void
test_holes(void)
{
	int64_t		lo;
	int64_t		hi;

	begin();
	apply(G1, 12, 20);
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G1, 1, 20, AT, 510000) && !lease_extend(&lease) && lease.end == 1000 + STALE, "no lease across a hole");
	ok(lease_waits(&lease, &lo, &hi) && lo == 11 && hi == 20, "the hole is what is waited for");
	apply(G2, 11, 11);
	ok(!lease_extend(&lease), "the same number of another generation does not close it");
	apply(G1, 11, 11);
	ok(lease_extend(&lease) && lease.complete == 20, "the number itself does");

	begin();
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G1, 5, 8, AT, 510000) && lease_extend(&lease) && lease.complete == 10, "an answer with fewer numbers takes nothing back");

	begin();
	apply(G1, 15, 20);
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G1, 15, 20, AT + 7, 510000) && lease_extend(&lease) && lease.complete == 20,
	   "a node that missed numbers which have expired meanwhile goes on from low");
	ok(lease.horizon == (AT + 7) * 1000, "and remembers up to when they may have");
	lease_ask(&lease, nonce1, 600000);
	ok(answered(nonce1, G1, 16, 20, AT + 9, 610000) && lease_extend(&lease) && lease.horizon == (AT + 7) * 1000,
	   "while a low that moves over what it has seen changes nothing about that");
	apply(G1, 30, 30);
	lease_ask(&lease, nonce2, 700000);
	ok(answered(nonce2, G1, 30, 30, AT + 3, 710000) && lease_extend(&lease) && lease.horizon == (AT + 7) * 1000, "that moment never goes back");
}

static void
test_generations(void)
{
	char		g[SA_UUID_SIZE];
	int64_t		n;

	begin();
	apply(G2, 1, 9);
	lease_position(&lease, g, &n);
	ok(strcmp(g, G1) == 0 && n == 10, "entries do not change the generation");
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G2, 1, 10, AT, 510000) && !lease_extend(&lease), "in a new generation, numbers of the old one count for nothing");
	lease_position(&lease, g, &n);
	ok(strcmp(g, G1) == 0 && n == 10 && lease.end == 1000 + STALE, "and the old one stays until the new one is complete");
	apply(G2, 10, 10);
	ok(lease_extend(&lease) && lease.end == 500000 + STALE, "the whole range low to n is needed");
	lease_position(&lease, g, &n);
	ok(strcmp(g, G2) == 0 && n == 10, "then it is the node's generation");

	begin();
	apply(G2, 2, 3);
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G2, 2, 3, AT + 1, 510000) && lease_extend(&lease) && lease.complete == 3 && lease.horizon == (AT + 1) * 1000,
	   "a new generation starts to count anew");

	begin();
	lease_ask(&lease, nonce2, 500000);
	answered(nonce2, G2, 1, 2, AT, 510000);
	apply(G2, 1, 1);
	for (int i = 0; i < 50; i++)
	{
		char		other[SA_UUID_SIZE];

		strcpy(other, "bbbbbbbb-0000-4000-8000-000000000000");
		other[34] = (char) ('0' + i / 10);
		other[35] = (char) ('0' + i % 10);
		lease_applied(&lease, other, 1);
	}
	apply(G2, 2, 2);
	ok(lease_extend(&lease), "replayed entries of many other generations do not push out the one that an answer waits for");

	begin();
	lease_ask(&lease, nonce2, 500000);
	ok(answered(nonce2, G3, 1, 0, AT, 510000) && lease_extend(&lease) && lease.complete == 0 && strcmp(lease.g, G3) == 0,
	   "an empty generation is complete at once");
}

static void
test_keys(void)
{
	lease_init(&lease, STALE);
	lease_ask(&lease, nonce1, 5000000);
	ok(answered(nonce1, G1, 7, 6, AT, 5200000) && lease_extend(&lease) && lease.keys_from == 5200000 - 1000000,
	   "who joins believes no keys that are older than what is told");
	lease_ask(&lease, nonce2, lease.end - 10);
	ok(answered(nonce2, G1, 12, 11, AT + 9, lease.end - 5) && lease_extend(&lease) && lease.keys_from == 4200000,
	   "who knew all until now believes those that he has");
	lease_ask(&lease, nonce1, lease.end);
	ok(answered(nonce1, G1, 12, 11, AT + 9, lease.end + 7) && lease_extend(&lease) && lease.keys_from == 4200000, "also when his lease was over and he missed nothing");
	lease_ask(&lease, nonce2, lease.end);
	ok(answered(nonce2, G1, 13, 12, AT + 20, lease.end + 2000000) && lease_extend(&lease) && lease.keys_from > 4200000, "but not when he may have missed the end of one");

	lease_init(&lease, 600000000);
	lease_ask(&lease, nonce1, 5000000);
	ok(answered(nonce1, G1, 7, 6, AT, 5200000) && lease_extend(&lease) && lease.keys_from == 4200000, "with a long lease");
	lease_ask(&lease, nonce2, 64000000);
	ok(answered(nonce2, G1, 12, 11, AT + 9, 64999999) && lease_extend(&lease) && lease.keys_from == 4200000, "what was told since its last proof is told for a minute");
	lease_ask(&lease, nonce1, 124000001);
	ok(answered(nonce1, G1, 22, 21, AT + 20, 124000001) && lease_extend(&lease) && lease.keys_from > 4200000, "and perhaps no more, though the lease goes on");
}

static bool
granted(const char *g, int64_t low, int64_t n, int64_t at, int64_t t0)
{
	LeaseGrant	grant = {.low = low, .n = n, .at = at};

	strcpy(grant.g, g);
	return lease_granted(&lease, &grant, t0, t0 + 50);
}

static void
test_grants(void)
{
	char		g[SA_UUID_SIZE];
	int64_t		n;

	lease_init(&lease, STALE);
	apply(G1, 5, 9);
	ok(!granted(G1, 5, 10, AT, 1000) && lease.end == 0, "a call that names a number which did not come grants nothing");
	lease_position(&lease, g, &n);
	ok(g[0] == '\0' && n == 0, "and makes the node join nothing");
	apply(G1, 10, 10);
	ok(granted(G1, 5, 10, AT, 2000) && lease.end == 2000 + STALE, "with all of them the lease counts from before the call");
	lease_position(&lease, g, &n);
	ok(strcmp(g, G1) == 0 && n == 10 && lease.horizon == AT * 1000, "the node has joined, and knows from when on");
	ok(granted(G1, 6, 10, AT + 5, 3000) && lease.end == 3000 + STALE && lease.horizon == AT * 1000, "the next call needs nothing new");
	ok(granted(G1, 6, 10, AT + 5, 1500) && lease.end == 3000 + STALE, "one that was begun earlier and is answered later takes nothing back");
	ok(granted(G1, 5, 8, AT, 4000) && lease.complete == 10, "nor does one with fewer numbers");
	ok(!granted(G1, 5, 12, AT, 5000) && lease.end == 4000 + STALE, "no lease across a hole");
	ok(granted(G1, 13, 12, AT + 9, 6000) && lease.complete == 12 && lease.horizon == (AT + 9) * 1000,
	   "what the ledger no longer needs may be missing, but that is remembered");
	ok(!granted(G2, 1, 1, AT, 7000) && strcmp(lease.g, G1) == 0, "another generation has to be complete by itself");
	apply(G2, 1, 1);
	ok(granted(G2, 1, 1, AT + 10, 8000) && strcmp(lease.g, G2) == 0 && lease.complete == 1, "then the node changes over");
	ok(granted(G3, 1, 0, AT + 11, 9000) && strcmp(lease.g, G3) == 0 && lease.end == 9000 + STALE, "an empty one is complete at once");

	/* With a nonce under way. */
	begin();
	lease_ask(&lease, nonce2, 500000);
	ok(granted(G1, 1, 10, AT, 700000) && lease.end == 700000 + STALE && lease.state == LEASE_NONCE_OUTSTANDING, "a nonce stays as it is");
	ok(answered(nonce2, G1, 1, 11, AT, 710000) && !lease_extend(&lease), "its answer waits for a number");
	ok(granted(G1, 1, 10, AT, 720000) && lease.state == LEASE_NONCE_ANSWERED, "which a grant without that number does not replace");
	apply(G1, 11, 11);
	ok(lease_extend(&lease) && lease.end == 720000 + STALE && lease.complete == 11, "whoever brings the number; the older proof does not shorten the lease");
	lease_drop(&lease);
	ok(lease.end == 0 && granted(G1, 1, 11, AT, 800000) && lease.end == 800000 + STALE, "a dropped lease comes back with a new call only");
}

static void
test_clock(void)
{
	LedgerClock clock = {0};
	int64_t		now = clock_now();

	ok(now > 0 && clock_now() >= now, "the node's own clock goes forward");
	ledger_clock_seen(&clock, 5000, 1000000);
	ok(clock.has_lower && !clock.has_upper && clock.lower == 4000000, "a beat gives a lower bound of the ledger's time, and no upper one");
	ledger_clock_seen(&clock, 5100, 2000000);
	ok(clock.lower == 4000000, "an old one that is replayed does not move it");
	ledger_clock_seen(&clock, 7000, 2000000);
	ok(clock.lower == 5000000, "a better one does");
	ledger_clock_answered(&clock, 7500, 2400000, 2600000);
	ok(clock.lower == 5000000 && clock.has_upper && clock.upper == 7501000 - 2400000, "an answer gives the upper one, from when it was asked");
	ledger_clock_answered(&clock, 7500, 2550000, 2600000);
	ok(clock.upper == 5000000, "which is never below the lower one");
	ledger_clock_seen(&clock, INT64_MAX, 0);
	ledger_clock_answered(&clock, INT64_MAX, 0, 0);
	ledger_clock_seen(&clock, -1, 0);
	ok(clock.lower == 5000000 && clock.upper == 5000000, "times beyond the year 9999 or before 1970 are none");
}

int
main(void)
{
	test_joining();
	test_nonces();
	test_holes();
	test_generations();
	test_grants();
	test_keys();
	test_clock();
	return tap_done();
}

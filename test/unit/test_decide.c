/*
 * test_decide.c
 *		One token's decision, with every clock in the test's hand: the bound of G1
 *		under pauses, and nothing accepted whose revocation may have been forgotten.
 */
#define clock_now test_clock_now
#include "node/decide.c"

#include <stdlib.h>

#include "tap.h"

#define LEDGER_S	INT64_C(1700000000)
#define BOOT_US		INT64_C(5000000000)
#define SID			"11111111-2222-4333-8444-555555555555"

static SessauthNode node;
static SharedKeys keys;
static SaKey *key;
static char kid[SA_KID_LEN + 1];
static int64_t own_time;
static void (*while_paused) (void);
static void (*after_verifying) (void);
static int	keys_asked;

int64_t
test_clock_now(void)
{
	if (while_paused)
		while_paused();
	return own_time;
}

SharedKeys *
keys_use(SessauthNode *unused)
{
	(void) unused;
	return &keys;
}

void
keys_release(SharedKeys *unused)
{
	(void) unused;
	if (after_verifying)
		after_verifying();
}

void
keys_request(SessauthNode *unused)
{
	(void) unused;
	keys_asked++;
}

/* A node that was synced at LEDGER_S and has a lease for five seconds. */
static void
fresh_node(int64_t leeway)
{
	memory_free(&node.memory);
	seen_free(&node.seen);
	memset(&node, 0, sizeof(node));
	many_readers_init(&node.known_lock);
	pthread_mutex_init(&node.keys_lock, NULL);
	node.keys = &keys;
	node.issuer = node.audience = "sessauth";
	node.leeway = leeway;
	node.max_staleness = 5000000;
	if (!memory_init(&node.memory, 1000) || !seen_init(&node.seen, 1000))
		exit(1);
	keys.serial = 1;
	keys.begun = 0;
	atomic_store(&node.keys_serial, 1);
	own_time = BOOT_US;
	while_paused = NULL;
	node.lease.end = BOOT_US + node.max_staleness;
	ledger_clock_answered(&node.ledger_clock, LEDGER_S * 1000, BOOT_US, BOOT_US);
}

static void
revoke_user(int64_t epoch, int64_t until_s)
{
	SaEntry		entry = {.kind = SA_KIND_USER, .tid = "acme", .uid = "alice", .epoch = epoch, .until = until_s * 1000};

	(void) memory_apply(&node.memory, &entry, node_forgets_before(&node, own_time));
}

static const char *
decide_at(int64_t epoch, int64_t iat, int64_t exp)
{
	static SessauthDecision decision;
	SaTokenDraft draft = {.issuer = "sessauth", .audience = "sessauth", .tid = "acme", .uid = "alice", .sid = SID,
	.epoch = epoch, .tepoch = 1, .iat = iat, .exp = exp};
	char	   *token = sa_token_mint(key, kid, &draft);

	(void) sessauth_decide(&node, token, strlen(token), own_time, &decision);
	free(token);
	switch (decision.code)
	{
		case SESSAUTH_ACTIVE:
			return "active";
		case SESSAUTH_REVOKED:
			return "revoked";
		case SESSAUTH_EXPIRED:
			return "expired";
		case SESSAUTH_NOT_YET_VALID:
			return "not_yet_valid";
		case SESSAUTH_CANNOT_TELL:
			return decision.why == SESSAUTH_WHY_LEASE ? "no lease" : "cannot_tell";
		case SESSAUTH_WRONG_ISSUER:
			return "wrong_issuer";
		default:
			return "other";
	}
}

static const char *
decide(int64_t exp)
{
	return decide_at(7, LEDGER_S, exp);
}

/* Those that are in use from now on; the test's own stay what they are. */
static void
new_keys_after_an_absence(void)
{
	node.lease.keys_from = own_time;
	atomic_store(&node.keys_serial, 2);
	atomic_store(&node.keys_begun, own_time + 1);
}

static void
sleep_past_lease(void)
{
	own_time = node.lease.end;
}

/* What the follower does while the decider stands still between its lookup and its last look at the clock. */
static void
renew_with_a_revocation(void)
{
	while_paused = NULL;
	own_time = node.lease.end;
	revoke_user(8, LEDGER_S + 300);
	node.lease.end += 5000000;
}

static void
sleep_past_expiry(void)
{
	own_time = BOOT_US + 3000000;
}

static void
test_lease(void)
{
	fresh_node(0);
	is_text(decide(LEDGER_S + 300), "active", "within the lease a live token is active");
	own_time = node.lease.end - 1;
	is_text(decide(LEDGER_S + 300), "active", "until its last microsecond");
	own_time = node.lease.end;
	is_text(decide(LEDGER_S + 300), "no lease", "and not at its end");
	revoke_user(8, LEDGER_S + 300);
	is_text(decide(LEDGER_S + 300), "revoked", "what is known to be revoked needs no lease");
	is_text(decide_at(8, LEDGER_S, LEDGER_S + 300), "no lease", "but the new epoch is not known to be live");
	is_text(decide_at(8, LEDGER_S, LEDGER_S + 5), "expired", "what has expired needs no lease either");

	fresh_node(0);
	keys.begun = BOOT_US - 1;
	atomic_store(&node.keys_begun, BOOT_US - 1);
	node.lease.keys_from = BOOT_US - 1;
	is_text(decide(LEDGER_S + 300), "active", "keys that are new enough");
	node.lease.keys_from = BOOT_US;
	is_text(decide(LEDGER_S + 300), "no lease", "keys that may have ended unheard of are not believed");

	fresh_node(0);
	after_verifying = new_keys_after_an_absence;
	is_text(decide(LEDGER_S + 300), "no lease", "nor when newer ones come after they have verified the token");
	after_verifying = NULL;

	fresh_node(0);
	node.lease.end = 0;
	is_text(decide(LEDGER_S + 300), "no lease", "before the first answer nothing is active");
	memset(&node.ledger_clock, 0, sizeof(node.ledger_clock));
	is_text(decide(1), "no lease", "and without the ledger's time nothing has expired");
}

static void
test_pauses(void)
{
	fresh_node(0);
	while_paused = sleep_past_lease;
	is_text(decide(LEDGER_S + 300), "no lease", "a thread that was stopped until the lease was over accepts nothing");
	fresh_node(0);
	while_paused = renew_with_a_revocation;
	is_text(decide(LEDGER_S + 300), "no lease", "nor does it borrow the lease that came with a revocation it did not look up");
	is_text(decide(LEDGER_S + 300), "revoked", "which it finds the next time");
	fresh_node(0);
	while_paused = sleep_past_expiry;
	is_text(decide(LEDGER_S + 2), "expired", "a token that expires while the thread is stopped is not accepted");
}

static void
test_time(void)
{
	fresh_node(0);
	is_text(decide_at(7, LEDGER_S + 1, LEDGER_S + 300), "active", "a token of this second is not from the future");
	is_text(decide_at(7, LEDGER_S + 60, LEDGER_S + 300), "no lease", "one of the next minute may be of a clock that was set forward just now, which others know");

	fresh_node(0);
	ledger_clock_seen(&node.ledger_clock, (LEDGER_S + 60) * 1000, own_time);
	is_text(decide_at(7, LEDGER_S + 60, LEDGER_S + 300), "active", "nor is what has begun by a beat that came later than the last answer");

	fresh_node(0);
	memset(&node.ledger_clock, 0, sizeof(node.ledger_clock));
	ledger_clock_seen(&node.ledger_clock, (LEDGER_S - 3600) * 1000, BOOT_US);
	is_text(decide(LEDGER_S + 300), "active", "an old beat alone makes no token look as if it were from the future");
}

static void
test_leeway(void)
{
	fresh_node(30);
	revoke_user(8, LEDGER_S + 2);
	own_time += 4000000;
	memory_prune(&node.memory, node_forgets_before(&node, own_time), true);
	is_text(decide(LEDGER_S + 2), "revoked", "a revocation is remembered as long as the leeway lets its tokens live");

	fresh_node(30);
	own_time += 4000000;
	revoke_user(8, LEDGER_S + 2);
	is_text(decide(LEDGER_S + 2), "revoked", "also one that arrives when its tokens have expired");
	own_time += 30000000;
	memory_prune(&node.memory, node_forgets_before(&node, own_time), true);
	ok(node.memory.count == 0, "and forgotten after it");

	fresh_node(30);
	is_text(decide(LEDGER_S - 10), "active", "the leeway stretches the expiry");
	node.lease.horizon = LEDGER_S * 1000000;
	is_text(decide(LEDGER_S - 10), "expired", "but not of tokens that had expired when this node joined");
	is_text(decide(LEDGER_S + 1), "active", "only of these");
}

/* Every decision above is made for a new token; here the same one comes again. */
static void
test_seen_before(void)
{
	SessauthDecision decision;
	SaTokenDraft draft = {.issuer = "sessauth", .audience = "sessauth", .tid = "acme", .uid = "alice", .sid = SID,
	.epoch = 7, .tepoch = 1, .iat = LEDGER_S, .exp = LEDGER_S + 60};
	char	   *token = sa_token_mint(key, kid, &draft);
	size_t		len = strlen(token);
	SaKeySet   *set = keys.set;
	char		was;

	fresh_node(0);
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_ACTIVE && decision.source == SESSAUTH_SOURCE_LOCAL, "a new token is verified");
	memset(&decision, 'x', sizeof(decision));
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_ACTIVE && decision.source == SESSAUTH_SOURCE_CACHE, "the second time it is known");
	ok(strcmp(decision.tid, "acme") == 0 && strcmp(decision.uid, "alice") == 0 && strcmp(decision.sid, SID) == 0 &&
	   decision.epoch == 7 && decision.expires_at == LEDGER_S + 60, "with all that it says");
	was = token[len - 5];
	token[len - 5] = was == 'A' ? 'B' : 'A';
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_BAD_SIGNATURE, "one that differs in a character is not");
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_BAD_SIGNATURE, "nor when it comes again");
	token[len - 5] = was;
	own_time = node.lease.end;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_CANNOT_TELL && decision.why == SESSAUTH_WHY_LEASE &&
	   decision.source == SESSAUTH_SOURCE_CACHE, "knowing it does not replace the lease");
	node.lease.end += 100000000;
	own_time += 54000000;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_ACTIVE, "it lives until it expires");
	own_time += 1000000;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_EXPIRED, "and no longer");

	fresh_node(0);
	(void) sessauth_decide(&node, token, len, own_time, &decision);
	revoke_user(8, LEDGER_S + 300);
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_REVOKED && decision.source == SESSAUTH_SOURCE_CACHE, "a known token is revoked as any other");

	fresh_node(0);
	(void) sessauth_decide(&node, token, len, own_time, &decision);
	keys.set = sa_keyset_parse("{\"keys\":[]}", 11);
	keys.serial = 2;
	keys.begun = own_time + 1;
	atomic_store(&node.keys_serial, 2);
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_UNKNOWN_KEY, "it does not outlive its key");
	keys.begun = 0;
	sa_keyset_free(keys.set);
	keys.set = set;
	free(token);
}

static void
test_unknown_key(void)
{
	SessauthDecision decision;
	SaTokenDraft draft = {.issuer = "sessauth", .audience = "sessauth", .tid = "acme", .uid = "alice", .sid = SID,
	.epoch = 1, .tepoch = 1, .iat = LEDGER_S, .exp = LEDGER_S + 300};
	char	   *token = sa_token_mint(key, "made-up", &draft);
	size_t		len = strlen(token);

	fresh_node(0);
	keys_asked = 0;
	keys.begun = node.keys_tried = own_time - 1;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_CANNOT_TELL &&
	   decision.why == SESSAUTH_WHY_KEYS_PENDING && keys_asked == 1, "an unknown key is asked for");
	keys.begun = node.keys_tried = own_time;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_CANNOT_TELL, "a refresh that began no later than the request proves nothing");
	node.keys_tried = own_time + 1;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_CANNOT_TELL &&
	   decision.why == SESSAUTH_WHY_KEYS_FAILED, "one that failed neither");
	keys.begun = own_time + 1;
	ok(sessauth_decide(&node, token, len, own_time, &decision) == SESSAUTH_UNKNOWN_KEY, "one that began later and succeeded does");
	free(token);
}

/* Whose tokens they are is said by the token alone: neither lease nor memory is asked, and nothing else is said of them. */
static void
test_issuer(void)
{
	static const struct
	{
		const char *issuer;
		const char *audience;
		const char *what;
	}			others[] = {
		{"elsewhere", "sessauth", "a token of another issuer"},
		{"sessauth", "elsewhere", "a token for another audience"},
		{"sessauth2", "sessauth", "a token of an issuer whose name begins as ours"}
	};
	SessauthDecision decision;

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
	{
		SaTokenDraft draft = {.issuer = others[i].issuer, .audience = others[i].audience, .tid = "acme", .uid = "alice", .sid = SID,
		.epoch = 7, .tepoch = 1, .iat = LEDGER_S, .exp = LEDGER_S + 300};
		char	   *token = sa_token_mint(key, kid, &draft);

		fresh_node(0);
		memset(&decision, 'x', sizeof(decision));
		ok(sessauth_decide(&node, token, strlen(token), own_time, &decision) == SESSAUTH_WRONG_ISSUER &&
		   decision.source == SESSAUTH_SOURCE_TOKEN && decision.why == SESSAUTH_WHY_NONE, others[i].what);
		ok(decision.tid[0] == '\0' && decision.uid[0] == '\0' && decision.sid[0] == '\0' && decision.epoch == 0 && decision.expires_at == 0,
		   "tells nothing of who that is");
		node.lease.end = 0;
		revoke_user(8, LEDGER_S + 300);
		ok(sessauth_decide(&node, token, strlen(token), own_time, &decision) == SESSAUTH_WRONG_ISSUER, "without a lease, and revoked, it is the same");
		free(token);
	}
	fresh_node(0);
	node.issuer = "elsewhere";
	is_text(decide(LEDGER_S + 300), "wrong_issuer", "another node goes by its own issuer");
	fresh_node(0);
	node.audience = "elsewhere";
	is_text(decide(LEDGER_S + 300), "wrong_issuer", "and its own audience");
}

int
main(void)
{
	char	   *jwk;
	char		set[2048];

	key = sa_key_generate(SA_ALG_ES256);
	if (key == NULL || !sa_key_thumbprint(key, kid))
		return 1;
	jwk = sa_key_public_jwk(key, kid);
	snprintf(set, sizeof(set), "{\"keys\":[%s]}", jwk);
	keys.set = sa_keyset_parse(set, strlen(set));
	free(jwk);

	test_lease();
	test_pauses();
	test_time();
	test_leeway();
	test_issuer();
	test_unknown_key();
	test_seen_before();

	memory_free(&node.memory);
	seen_free(&node.seen);
	sa_keyset_free(keys.set);
	sa_key_free(key);
	return tap_done();
}

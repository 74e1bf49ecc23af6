/*
 * test_seen.c
 *		The cache of verified tokens: bounded, exact, and forgetful where it has to be.
 */
#include <stdlib.h>

#include "node/seen.h"
#include "tap.h"

static Seen seen;

static void
add(const char *token, uint64_t keys, int64_t exp)
{
	Claims		claims = {.epoch = 7, .tepoch = 8, .begin = 9, .exp = exp, .tid = "acme", .sid = "11111111-2222-4333-8444-555555555555"};
	SeenKey		key;

	snprintf(claims.uid, sizeof(claims.uid), "user of %s", token);
	seen_key(&seen, token, strlen(token), &key);
	seen_add(&seen, &key, keys, &claims);
}

static bool
knows(const char *token, uint64_t keys)
{
	char		uid[64];
	SeenKey		key;
	Claims		claims;

	snprintf(uid, sizeof(uid), "user of %s", token);
	seen_key(&seen, token, strlen(token), &key);
	return seen_find(&seen, &key, keys, &claims) && strcmp(claims.uid, uid) == 0 && strcmp(claims.tid, "acme") == 0 &&
		claims.epoch == 7 && claims.tepoch == 8 && claims.begin == 9;
}

static int64_t
tokens(void)
{
	SeenCount	count;

	seen_count(&seen, &count);
	return count.tokens;
}

static void
test_keys(void)
{
	SeenCount	count;

	ok(seen_init(&seen, 1000), "a cache of a thousand");
	ok(!knows("a", 1), "knows nothing at first");
	add("a", 1, 100);
	ok(knows("a", 1) && !knows("b", 1), "a token that was added, and no other");
	ok(!knows("a", 2), "under the keys of its verification only");
	add("a", 2, 100);
	ok(knows("a", 2) && tokens() == 1, "verified again under new keys it takes its own place");
	seen_count(&seen, &count);
	ok(count.hits == 2 && count.misses == 3, "hits and misses are counted");
	add("b", 1, 100);
	add("c", 2, 50);
	seen_prune(&seen, 2, 49);
	ok(tokens() == 2 && knows("a", 2) && knows("c", 2), "what is of other keys is forgotten");
	seen_prune(&seen, 2, 50);
	ok(tokens() == 1 && knows("a", 2), "and so is what has expired");
	seen_free(&seen);
}

static void
test_bound(void)
{
	char		token[32];
	int			kept = 0;

	ok(seen_init(&seen, 1000), "again a thousand");
	for (int i = 0; i < 100000; i++)
	{
		snprintf(token, sizeof(token), "token %d", i);
		add(token, 1, 100);
		if (i % 4 == 0 && knows("token 0", 1))
			kept++;
	}
	ok(tokens() <= 1000 && tokens() > 400, "a hundred thousand tokens stay within the bound (%d)", (int) tokens());
	ok(kept == 25000, "and do not push out one that is always in use (%d times of 25000)", kept);
	seen_free(&seen);

	ok(seen_init(&seen, 0), "a cache of none");
	add("a", 1, 100);
	ok(!knows("a", 1) && tokens() == 0, "keeps none");
	seen_prune(&seen, 1, 1000);
	seen_free(&seen);
}

/* Nothing but the very same token is one that was seen. */
static void
test_exact(void)
{
	(void) seen_init(&seen, 1000);
	add("header.payload.signature", 1, 100);
	ok(knows("header.payload.signature", 1), "a token is known again");
	ok(!knows("header.payloaD.signature", 1), "not with another payload");
	ok(!knows("headeR.payload.signature", 1), "not with another header");
	ok(!knows("header.payload.signaturE", 1), "not with another signature");
	ok(!knows("header.payload.signature.", 1) && !knows("header.payload.", 1) && !knows("header.payload", 1) && !knows(".signature", 1) &&
	   !knows("signature", 1) && !knows("payload.signature", 1), "not a part of it, or more");
	add("header.other.signature", 1, 100);
	ok(knows("header.payload.signature", 1) && knows("header.other.signature", 1), "two of one signature are two");
	seen_free(&seen);
}

static void
test_secret(void)
{
	SeenKey		one;
	SeenKey		other;

	(void) seen_init(&seen, 1000);
	seen_key(&seen, "a", 1, &one);
	seen_free(&seen);
	(void) seen_init(&seen, 1000);
	seen_key(&seen, "a", 1, &other);
	ok(memcmp(&one.digest, &other.digest, sizeof(one.digest)) != 0, "where a token is put differs from node to node");
	seen_free(&seen);
}

int
main(void)
{
	test_keys();
	test_bound();
	test_exact();
	test_secret();
	return tap_done();
}

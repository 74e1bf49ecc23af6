/*
 * seen.h
 *		Tokens that this node has verified before, so that their signatures are
 *		not checked again.
 *
 * An entry holds the text that was signed, to be compared byte for byte, and of the signature a keyed digest, by which it is found: what
 * lies here is no token, nobody can aim tokens at one place of the table, and most of a token need not be hashed. Whether the token is live is not its business: that is judged at each request. Any number
 * of threads may use it at once.
 */
#ifndef SESSAUTH_NODE_SEEN_H
#define SESSAUTH_NODE_SEEN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/token.h"
#include "node/keyed.h"
#include "node/memory.h"

#define SEEN_SHARDS		64

/* What a decision needs of a verified token. */
typedef struct Claims
{
	MemoryName	session;
	MemoryName	user;
	MemoryName	tenant;
	MemoryName	key;
	int64_t		epoch;
	int64_t		tepoch;
	int64_t		begin;			/* iat or nbf, whichever is later */
	int64_t		exp;
	int64_t		keys_begun;		/* when the keys were asked for that have verified it */
	char		sid[37];
	char		tid[SA_TENANT_ID_MAX + 1];
	char		uid[SA_USER_ID_MAX + 1];
} Claims;

/* By what a token is found. */
typedef struct SeenKey
{
	KeyedDigest digest;			/* of the signature */
	const char *text;			/* in front of it; the caller's */
	size_t		len;
} SeenKey;

typedef struct SeenShard SeenShard;

typedef struct Seen
{
	Keyed		keyed;
	size_t		sets;			/* in each shard; a power of two; 0: no cache */
	SeenShard  *shards;
} Seen;

/* Room for max tokens, rounded down to a power of two, but never below 256; 0: none. False when memory is short. */
extern bool seen_init(Seen *seen, size_t max);
extern void seen_free(Seen *seen);

/* Points into the token. */
extern void seen_key(const Seen *seen, const char *token, size_t len, SeenKey *out);

/* True, and *out, when the token was added under the same keys. */
extern bool seen_find(Seen *seen, const SeenKey *key, uint64_t keys, Claims *out);

/*
 * Remembers a token that was verified with this set of keys (a number that changes whenever they do). It
 * takes the place of one that is of other keys, or else was not asked for the longest.
 */
extern void seen_add(Seen *seen, const SeenKey *key, uint64_t keys, const Claims *claims);

/* Forgets what was added under other keys than these, and what had expired before now (unix seconds). */
extern void seen_prune(Seen *seen, uint64_t keys, int64_t now);

typedef struct SeenCount
{
	int64_t		tokens;
	int64_t		hits;
	int64_t		misses;
} SeenCount;

extern void seen_count(Seen *seen, SeenCount *out);

#endif							/* SESSAUTH_NODE_SEEN_H */

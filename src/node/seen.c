/*
 * seen.c
 *		The table of verified tokens: shards, each with its lock, of small sets.
 *
 * A set has a few places and never grows, so the table is bounded, a lookup looks at one set, and
 * whoever floods it can push out tokens, which are then verified once more, and nothing else.
 */
#include "node/seen.h"

#include <stdlib.h>
#include <string.h>

#define WAYS	4
#define TOKENS_MIN	(SEEN_SHARDS * WAYS)

typedef struct SeenToken
{
	KeyedDigest	digest;
	uint64_t	keys;
	uint64_t	used;			/* by the shard's count of lookups */
	Claims	   *claims;			/* cut behind the uid's NUL, and the text behind it; NULL: free */
	size_t		len;			/* of the text */
} SeenToken;

struct SeenShard
{
	_Alignas(64) pthread_mutex_t lock;
	SeenToken  *tokens;			/* WAYS for each set */
	uint64_t	lookups;
	SeenCount	count;
};

static SeenShard *shard_of(const Seen *seen, const KeyedDigest *digest);
static SeenToken *set_of(const Seen *seen, const SeenShard *shard, const KeyedDigest *digest);
static bool is_it(const SeenToken *token, const SeenKey *key);
static size_t size_of(const Claims *claims);

bool
seen_init(Seen *seen, size_t max)
{
	memset(seen, 0, sizeof(*seen));
	if (max == 0)
		return true;
	if (!keyed_init(&seen->keyed))
		return false;
	seen->shards = aligned_alloc(_Alignof(SeenShard), SEEN_SHARDS * sizeof(SeenShard));
	if (seen->shards == NULL)
		return false;
	memset(seen->shards, 0, SEEN_SHARDS * sizeof(SeenShard));
	for (int i = 0; i < SEEN_SHARDS; i++)
		pthread_mutex_init(&seen->shards[i].lock, NULL);
	seen->sets = 1;
	while (seen->sets * 2 * TOKENS_MIN <= max)
		seen->sets *= 2;
	for (int i = 0; i < SEEN_SHARDS; i++)
	{
		seen->shards[i].tokens = calloc(seen->sets * WAYS, sizeof(SeenToken));
		if (seen->shards[i].tokens == NULL)
			return false;
	}
	return true;
}

void
seen_free(Seen *seen)
{
	for (int i = 0; seen->shards && i < SEEN_SHARDS; i++)
	{
		SeenShard  *shard = &seen->shards[i];

		for (size_t j = 0; shard->tokens && j < seen->sets * WAYS; j++)
			free(shard->tokens[j].claims);
		free(shard->tokens);
		pthread_mutex_destroy(&shard->lock);
	}
	free(seen->shards);
	sa_wipe(seen, sizeof(*seen));
}

/* What has no dot is no token, and all signature. */
void
seen_key(const Seen *seen, const char *token, size_t len, SeenKey *out)
{
	if (seen->sets == 0)
		return;
	out->text = token;
	out->len = len;
	while (out->len > 0 && token[out->len - 1] != '.')
		out->len--;
	keyed_digest(&seen->keyed, token + out->len, len - out->len, &out->digest);
}

bool
seen_find(Seen *seen, const SeenKey *key, uint64_t keys, Claims *out)
{
	SeenShard  *shard;
	SeenToken  *set;
	bool		found = false;

	if (seen->sets == 0)
		return false;
	shard = shard_of(seen, &key->digest);
	pthread_mutex_lock(&shard->lock);
	set = set_of(seen, shard, &key->digest);
	shard->lookups++;
	for (int i = 0; i < WAYS && !found; i++)
	{
		if (set[i].claims && set[i].keys == keys && is_it(&set[i], key))
		{
			memcpy(out, set[i].claims, size_of(set[i].claims));
			set[i].used = shard->lookups;
			found = true;
		}
	}
	if (found)
		shard->count.hits++;
	else
		shard->count.misses++;
	pthread_mutex_unlock(&shard->lock);
	return found;
}

void
seen_add(Seen *seen, const SeenKey *key, uint64_t keys, const Claims *claims)
{
	SeenShard  *shard;
	SeenToken  *set;
	SeenToken  *place;
	Claims	   *copy;

	if (seen->sets == 0)
		return;
	copy = malloc(size_of(claims) + key->len);
	if (copy == NULL)
		return;
	memcpy(copy, claims, size_of(claims));
	memcpy((char *) copy + size_of(claims), key->text, key->len);

	shard = shard_of(seen, &key->digest);
	pthread_mutex_lock(&shard->lock);
	place = set = set_of(seen, shard, &key->digest);
	for (int i = 0; i < WAYS; i++)
	{
		if (set[i].claims == NULL || set[i].keys != keys || is_it(&set[i], key))
		{
			place = &set[i];
			break;
		}
		if (set[i].used < place->used)
			place = &set[i];
	}
	if (place->claims == NULL)
		shard->count.tokens++;
	free(place->claims);
	place->digest = key->digest;
	place->len = key->len;
	place->keys = keys;
	place->used = shard->lookups;
	place->claims = copy;
	pthread_mutex_unlock(&shard->lock);
}

void
seen_prune(Seen *seen, uint64_t keys, int64_t now)
{
	for (int i = 0; i < SEEN_SHARDS && seen->sets > 0; i++)
	{
		SeenShard  *shard = &seen->shards[i];

		pthread_mutex_lock(&shard->lock);
		for (size_t j = 0; j < seen->sets * WAYS && shard->count.tokens > 0; j++)
		{
			SeenToken  *token = &shard->tokens[j];

			if (token->claims && (token->keys != keys || token->claims->exp <= now))
			{
				free(token->claims);
				token->claims = NULL;
				shard->count.tokens--;
			}
		}
		pthread_mutex_unlock(&shard->lock);
	}
}

void
seen_count(Seen *seen, SeenCount *out)
{
	memset(out, 0, sizeof(*out));
	for (int i = 0; i < SEEN_SHARDS && seen->sets > 0; i++)
	{
		SeenShard  *shard = &seen->shards[i];

		pthread_mutex_lock(&shard->lock);
		out->tokens += shard->count.tokens;
		out->hits += shard->count.hits;
		out->misses += shard->count.misses;
		pthread_mutex_unlock(&shard->lock);
	}
}

static SeenShard *
shard_of(const Seen *seen, const KeyedDigest *digest)
{
	return &seen->shards[digest->part[0] % SEEN_SHARDS];
}

static SeenToken *
set_of(const Seen *seen, const SeenShard *shard, const KeyedDigest *digest)
{
	return &shard->tokens[(digest->part[1] & (seen->sets - 1)) * WAYS];
}

static bool
is_it(const SeenToken *token, const SeenKey *key)
{
	return memcmp(token->digest.part, key->digest.part, sizeof(key->digest.part)) == 0 && token->len == key->len &&
		memcmp((const char *) token->claims + size_of(token->claims), key->text, key->len) == 0;
}

static size_t
size_of(const Claims *claims)
{
	return offsetof(Claims, uid) + strlen(claims->uid) + 1;
}

/*
 * verified.c
 *		See verified.h.
 *
 * What is kept is what the token says and under which key that was found
 * genuine, not whether it is still good: every use asks the ledger about the session, the key and the time. Kept by
 * SHA-256 of the token, so nobody can choose where it lands; the tokens themselves are not kept. Everything is
 * forgotten when a key or the issuer or audience changes.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "core/digest.h"
#include "core/encoding.h"
#include "ledger/signing.h"
#include "ledger/ledger.h"
#include "ledger/verified.h"
#include "server/settings.h"

#define VERIFIED_MAX	2048	/* tokens; beyond that the oldest is forgotten */
#define VERIFIED_BYTES	4096	/* of one token: a longer one is verified each time */

typedef struct Entry
{
	unsigned char digest[SA_DIGEST_LEN];	/* the key; first, as dynahash wants it */
	char	   *memory;			/* holds what the token points to */
	Verified	token;
} Entry;

static struct
{
	MemoryContext context;		/* NULL: empty */
	HTAB	   *table;
	unsigned char order[VERIFIED_MAX][SA_DIGEST_LEN];	/* a ring, by age */
	int			count;
	int			oldest;
	uint64		keys;			/* signing_changes() */
	char	   *issuer;
	char	   *audience;
} cache;

static bool digest_of(const char *text, size_t len, unsigned char digest[SA_DIGEST_LEN]);
static bool is_current(void);
static void begin(void);
static void keep(const unsigned char *digest, const Verified *token);
static uint32 digest_hash(const void *key, Size size);

SaTokenResult
verified_read(const char *text, size_t len, int64 now, const Verified **out)
{
	static MemoryContext scratch = NULL;	/* of the last token that was not kept */
	static Verified read;
	SaTokenRules rules = {.issuer = setting_issuer, .audience = setting_audience, .now = now, .want_claims = true};
	SaTokenResult result;
	SaToken		token;
	unsigned char digest[SA_DIGEST_LEN];
	bool		hashed = len <= VERIFIED_BYTES && digest_of(text, len, digest);
	char	   *claims = NULL;

	if (hashed && is_current())
	{
		Entry	   *entry = hash_search(cache.table, digest, HASH_FIND, NULL);

		/* The ledger's time never goes back, so it is not "not yet valid" again. */
		if (entry != NULL)
		{
			*out = &entry->token;
			return now >= entry->token.exp ? SA_TOKEN_EXPIRED : SA_TOKEN_OK;
		}
	}

	if (scratch == NULL)
		scratch = AllocSetContextCreate(TopMemoryContext, "sessauth token", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(scratch);

	/* Nothing may throw between the reader and its end, because its memory is not palloc'ed. */
	memset(&token, 0, sizeof(token));
	result = sa_token_read(text, len, signing_lookup, NULL, &rules, &token);
	if (result == SA_TOKEN_OK || result == SA_TOKEN_EXPIRED || result == SA_TOKEN_NOT_YET_VALID)
	{
		read.iat = token.iat;
		read.exp = token.exp;
		read.epoch = token.epoch;
		read.tepoch = token.tepoch;
		read.kid = MemoryContextAllocExtended(scratch, strlen(token.kid) + 1, MCXT_ALLOC_NO_OOM);
		read.tid = MemoryContextAllocExtended(scratch, strlen(token.tid) + 1, MCXT_ALLOC_NO_OOM);
		read.uid = MemoryContextAllocExtended(scratch, strlen(token.uid) + 1, MCXT_ALLOC_NO_OOM);
		if (token.claims)
			claims = MemoryContextAllocExtended(scratch, strlen(token.claims) + 1, MCXT_ALLOC_NO_OOM);
		if (read.kid == NULL || read.tid == NULL || read.uid == NULL || (token.claims && claims == NULL) ||
			!sa_uuid_decode(token.sid, strlen(token.sid), read.sid.data))
			result = SA_TOKEN_ERROR;
		else
		{
			strcpy(read.kid, token.kid);
			strcpy(read.tid, token.tid);
			strcpy(read.uid, token.uid);
			if (claims)
				strcpy(claims, token.claims);
		}
	}
	sa_token_free(&token);

	if (result == SA_TOKEN_ERROR)
		openssl_refused("check a token");
	if (result != SA_TOKEN_OK && result != SA_TOKEN_EXPIRED && result != SA_TOKEN_NOT_YET_VALID)
		return result;

	read.claims = NULL;
	if (claims)
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		read.claims = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(claims)));
		MemoryContextSwitchTo(old);
	}
	if (result == SA_TOKEN_OK && hashed)
		keep(digest, &read);
	*out = &read;
	return result;
}

static bool
digest_of(const char *text, size_t len, unsigned char digest[SA_DIGEST_LEN])
{
	static SaHasher *hasher = NULL;

	if (hasher == NULL)
		hasher = sa_hasher_new();
	return hasher != NULL && sa_hasher_sha256(hasher, text, len, digest);
}

/* Forgets everything when it was verified under other keys or rules. */
static bool
is_current(void)
{
	if (cache.context == NULL)
		return false;
	if (cache.keys == signing_changes() && strcmp(cache.issuer, setting_issuer) == 0 && strcmp(cache.audience, setting_audience) == 0)
		return true;
	MemoryContextDelete(cache.context);
	cache.context = NULL;
	return false;
}

static void
begin(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sessauth verified tokens", ALLOCSET_DEFAULT_SIZES);
	HASHCTL		control = {.keysize = SA_DIGEST_LEN, .entrysize = sizeof(Entry), .hash = digest_hash, .hcxt = context};

	cache.table = hash_create("sessauth verified tokens", 256, &control, HASH_ELEM | HASH_FUNCTION | HASH_CONTEXT);
	cache.issuer = MemoryContextStrdup(context, setting_issuer);
	cache.audience = MemoryContextStrdup(context, setting_audience);
	cache.keys = signing_changes();
	cache.count = 0;
	cache.oldest = 0;
	cache.context = context;
}

static void
keep(const unsigned char *digest, const Verified *token)
{
	size_t		claims = token->claims ? MAXALIGN(VARSIZE(token->claims)) : 0;
	size_t		kid = strlen(token->kid) + 1;
	size_t		tid = strlen(token->tid) + 1;
	size_t		uid = strlen(token->uid) + 1;
	char	   *memory;
	Entry	   *entry;
	bool		found;

	if (cache.context == NULL)
		begin();
	if (cache.count == VERIFIED_MAX)
	{
		entry = hash_search(cache.table, cache.order[cache.oldest], HASH_REMOVE, NULL);
		if (entry != NULL)
			pfree(entry->memory);
		cache.oldest = (cache.oldest + 1) % VERIFIED_MAX;
		cache.count--;
	}

	/* What may throw comes first: an entry in the table is whole. */
	memory = MemoryContextAlloc(cache.context, claims + kid + tid + uid);
	entry = hash_search(cache.table, digest, HASH_ENTER, &found);
	entry->memory = memory;
	entry->token = *token;
	if (token->claims)
		entry->token.claims = memcpy(memory, token->claims, VARSIZE(token->claims));
	entry->token.kid = memcpy(memory + claims, token->kid, kid);
	entry->token.tid = memcpy(memory + claims + kid, token->tid, tid);
	entry->token.uid = memcpy(memory + claims + kid + tid, token->uid, uid);
	memcpy(cache.order[(cache.oldest + cache.count) % VERIFIED_MAX], digest, SA_DIGEST_LEN);
	cache.count++;
}

static uint32
digest_hash(const void *key, Size size)
{
	uint32		hash;

	memcpy(&hash, key, sizeof(hash));
	return hash;
}

/*
 * decide.c
 *		One token: signature, memory, ledger's clock, lease.
 *
 * What is known against a token is true for ever, so it is said with or without a lease. Only
 * "active" needs one, and the order of the last steps is what keeps the bound:
 *
 * - the memory is looked up and the end of the lease is read under one lock, so the memory already held
 *	 everything that was committed before end - max_staleness;
 * - the clock is read after that, last of all. At the moment c of that reading c < end, so a revocation that was
 *	 missed is younger than c - max_staleness, however long the thread was stopped in between. With
 *	 the clock read first, or the end read after the lookup, a pause could stretch the bound at will.
 *
 * Expiry goes by that last reading too. It is later than any by which the memory forgot something, so nothing
 * is accepted whose revocation was forgotten.
 */
#include <string.h>

#include "core/token.h"
#include "node/node.h"

static const SaKey *lookup(void *arg, const char *kid, size_t kidlen);
static bool newer_keys(SessauthNode *node, int64_t arrived, bool *tried);
static SessauthCode unknown_key(SessauthNode *node, bool tried, SessauthDecision *out);
static SessauthCode judge(SessauthNode *node, const Claims *claims);
static void claims_of(const SessauthNode *node, const SaToken *token, Claims *out);

SessauthCode
sessauth_decide(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out)
{
	Claims		claims;

	return decide_token(node, token, len, arrived, out, &claims);
}

SessauthCode
decide_token(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out, Claims *claims)
{
	SaTokenRules rules = {.issuer = node->issuer, .audience = node->audience, .now = -1};
	SharedKeys *keys;
	SaToken		read;
	SaTokenResult result;
	SeenKey		key;
	bool		cacheable = len <= SA_TOKEN_MAX;	/* longer ones are malformed, and not worth hashing */
	int64_t		begun;
	uint64_t	serial;
	bool		tried = false;

	/* In this order, keys whose end comes between the two are taken for older than they are. */
	begun = atomic_load(&node->keys_begun);
	serial = atomic_load(&node->keys_serial);
	out->why = SESSAUTH_WHY_NONE;
	if (cacheable)
		seen_key(&node->seen, token, len, &key);
	if (cacheable && seen_find(&node->seen, &key, serial, claims))
	{
		claims->keys_begun = begun;
		out->source = SESSAUTH_SOURCE_CACHE;
		return decide_claims(node, claims, out);
	}

	/* "Unknown" is certain only by keys that were asked for after this token had arrived. */
	do
	{
		memset(out, 0, sizeof(*out));
		memset(&read, 0, sizeof(read));
		keys = keys_use(node);
		result = sa_token_read(token, len, lookup, keys, &rules, &read);
		begun = keys ? keys->begun : 0;
		serial = keys ? keys->serial : 0;
		if (keys)
			keys_release(keys);
	} while (result == SA_TOKEN_UNKNOWN_KEY && begun <= arrived && newer_keys(node, arrived, &tried));
	switch (result)
	{
		case SA_TOKEN_OK:
			out->source = SESSAUTH_SOURCE_LOCAL;
			claims_of(node, &read, claims);
			claims->keys_begun = begun;
			seen_add(&node->seen, &key, serial, claims);
			(void) decide_claims(node, claims, out);
			break;
		case SA_TOKEN_UNKNOWN_KEY:
			out->code = begun > arrived ? SESSAUTH_UNKNOWN_KEY : unknown_key(node, tried, out);
			break;
		case SA_TOKEN_BAD_SIGNATURE:
			out->code = SESSAUTH_BAD_SIGNATURE;
			break;
		case SA_TOKEN_WRONG_ISSUER:
			out->code = SESSAUTH_WRONG_ISSUER;
			break;
		case SA_TOKEN_MALFORMED:
			out->code = SESSAUTH_MALFORMED;
			break;
		default:
			out->code = SESSAUTH_CANNOT_TELL;
			out->why = SESSAUTH_WHY_INTERNAL;
			break;
	}
	sa_token_free(&read);
	return out->code;
}

static const SaKey *
lookup(void *arg, const char *kid, size_t kidlen)
{
	SharedKeys *keys = arg;

	return keys ? sa_keyset_find(keys->set, kid, kidlen) : NULL;
}

/* True when keys that were asked for after that moment have come; else *tried says whether that has failed meanwhile. */
static bool
newer_keys(SessauthNode *node, int64_t arrived, bool *tried)
{
	bool		newer;

	pthread_mutex_lock(&node->keys_lock);
	newer = node->keys && node->keys->begun > arrived;
	*tried = node->keys_tried > arrived;
	pthread_mutex_unlock(&node->keys_lock);
	return newer;
}

static SessauthCode
unknown_key(SessauthNode *node, bool tried, SessauthDecision *out)
{
	out->why = tried ? SESSAUTH_WHY_KEYS_FAILED : SESSAUTH_WHY_KEYS_PENDING;
	keys_request(node);
	return SESSAUTH_CANNOT_TELL;
}

static void
claims_of(const SessauthNode *node, const SaToken *token, Claims *out)
{
	memcpy(out->tid, token->tid, sizeof(out->tid));
	memcpy(out->uid, token->uid, sizeof(out->uid));
	memcpy(out->sid, token->sid, sizeof(out->sid));
	out->epoch = token->epoch;
	out->tepoch = token->tepoch;
	out->begin = token->iat > token->nbf ? token->iat : token->nbf;
	out->exp = token->exp;
	memory_name(&node->memory, SA_KIND_SESSION, token->tid, token->sid, &out->session);
	memory_name(&node->memory, SA_KIND_USER, token->tid, token->uid, &out->user);
	memory_name(&node->memory, SA_KIND_TENANT, token->tid, "", &out->tenant);
	memory_name(&node->memory, SA_KIND_KEY, "", token->kid, &out->key);
}

SessauthCode
decide_claims(SessauthNode *node, const Claims *claims, SessauthDecision *out)
{
	decide_describe(claims, out);
	out->why = SESSAUTH_WHY_NONE;
	out->code = judge(node, claims);
	if (out->code == SESSAUTH_CANNOT_TELL)
		out->why = SESSAUTH_WHY_LEASE;
	return out->code;
}

void
decide_describe(const Claims *claims, SessauthDecision *out)
{
	strcpy(out->tid, claims->tid);
	strcpy(out->uid, claims->uid);
	strcpy(out->sid, claims->sid);
	out->epoch = claims->epoch;
	out->expires_at = claims->exp;
}

static SessauthCode
judge(SessauthNode *node, const Claims *claims)
{
	bool		revoked;
	int64_t		end;
	int64_t		horizon;
	int64_t		keys_from;
	LedgerClock ledger;
	int64_t		now;

	many_readers_read(&node->known_lock);
	revoked = memory_epoch(&node->memory, &claims->session) != 0 ||
		memory_epoch(&node->memory, &claims->user) > claims->epoch ||
		memory_epoch(&node->memory, &claims->tenant) > claims->tepoch ||
		memory_epoch(&node->memory, &claims->key) != 0;
	end = node->lease.end;
	horizon = node->lease.horizon;
	keys_from = node->lease.keys_from;
	ledger = node->ledger_clock;
	many_readers_end_read(&node->known_lock);

	now = clock_now();
	if (revoked)
		return SESSAUTH_REVOKED;

	/* The leeway does not reach behind the horizon: revocations of what expired before it were never told to this node. */
	if (ledger.has_lower &&
		(claims->exp <= (now + ledger.lower) / 1000000 - node->leeway || claims->exp * 1000000 <= horizon))
		return SESSAUTH_EXPIRED;

	/* Not by the newest keys: those that have verified this token may be older, and from before its key's end. */
	if (!ledger.has_lower || now >= end || claims->keys_begun < keys_from)
		return SESSAUTH_CANNOT_TELL;

	/*
	 * Whole seconds: a token of this very second is not from the future. Unlike what is over, what has not begun may have begun by a clock that was
	 * set forward since the last answer, so only PostgreSQL may say "not yet valid".
	 */
	if (ledger.has_upper && claims->begin > (now + ledger.upper) / 1000000 + 1 + node->leeway)
		return SESSAUTH_CANNOT_TELL;
	return SESSAUTH_ACTIVE;
}

/*
 * token.h
 *		Access tokens: JWS compact, typ at+jwt (RFC 7515, 7519, 9068).
 *
 * One strict reader serves the database and the nodes, so that they can never
 * disagree on what a token says. It takes the compact form only, at most
 * SA_TOKEN_MAX bytes, canonical base64url, no duplicate members, no trailing
 * bytes, JSON at most 32 levels deep, typ "at+jwt" (or "application/at+jwt", either case), no crit, and
 * only the algorithm of the key that the kid names. All claims of RFC 9068 are
 * required, also client_id and jti; numbers must be JSON integers.
 */
#ifndef SESSAUTH_CORE_TOKEN_H
#define SESSAUTH_CORE_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "key.h"

#define SA_TOKEN_MAX		8192	/* bytes of a whole token */
#define SA_TENANT_ID_MAX	128		/* bytes */
#define SA_USER_ID_MAX		255		/* bytes */
#define SA_CLAIMS_MAX		4096	/* bytes of the caller's own claims as JSON */

typedef enum SaTokenResult
{
	SA_TOKEN_OK,
	SA_TOKEN_MALFORMED,			/* also: too long, alg none, alg not the key's own, crit */
	SA_TOKEN_UNKNOWN_KEY,
	SA_TOKEN_BAD_SIGNATURE,
	SA_TOKEN_WRONG_ISSUER,		/* or audience */
	SA_TOKEN_NOT_YET_VALID,		/* iat or nbf beyond now + leeway */
	SA_TOKEN_EXPIRED,			/* exp <= now - leeway */
	SA_TOKEN_ERROR				/* out of memory (as far as jansson tells: json.c) or broken OpenSSL: nothing is known about the token */
} SaTokenResult;

/* "ok", "malformed", "unknown_key", ... as in the outcomes of sessauth.verify(). */
extern const char *sa_token_result_name(SaTokenResult result);

/*
 * What a token says. tid, uid: 1 to SA_TENANT_ID_MAX / SA_USER_ID_MAX bytes,
 * clean text (sa_text_is_clean). sid: 36 characters. Times are unix seconds.
 */
typedef struct SaToken
{
	char		tid[SA_TENANT_ID_MAX + 1];
	char		uid[SA_USER_ID_MAX + 1];
	char		sid[37];
	char		kid[128];
	int64_t		epoch;
	int64_t		tepoch;
	int64_t		iat;
	int64_t		exp;
	int64_t		nbf;			/* 0 when the token has none */
	char	   *claims;			/* the caller's own claims as a JSON object, malloc'ed, or NULL; freed by sa_token_free */
} SaToken;

/* Finds a key by kid for the reader; NULL when it does not know it. */
typedef const SaKey *(*SaKeyLookup) (void *arg, const char *kid, size_t kidlen);

typedef struct SaTokenRules
{
	const char *issuer;
	const char *audience;
	int64_t		now;			/* unix seconds; negative: do not check iat, nbf and exp */
	int64_t		leeway;			/* seconds, 0 or more */
	bool		want_claims;	/* fill SaToken.claims */
} SaTokenRules;

/*
 * Reads and checks a token. Checks run in the order of SaTokenResult: nothing
 * of the payload is believed before the signature was verified. On
 * SA_TOKEN_OK, _NOT_YET_VALID and _EXPIRED *out is filled (an expired token still ends its
 * session at logout); otherwise only kid may be set. The caller calls sa_token_free.
 */
extern SaTokenResult sa_token_read(const char *text, size_t len, SaKeyLookup lookup, void *arg,
								   const SaTokenRules *rules, SaToken *out);
extern void sa_token_free(SaToken *token);	/* frees what it points to, not the struct */

typedef struct SaTokenDraft
{
	const char *issuer;
	const char *audience;
	const char *client_id;		/* NULL: tid */
	const char *tid;
	const char *uid;
	const char *sid;
	int64_t		epoch;
	int64_t		tepoch;
	int64_t		iat;
	int64_t		exp;
	const char *claims;			/* the caller's own claims: a JSON object, or NULL */
} SaTokenDraft;

/*
 * Signs a token; its jti is 16 random bytes. Claims of the caller that are
 * named like a registered or sessauth claim are refused by
 * sa_claims_check, and never override here. malloc'ed; NULL on failure or when the
 * result would pass SA_TOKEN_MAX.
 */
extern char *sa_token_mint(const SaKey *key, const char *kid, const SaTokenDraft *draft);

/*
 * NULL when the claims are a JSON object that may be embedded, else a static English reason in lower case.
 * Reserved: iss aud sub client_id jti iat exp nbf tid uid sid epoch tepoch, typ cty alg kid crit, active token_type.
 * Integers beyond 64 bits and nesting beyond 32 levels are refused too: no reader would take the token.
 * SaToken.claims gives back the same values in the same order, as jansson writes them: compact, reals with
 * 17 digits. Their length counts in that form, too.
 */
extern const char *sa_claims_check(const char *json, size_t len);

#endif							/* SESSAUTH_CORE_TOKEN_H */

/*
 * key.h
 *		Signing keys: generate, store, publish as JWK, sign and verify.
 *
 * An SaKey wraps one OpenSSL key and the one algorithm that it may be used
 * with, so that a token's header can never choose (RFC 8725, section 3.1).
 * An SaKey is immutable after creation; any number of threads may verify with it at once.
 */
#ifndef SESSAUTH_CORE_KEY_H
#define SESSAUTH_CORE_KEY_H

#include <stdbool.h>
#include <stddef.h>

typedef enum SaAlg
{
	SA_ALG_ES256,				/* ECDSA P-256, SHA-256, r||s (RFC 7518, 3.4) */
	SA_ALG_EDDSA,				/* Ed25519 (RFC 8037) */
	SA_ALG_RS256				/* RSA 3072 when generated, 2048 at least when read (RFC 7518, 3.3) */
} SaAlg;

#define SA_SIGNATURE_MAX	1024	/* bytes; enough for RSA 8192 */
#define SA_KID_LEN			43		/* RFC 7638 thumbprint, base64url */

typedef struct SaKey SaKey;

/* "ES256", "EdDSA", "RS256"; parsing is case-sensitive as in RFC 7515. */
extern const char *sa_alg_name(SaAlg alg);
extern bool sa_alg_parse(const char *name, size_t len, SaAlg *alg);

/* All constructors return NULL on failure; the caller frees with sa_key_free (NULL is fine). */
extern SaKey *sa_key_generate(SaAlg alg);
extern SaKey *sa_key_from_private_der(SaAlg alg, const void *der, size_t len);	/* PKCS #8 */

/*
 * From a public JWK. "kty" and "crv" decide on the algorithm; "alg", "use" and
 * "key_ops" may be missing but must not contradict. A JWK with a private
 * member "d" is refused: whoever could read it could sign with it.
 */
extern SaKey *sa_key_from_jwk(const char *json, size_t len);
extern void sa_key_free(SaKey *key);

extern SaAlg sa_key_alg(const SaKey *key);

/* PKCS #8 DER in malloc'ed memory; the caller wipes it (sa_wipe) and frees it. */
extern bool sa_key_private_der(const SaKey *key, unsigned char **der, size_t *len);

/* Public JWK with kty, the key's own members, alg, use="sig", kid. malloc'ed; NULL on failure. */
extern char *sa_key_public_jwk(const SaKey *key, const char *kid);

/* RFC 7638 thumbprint: 43 characters and a NUL. */
extern bool sa_key_thumbprint(const SaKey *key, char out[SA_KID_LEN + 1]);

/* sig must hold SA_SIGNATURE_MAX bytes; *siglen is set. ECDSA signatures are r||s. */
extern bool sa_key_sign(const SaKey *key, const void *msg, size_t len, unsigned char *sig, size_t *siglen);
extern bool sa_key_verify(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen);

/* The same for callers who must not take "could not check" for "forged": 1 genuine, 0 not, -1 OpenSSL ran out of memory. */
extern int sa_key_check(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen);

/*
 * A set of public keys by kid (RFC 7517, section 5). Members whose kty or crv
 * is unknown, or whose text says that we cannot use them (use, alg, sizes), are skipped, as the RFC asks;
 * a member without kid is skipped. NULL when the text is no JWK set, when memory is short, when a key of ours is
 * broken (not on its curve), or when two have the same kid: which of them a token meant would depend on the reader.
 * At most 256 keys, 256 KiB.
 */
typedef struct SaKeySet SaKeySet;

extern SaKeySet *sa_keyset_parse(const char *json, size_t len);
extern const SaKey *sa_keyset_find(const SaKeySet *set, const char *kid, size_t kidlen);
extern size_t sa_keyset_count(const SaKeySet *set);
extern const char *sa_keyset_kid(const SaKeySet *set, size_t i, size_t *len);	/* of one of them, i below the count; without a NUL at its end */
extern void sa_keyset_free(SaKeySet *set);

#endif							/* SESSAUTH_CORE_KEY_H */

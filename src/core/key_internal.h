/*
 * key_internal.h
 *		What the key*.c files share. Internal to core.
 */
#ifndef SESSAUTH_CORE_KEY_INTERNAL_H
#define SESSAUTH_CORE_KEY_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "key.h"

#define EC_COORDINATE_LEN	32
#define RSA_BITS_MIN	2048
#define RSA_EXPONENT_BITS_MAX	64	/* larger ones only cost the verifier time */

#define SA_KEY_IDLE_MAX	8

struct SaKey
{
	SaAlg		alg;
	bool		can_sign;
	EVP_PKEY   *pkey;
	EVP_MD	   *md;				/* NULL for EdDSA */
	_Atomic(EVP_PKEY_CTX *) idle[SA_KEY_IDLE_MAX];	/* prepared to verify, in nobody's hands; or NULL */
};

/* Takes the OpenSSL key over, also when it refuses it. NULL in, NULL out. */
extern SaKey *sa_key_wrap(SaAlg alg, EVP_PKEY *pkey, bool can_sign);

/*
 * As sa_key_from_jwk, from a JWK that is parsed already. When it is NULL, *skip says whether the
 * JWK is for others, as its text shows: a set may go on without it. Otherwise its numbers
 * are no key, or memory was short, and a set without it would call good tokens unknown.
 */
extern SaKey *sa_key_from_jwk_object(const json_t *jwk, bool *skip);

#endif							/* SESSAUTH_CORE_KEY_INTERNAL_H */

/*
 * token_header.h
 *		The header of a token (RFC 7515, section 4): alg, typ and kid. Internal to core.
 */
#ifndef SESSAUTH_CORE_TOKEN_HEADER_H
#define SESSAUTH_CORE_TOKEN_HEADER_H

#include "token.h"

/*
 * Reads the decoded text: SA_TOKEN_OK with *alg and kid (which holds kidsize bytes and gets a NUL), SA_TOKEN_MALFORMED or SA_TOKEN_ERROR. Only alg,
 * kid and typ count. A key or the address of a key in the header (jwk, jku, x5c, x5u) is never looked at, and crit is always something
 * that we do not understand.
 */
extern SaTokenResult sa_token_header_read(const char *text, size_t len, SaAlg *alg, char *kid, size_t kidsize);

/* Returns the length; 0 when it does not fit or memory is short. */
extern size_t sa_token_header_write(SaAlg alg, const char *kid, char *out, size_t outsize);

#endif							/* SESSAUTH_CORE_TOKEN_HEADER_H */

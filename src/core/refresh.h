/*
 * refresh.h
 *		Refresh tokens: opaque, authenticated, chained.
 *
 *	"sar_" b64url( 0x01 | session id (16) | counter (8, big-endian) | secret (32) | mac (32) )
 *
 * The MAC tells a forged token from a used one without a table of old hashes:
 * mac = sa_mac(refresh key, "sessauth/1/refresh", session id, counter, secret). The secret of a
 * successor is derived: sa_mac(refresh key, "sessauth/1/successor", session id, counter, secret, salt),
 * so that a client that lost the answer gets the same token again, for as long as the ledger keeps the salt.
 * All fields enter the MAC as bytes, the counter as its 8 big-endian ones. It is below 2^63, as a bigint is.
 */
#ifndef SESSAUTH_CORE_REFRESH_H
#define SESSAUTH_CORE_REFRESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"

#define SA_REFRESH_PREFIX		"sar_"
#define SA_REFRESH_TEXT_LEN		123 /* 4 + base64url of 89 bytes */
#define SA_SALT_LEN				32

typedef struct SaRefresh
{
	unsigned char sid[16];
	uint64_t	counter;		/* 1 for the first token of a session; never 0, below 2^63 */
	unsigned char secret[32];
} SaRefresh;

/* A first token with a random secret. False when randomness or OpenSSL fails. */
extern bool sa_refresh_first(const unsigned char sid[16], SaRefresh *out);

/* The successor of a presented token. */
extern bool sa_refresh_next(const unsigned char key[SA_KEY_LEN], const SaRefresh *token,
							const unsigned char salt[SA_SALT_LEN], SaRefresh *out);

/* Writes SA_REFRESH_TEXT_LEN characters and a NUL. */
extern bool sa_refresh_encode(const unsigned char key[SA_KEY_LEN], const SaRefresh *token,
							  char out[SA_REFRESH_TEXT_LEN + 1]);

/* True when the text is a token that this key has made; only then *out is set. */
extern bool sa_refresh_decode(const unsigned char key[SA_KEY_LEN], const char *text, size_t len, SaRefresh *out);

/* True when the text looks like a refresh token (its prefix), genuine or not. */
extern bool sa_refresh_looks_like(const char *text, size_t len);

#endif							/* SESSAUTH_CORE_REFRESH_H */

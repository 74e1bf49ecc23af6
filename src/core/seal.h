/*
 * seal.h
 *		Secrets at rest: AES-256-GCM under the master key.
 *
 *	0x01 | nonce (12, random) | ciphertext | tag (16); the label is authenticated, not stored,
 * so that one sealed secret cannot stand in for another.
 */
#ifndef SESSAUTH_CORE_SEAL_H
#define SESSAUTH_CORE_SEAL_H

#include <stdbool.h>
#include <stddef.h>

#include "digest.h"

#define SA_SEAL_OVERHEAD	29		/* bytes */

/* out must hold len + SA_SEAL_OVERHEAD bytes. */
extern bool sa_seal(const unsigned char master[SA_KEY_LEN], const char *label, const void *plain, size_t len,
					unsigned char *out);

/* False when the key or label is wrong or the bytes were changed. out must hold len - SA_SEAL_OVERHEAD bytes; it is wiped on failure. */
extern bool sa_unseal(const unsigned char master[SA_KEY_LEN], const char *label, const unsigned char *sealed, size_t len,
					  unsigned char *out);

/*
 * Reads a master or link key from the text of a key file: 64 hex digits, or 43/44
 * characters of base64/base64url; white space around it is ignored. False otherwise.
 */
extern bool sa_key_text_parse(const char *text, size_t len, unsigned char key[SA_KEY_LEN]);

#endif							/* SESSAUTH_CORE_SEAL_H */

/*
 * digest.h
 *		Hashes, MACs over framed fields, random bytes, comparison and wiping.
 *
 * The one place where core touches OpenSSL's digests. Nothing here leaves an
 * entry on OpenSSL's error queue, which PostgreSQL shares with its TLS code.
 */
#ifndef SESSAUTH_CORE_DIGEST_H
#define SESSAUTH_CORE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SA_DIGEST_LEN	32		/* SHA-256 */
#define SA_KEY_LEN		32		/* link key, refresh key, master key */
#define SA_MAC_TEXT_LEN	43		/* base64url of a MAC */

/* One field of a MAC. Build with the macros; the bytes must outlive the call. */
typedef struct SaField
{
	const void *data;
	size_t		len;
} SaField;

#define SA_FIELD(p, n)	((SaField) {(p), (n)})
#define SA_FIELD_STR(s)	((SaField) {(s), strlen(s)})	/* needs <string.h>; evaluates s twice */

/* False only when OpenSSL cannot work at all (out of memory, broken provider). */
extern bool sa_sha256(const void *data, size_t len, unsigned char out[SA_DIGEST_LEN]);

/*
 * The same for one thread that hashes all the time: keeps what OpenSSL would look up and allocate for each hash, which is
 * more work than hashing a token. NULL, or false, when OpenSSL fails. The caller frees it.
 */
typedef struct SaHasher SaHasher;
extern SaHasher *sa_hasher_new(void);
extern bool sa_hasher_sha256(SaHasher *hasher, const void *data, size_t len, unsigned char out[SA_DIGEST_LEN]);
extern void sa_hasher_free(SaHasher *hasher);

/*
 * HMAC-SHA-256 over each field's 4-byte big-endian length and bytes; the first
 * field is the label (doc/protocol.md, section 1).
 */
extern bool sa_mac(const unsigned char key[SA_KEY_LEN], const SaField *fields, size_t nfields,
				   unsigned char out[SA_DIGEST_LEN]);

/* The same as text: 43 characters and a NUL. */
extern bool sa_mac_text(const unsigned char key[SA_KEY_LEN], const SaField *fields, size_t nfields,
						char out[SA_MAC_TEXT_LEN + 1]);

/*
 * The same for one thread that checks many MACs of one key: keeps what OpenSSL would look up, allocate and derive from the
 * key for each of them, which is several times the hashing. NULL, or false, when OpenSSL fails. The caller frees it, which wipes the key.
 */
typedef struct SaMacKey SaMacKey;
extern SaMacKey *sa_mac_key_new(const unsigned char key[SA_KEY_LEN]);
extern bool sa_mac_key_text(SaMacKey *key, const SaField *fields, size_t nfields, char out[SA_MAC_TEXT_LEN + 1]);
extern void sa_mac_key_free(SaMacKey *key);

extern bool sa_random(void *out, size_t len);	/* cryptographically strong; false on failure */
extern bool sa_equal(const void *a, const void *b, size_t len); /* constant time */
extern void sa_wipe(void *p, size_t len);

#endif							/* SESSAUTH_CORE_DIGEST_H */

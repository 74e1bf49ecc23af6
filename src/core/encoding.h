/*
 * encoding.h
 *		Text forms of bytes: base64url, hex, percent-encoding, UUID.
 *
 * Plain functions over caller-owned buffers; nothing is allocated.
 */
#ifndef SESSAUTH_CORE_ENCODING_H
#define SESSAUTH_CORE_ENCODING_H

#include <stdbool.h>
#include <stddef.h>

/* Buffer size, terminating NUL included, for the encoding of n bytes. */
#define SA_B64URL_SIZE(n)	(((n) * 4 + 2) / 3 + 1)
#define SA_HEX_SIZE(n)		((n) * 2 + 1)
#define SA_PCT_SIZE(n)		((n) * 3 + 1)
#define SA_UUID_SIZE		37

/* base64url without padding (RFC 4648, section 5). Writes a NUL; returns the length without it. */
extern size_t sa_b64url_encode(const void *in, size_t len, char *out);

/*
 * Strict decoding: no padding, no white space, only the canonical form (unused bits zero).
 * False when the text is not that or does not fit in outsize.
 */
extern bool sa_b64url_decode(const char *in, size_t len, void *out, size_t outsize, size_t *outlen);

/* Lower-case hex. Writes a NUL; returns the length without it. */
extern size_t sa_hex_encode(const void *in, size_t len, char *out);

/* Either case; exactly outlen bytes. False when the text is anything else. */
extern bool sa_hex_decode(const char *in, size_t len, void *out, size_t outlen);

/* Everything outside A-Z a-z 0-9 - . _ ~ @ + becomes %XX. Writes a NUL; returns the length without it. */
extern size_t sa_pct_encode(const void *in, size_t len, char *out);

/* 16 bytes to and from the 36-character lower-case form. Decoding accepts only that form. */
extern void sa_uuid_encode(const unsigned char *uuid, char *out);
extern bool sa_uuid_decode(const char *in, size_t len, unsigned char *uuid);

/* True when the bytes are valid UTF-8 (RFC 3629) without control characters (U+0000-001F, 007F-009F). */
extern bool sa_text_is_clean(const void *in, size_t len);

#endif							/* SESSAUTH_CORE_ENCODING_H */

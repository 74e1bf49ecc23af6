/*
 * wire_text.h
 *		Pieces of text that the wire_*.c files share. Internal to core.
 */
#ifndef SESSAUTH_CORE_WIRE_TEXT_H
#define SESSAUTH_CORE_WIRE_TEXT_H

#include "wire.h"

#define SA_NUMBER_SIZE	24		/* a decimal below 2^63 and its NUL, with room */

/* Canonical decimal of a number that is not negative; returns the length. */
extern size_t sa_number_write(int64_t number, char out[SA_NUMBER_SIZE]);

/* False when it does not fit, or has a NUL inside, which would hide the rest from everybody who reads a C string. */
extern bool sa_text_copy(const SaField *value, char *out, size_t outsize);

/* True when the text is a UUID as sa_uuid_encode writes it. */
extern bool sa_uuid_valid(const char *text, size_t len);

/* True when the text is count bytes in lower-case hex. */
extern bool sa_hex_valid(const char *text, size_t len, size_t count);

/* True when the MAC of the fields is this text. Constant time in the text. */
extern bool sa_mac_matches(const unsigned char link[SA_KEY_LEN], const SaField *fields, size_t nfields,
						   const char *text, size_t len);

#endif							/* SESSAUTH_CORE_WIRE_TEXT_H */

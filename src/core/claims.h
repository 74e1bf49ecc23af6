/*
 * claims.h
 *		The caller's own claims inside a token's payload. Internal to core; sa_claims_check is in token.h.
 *
 * They travel as the bytes that the caller wrote: a parser in between would
 * turn 0.1 into 0.10000000000000001.
 */
#ifndef SESSAUTH_CORE_CLAIMS_H
#define SESSAUTH_CORE_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>

#include "json.h"

/* Members of own claims that may be open at one place; the payload has room for the others. */
#define SA_CLAIMS_NAMES_MAX	(SA_JSON_NAMES_MAX - 16)

/*
 * Appends checked claims to the object of len bytes in out. Returns the new
 * length, 0 when it does not fit.
 */
extern size_t sa_claims_append(const char *claims, size_t claimslen, char *out, size_t len, size_t outsize);

/*
 * The members of the payload that are not reserved, as a JSON object in
 * malloc'ed memory, or NULL when there are none. False when memory is short.
 */
extern bool sa_claims_extract(SaJson payload, char **claims);

#endif							/* SESSAUTH_CORE_CLAIMS_H */

/*
 * claims.h
 *		The caller's own claims inside a token's payload. Internal to core; sa_claims_check is in token.h.
 */
#ifndef SESSAUTH_CORE_CLAIMS_H
#define SESSAUTH_CORE_CLAIMS_H

#include <stdbool.h>

#include <jansson.h>

/* Adds checked claims to the payload; a member that it has already stays. False when memory is short. */
extern bool sa_claims_add(json_t *payload, const char *claims);

/*
 * Removes the reserved members from the payload. Sets *claims to the text of
 * the others in malloc'ed memory, or to NULL when there are none. False when memory is short.
 */
extern bool sa_claims_extract(json_t *payload, char **claims);

#endif							/* SESSAUTH_CORE_CLAIMS_H */

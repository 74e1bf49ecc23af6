/*
 * verified.h
 *		Access tokens whose signature this process has verified.
 */
#ifndef SESSAUTH_LEDGER_VERIFIED_H
#define SESSAUTH_LEDGER_VERIFIED_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "core/token.h"

/* What a genuine token says. Lives until the next call of verified_read. */
typedef struct Verified
{
	char	   *kid;
	char	   *tid;
	char	   *uid;
	pg_uuid_t	sid;
	int64		epoch;
	int64		tepoch;
	int64		iat;			/* unix seconds, as exp */
	int64		exp;
	Jsonb	   *claims;			/* the caller's own; NULL when there are none */
} Verified;

/*
 * Reads an access token at "now" (unix seconds), with the keys that signing_refresh has brought up to date. *out is
 * set on SA_TOKEN_OK, _EXPIRED and _NOT_YET_VALID. A token that was verified before costs a digest and a look-up.
 */
extern SaTokenResult verified_read(const char *text, size_t len, int64 now, const Verified **out);

#endif							/* SESSAUTH_LEDGER_VERIFIED_H */

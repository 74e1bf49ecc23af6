/*
 * bearer.h
 *		The session that a token of either kind belongs to.
 */
#ifndef SESSAUTH_LEDGER_BEARER_H
#define SESSAUTH_LEDGER_BEARER_H

#include "utils/jsonb.h"

#include "ledger/session.h"

typedef struct Bearer
{
	const char *outcome;		/* as sessauth.verify() says it; "active" when the token is good now */
	bool		is_refresh;
	bool		has_session;	/* genuine, and its session has a row: session is filled */
	SessionRow	session;
	int64		iat;			/* access tokens: unix seconds */
	TimestampTz expires_at;		/* of the token */
	Jsonb	   *claims;			/* access tokens: the caller's own; or NULL */
} Bearer;

/* False on a standby, unless sessauth.standby_verify lets it answer from what it has replayed. */
extern bool bearer_can_tell(void);

/*
 * Reads a token; needs no frame. Only tokens of tenants that the caller may
 * serve have a session here; to anybody else they are of another issuer. Never
 * throws for a bad token.
 */
extern void bearer_read(FunctionCallInfo fcinfo, Oid caller, int accesses, text *token, Bearer *out);

#endif							/* SESSAUTH_LEDGER_BEARER_H */

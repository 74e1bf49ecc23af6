/*
 * bearer.h
 *		The session that a token of either kind belongs to.
 */
#ifndef SESSAUTH_LEDGER_BEARER_H
#define SESSAUTH_LEDGER_BEARER_H

#include "ledger/session.h"

typedef struct Bearer
{
	const char *outcome;		/* as sessauth.verify() says it; "active" when the token is good now */
	bool		is_refresh;
	bool		has_session;	/* genuine, and its session has a row: session is filled */
	SessionRow	session;
	int64		iat;			/* access tokens: unix seconds */
	TimestampTz expires_at;		/* of the token */
	char	   *claims;			/* access tokens: the caller's own, as JSON; or NULL */
} Bearer;

/*
 * Reads a token inside a frame. Only tokens of tenants that the caller may
 * serve have a session here; to anybody else they are of another issuer. Never
 * throws for a bad token.
 */
extern void bearer_read(Oid caller, int accesses, text *token, Bearer *out);

#endif							/* SESSAUTH_LEDGER_BEARER_H */

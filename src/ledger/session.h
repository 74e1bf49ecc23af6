/*
 * session.h
 *		A session row with the epochs it is measured against, and the one rule
 *		that says whether it is live.
 */
#ifndef SESSAUTH_LEDGER_SESSION_H
#define SESSAUTH_LEDGER_SESSION_H

#include "ledger/ledger.h"
#include "ledger/policy.h"
#include "ledger/tables.h"

typedef enum SessionState
{
	SESSION_LIVE,
	SESSION_ENDED,				/* this session was revoked, logged out, evicted, … */
	SESSION_USER_REVOKED,		/* the user's epoch was raised, or the user is gone */
	SESSION_TENANT_REVOKED,		/* the tenant's epoch was raised, or the tenant is gone */
	SESSION_EXPIRED,			/* its absolute lifetime is over */
	SESSION_IDLE				/* it was not refreshed in time */
} SessionState;

typedef struct SessionRow
{
	pg_uuid_t	session_id;
	char	   *tenant_id;
	char	   *user_id;
	int64		epoch;
	int64		tenant_epoch;
	TimestampTz refreshed_at;
	TimestampTz expires_at;
	TimestampTz idle_expires_at;
	TimestampTz access_expires_at;
	int64		refresh_counter;
	SessionState state;			/* at the time that was passed to session_read */
	bool		has_tenant;
	LedgerRow	tenant;			/* of its tenant, if has_tenant */
	LedgerRow	row;			/* for what is seldom needed */
} SessionRow;

/*
 * Reads a session; with lock, also locks its row until the transaction ends.
 * False when there is none. Needs no frame; the strings are palloc'ed in the current context.
 */
extern bool session_read(const pg_uuid_t *session_id, TimestampTz now, bool lock, SessionRow *out);

/* Columns of the row: NULL when null. The claims as JSON. */
extern bytea *session_bytea(const SessionRow *session, int column);
extern char *session_claims(const SessionRow *session);

/* The effective policy of a tenant's row (NULL: the tenant is gone); its access_ttl is bounded by what revocations are remembered for. */
extern void tenant_policy(const LedgerRow *tenant, Policy *out);

/* The longest lifetime of an access token that was ever in force there, in microseconds. */
extern int64 tenant_ttl_max(const LedgerRow *tenant);

/* The liveness rule. A zero user_epoch or tenant_epoch_now stands for a user or tenant that is gone. */
extern SessionState session_state(TimestampTz now, bool ended, TimestampTz expires_at, TimestampTz idle_expires_at,
								  int64 epoch, int64 user_epoch, int64 tenant_epoch, int64 tenant_epoch_now);

/* ---- tokens of a session (mint.c) ---- */

/* When an access token minted at "now" expires: never beyond the session. Whole seconds. */
extern TimestampTz access_token_end(TimestampTz now, const Policy *policy, TimestampTz expires_at, TimestampTz idle_expires_at);

/* palloc'ed. "now" must have been read before the epochs were: see mint.c. */
extern char *access_token_mint(const pg_uuid_t *session_id, const char *tenant_id, const char *user_id,
							   int64 epoch, int64 tenant_epoch, const char *claims, TimestampTz now, TimestampTz end);

/* What issue_session and refresh_session return. */
typedef struct SessionAnswer
{
	const char *outcome;
	const pg_uuid_t *session_id;	/* NULL unless the outcome is ok, as all that follows */
	char	   *access_token;
	TimestampTz access_expires_at;
	char	   *refresh_token;
	TimestampTz refresh_expires_at;
	int64		epoch;
	Datum		evicted;		/* uuid[]; 0: none */
} SessionAnswer;

extern Datum session_answer(FunctionCallInfo fcinfo, const SessionAnswer *answer);

#endif							/* SESSAUTH_LEDGER_SESSION_H */

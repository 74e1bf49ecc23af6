/*
 * policy.h
 *		A tenant's policy: its own values over the settings' defaults.
 */
#ifndef SESSAUTH_LEDGER_POLICY_H
#define SESSAUTH_LEDGER_POLICY_H

#include "utils/jsonb.h"

#include "server/settings.h"

/* Durations in seconds; max_sessions 0 is no limit. */
typedef struct Policy
{
	int			access_ttl;
	int			session_ttl;
	int			idle_ttl;
	int			refresh_grace;
	int			max_sessions;
	int			on_limit;		/* OnLimit */
} Policy;

/* Throws ERRCODE_INVALID_PARAMETER_VALUE for an unknown key or a value that makes no sense. */
extern void policy_check(Jsonb *own);

/* The policy in force. The argument must have passed policy_check; a value that would not is as if it were missing. */
extern void policy_read(Jsonb *own, Policy *out);

/* The policy in force as jsonb: durations as intervals, in the order of the contract. */
extern Jsonb *policy_effective(Jsonb *own);

#endif							/* SESSAUTH_LEDGER_POLICY_H */

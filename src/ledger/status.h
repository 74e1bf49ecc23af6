/*
 * status.h
 *		The rows of sessauth.status(), and the checks that make them.
 */
#ifndef SESSAUTH_LEDGER_STATUS_H
#define SESSAUTH_LEDGER_STATUS_H

#include "ledger/ledger.h"

/* Adds a row. The state is "ok", "warning" or "error"; the hint may be NULL. Copies what it is given. */
extern void status_row(const char *check, const char *state, const char *detail, const char *hint);

/*
 * Checks. Each runs in a subtransaction of its own as the extension's owner, with SPI connected; what it throws
 * becomes a row, so none has to expect that anything is in order.
 */
typedef struct StatusCheck
{
	const char *name;
	void		(*run) (const char *name);
} StatusCheck;

extern const StatusCheck status_ledger_checks[];	/* status_ledger.c; the last one has no name */
extern const StatusCheck status_server_checks[];	/* status_server.c; likewise */

#endif							/* SESSAUTH_LEDGER_STATUS_H */

/*
 * clock.h
 *		The ledger's time.
 */
#ifndef SESSAUTH_SERVER_CLOCK_H
#define SESSAUTH_SERVER_CLOCK_H

#include "datatype/timestamp.h"

/*
 * Now, by a clock that never goes back while the server runs: tokens are
 * minted, and revocations forgotten, by the same one. Without shared memory it is the wall clock.
 */
extern TimestampTz ledger_now(void);

/* Microseconds since the machine was started; nobody can set it. For how long something has lasted. */
extern int64 clock_boot(void);

/* The ledger's time is at least this: something in the tables was written then. */
extern void ledger_clock_raise(TimestampTz seen);

#endif							/* SESSAUTH_SERVER_CLOCK_H */

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

/*
 * Microseconds since the machine was started, by a clock that nobody can set: for deadlines, and for how long something has
 * lasted. Not stored and not shown: other machines, and this one after a restart, count anew.
 */
typedef int64 Instant;

#define INSTANT_NEVER PG_INT64_MAX

extern Instant clock_boot(void);

static inline Instant
instant_after(Instant from, int64 ms)
{
	return from + ms * 1000;
}

/* Have so many milliseconds gone by since then? */
static inline bool
instant_is_past(Instant since, Instant now, int64 ms)
{
	return now - since >= ms * 1000;
}

/* Rounded up, so that who waits so long is not early; 0 when it is over. */
static inline long
instant_ms_until(Instant now, Instant then)
{
	return then <= now ? 0 : (long) Min((then - now - 1) / 1000 + 1, PG_INT32_MAX);
}

/* The ledger's time is at least this, the end of its history, unless that is more than a day ahead. */
extern void ledger_clock_raise(TimestampTz seen);

#endif							/* SESSAUTH_SERVER_CLOCK_H */

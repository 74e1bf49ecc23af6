/*
 * clock.c
 *		The ledger's time.
 *
 * A wall clock that is set back would let tokens live again whose revocation
 * has been forgotten. So the ledger's time is CLOCK_BOOTTIME plus the largest
 * difference to the wall clock that any process of this server has seen: it
 * follows a step forward, and after a step back it goes on from where it was. Nodes do the same with
 * what they hear, so that both run at one rate.
 */
#include "postgres.h"

#include <time.h>

#include "utils/timestamp.h"

#include "server/clock.h"
#include "server/shmem.h"

static int64 raise_offset(int64 offset);

TimestampTz
ledger_now(void)
{
	Instant		boot = clock_boot();

	return boot + raise_offset(GetCurrentTimestamp() - boot);
}

/* A clock that was years ahead was wrong then: its tokens are from the future now, and refused as such. */
void
ledger_clock_raise(TimestampTz seen)
{
	if (seen - GetCurrentTimestamp() < USECS_PER_DAY)
		(void) raise_offset(seen - clock_boot());
	else
		ereport(LOG,
				(errmsg("sessauth: the history ends more than a day in the future"),
				 errhint("The server's clock was ahead when it was written, or is behind now.")));
}

Instant
clock_boot(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* Returns the largest offset so far, this one included. */
static int64
raise_offset(int64 offset)
{
	uint64		known;

	if (shared == NULL)
		return offset;
	known = pg_atomic_read_u64(&shared->clock_offset);
	while (offset > (int64) known)
		if (pg_atomic_compare_exchange_u64(&shared->clock_offset, &known, (uint64) offset))
			return offset;
	return (int64) known;
}

/*
 * clock.c
 *		The node's own clock and the bounds that it keeps of the ledger's.
 *
 * Two bounds, because either error would hurt. Expiry and forgetting go by
 * the lower bound: an old beat that somebody replays can only fail to move it. "Not yet
 * valid" goes by the upper bound: the lower one lags by the way from worker to
 * node, and a token minted a millisecond ago would otherwise be refused.
 */
#include <time.h>

#include "node/clock.h"

#define LAST_MS		INT64_C(253402300799999)	/* end of the year 9999: the sums below cannot overflow */

int64_t
clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000 + 1;
}

void
ledger_clock_seen(LedgerClock *clock, int64_t at, int64_t received)
{
	int64_t		offset;

	if (at < 0 || at > LAST_MS)
		return;
	offset = at * 1000 - received;
	if (!clock->has_lower || offset > clock->lower)
		clock->lower = offset;
	clock->has_lower = true;

	/* The ledger's clock was set forward since it answered. */
	if (clock->has_upper && clock->upper < clock->lower)
		clock->upper = clock->lower;
}

void
ledger_clock_answered(LedgerClock *clock, int64_t at, int64_t asked, int64_t received)
{
	if (at < 0 || at > LAST_MS)
		return;
	ledger_clock_seen(clock, at, received);

	/* The worker wrote "at" after the nonce was written, and "at" was cut to whole milliseconds. */
	clock->upper = (at + 1) * 1000 - asked;
	clock->has_upper = true;
	if (clock->upper < clock->lower)
		clock->upper = clock->lower;
}

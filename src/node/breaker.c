/*
 * breaker.c
 *		A circuit breaker. See breaker.h.
 */
#include "node/breaker.h"

bool
breaker_try(Breaker *breaker, int64_t now)
{
	if (!breaker_would(breaker, now))
		return false;
	if (breaker->state == BREAKER_OPEN)
		breaker->state = BREAKER_PROBING;
	return true;
}

bool
breaker_would(const Breaker *breaker, int64_t now)
{
	return breaker->state == BREAKER_CLOSED || (breaker->state == BREAKER_OPEN && now >= breaker->until);
}

void
breaker_succeeded(Breaker *breaker)
{
	/* Also of one that was let through before it opened: the server is there. */
	*breaker = (Breaker) {.state = BREAKER_CLOSED};
}

void
breaker_failed(Breaker *breaker, int64_t now, uint32_t chance)
{
	int64_t		half;

	/* Those that were let through before it opened fail after it; they are no news. */
	if (breaker->state == BREAKER_OPEN)
		return;
	if (breaker->state == BREAKER_CLOSED && ++breaker->failures < BREAKER_FAILURES)
		return;
	breaker->pause = breaker->pause == 0 ? BREAKER_FIRST_US :
		breaker->pause * 2 > BREAKER_MAX_US ? BREAKER_MAX_US : breaker->pause * 2;
	half = breaker->pause / 2;
	breaker->state = BREAKER_OPEN;
	breaker->until = now + half + chance % (uint32_t) half;
}

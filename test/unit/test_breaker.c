/*
 * test_breaker.c
 *		The circuit breaker: when it opens, whom it lets through, and when it closes.
 */
#include "node/breaker.h"
#include "tap.h"

static void
fail(Breaker *breaker, int times, int64_t now)
{
	for (int i = 0; i < times; i++)
		breaker_failed(breaker, now, 0);
}

static void
test_opening(void)
{
	Breaker		breaker = {0};

	ok(breaker_try(&breaker, 1) && breaker_try(&breaker, 1), "a new one lets everybody through");
	fail(&breaker, BREAKER_FAILURES - 1, 1);
	ok(breaker_try(&breaker, 1), "also after a few failures");
	breaker_succeeded(&breaker);
	fail(&breaker, BREAKER_FAILURES - 1, 1);
	ok(breaker_try(&breaker, 1), "which a success makes forgotten");
	fail(&breaker, 1, 1);
	ok(!breaker_try(&breaker, 1), "but not after enough of them in a row");
	ok(breaker.state == BREAKER_OPEN && breaker.until == 1 + BREAKER_FIRST_US / 2, "for half of the pause at least");
	fail(&breaker, 10, 2);
	ok(breaker.until == 1 + BREAKER_FIRST_US / 2, "those who were under way then do not make it longer");
}

static void
test_probe(void)
{
	Breaker		breaker = {0};
	int64_t		now = 1000;

	fail(&breaker, BREAKER_FAILURES, now);
	now = breaker.until;
	ok(!breaker_would(&breaker, now - 1) && breaker_would(&breaker, now), "when its time is over");
	ok(breaker_try(&breaker, now), "one is let through");
	ok(!breaker_try(&breaker, now) && !breaker_would(&breaker, now + 1000000000), "and only one, however long it takes");
	fail(&breaker, 1, now);
	ok(!breaker_try(&breaker, now) && breaker.until == now + BREAKER_FIRST_US, "whose failure doubles the pause");

	now = breaker.until;
	ok(breaker_try(&breaker, now), "again one");
	breaker_succeeded(&breaker);
	ok(breaker_try(&breaker, now) && breaker_try(&breaker, now), "whose success lets everybody through again");
	fail(&breaker, BREAKER_FAILURES - 1, now);
	ok(breaker_try(&breaker, now), "with as much patience as at first");
	fail(&breaker, 1, now);
	ok(breaker.until == now + BREAKER_FIRST_US / 2, "and the first pause");

	breaker_succeeded(&breaker);
	ok(breaker_try(&breaker, now), "who was under way when it opened ends the pause, if it succeeds after all");
}

static void
test_pauses(void)
{
	Breaker		breaker = {0};
	int64_t		now = 0;
	int64_t		longest = 0;
	int64_t		last = 0;

	fail(&breaker, BREAKER_FAILURES, now);
	for (int i = 0; i < 40; i++)
	{
		now = breaker.until;
		(void) breaker_try(&breaker, now);
		breaker_failed(&breaker, now, UINT32_MAX - (uint32_t) i);
		last = breaker.until - now;
		longest = last > longest ? last : longest;
	}
	ok(longest < BREAKER_MAX_US && last >= BREAKER_MAX_US / 2, "pauses grow to their bound and not beyond");
}

int
main(void)
{
	test_opening();
	test_probe();
	test_pauses();
	return tap_done();
}

/*
 * test_coverage.c
 *		The set of applied numbers: exact while it has room, never more than was added.
 */
#include <stdlib.h>

#include "node/coverage.h"
#include "tap.h"

#define A	"aaaaaaaa-0000-4000-8000-000000000000"
#define B	"bbbbbbbb-0000-4000-8000-000000000000"
#define C	"cccccccc-0000-4000-8000-000000000000"
#define D	"dddddddd-0000-4000-8000-000000000000"
#define E	"eeeeeeee-0000-4000-8000-000000000000"
#define F	"ffffffff-0000-4000-8000-000000000000"

static Coverage cover;

static void
add(const char *g, int64_t n)
{
	coverage_add(&cover, g, n, "", "");
}

static void
test_runs(void)
{
	memset(&cover, 0, sizeof(cover));
	ok(coverage_has(&cover, A, 1, 0) && coverage_has(&cover, A, 7, 6), "an empty range is always there");
	ok(!coverage_has(&cover, A, 1, 1) && coverage_first_missing(&cover, A, 5, 9) == 5, "in an empty set everything else is missing");
	add(A, 1);
	add(A, 3);
	ok(!coverage_has(&cover, A, 1, 3) && coverage_first_missing(&cover, A, 1, 3) == 2, "a hole is seen");
	ok(coverage_reach(&cover, A, 0) == 1 && coverage_reach(&cover, A, 1) == 1 && coverage_reach(&cover, A, 2) == 3, "reach ends at the hole");
	add(A, 2);
	ok(coverage_has(&cover, A, 1, 3) && coverage_reach(&cover, A, 0) == 3, "and closed by the number that was missing, whenever it comes");
	ok(cover.gens[0].nruns == 1, "which makes one run of three");
	add(A, 2);
	add(A, 1);
	ok(coverage_has(&cover, A, 1, 3) && !coverage_has(&cover, A, 1, 4) && cover.gens[0].nruns == 1, "a repeated number changes nothing");
	ok(!coverage_has(&cover, A, 0, 3) && coverage_first_missing(&cover, A, 0, 3) == 0, "there is no number 0");
	add(A, 0);
	add(A, -1);
	add("", 4);
	ok(!coverage_has(&cover, A, 0, 0) && !coverage_has(&cover, "", 4, 4), "and none of no generation");
	ok(!coverage_has(&cover, B, 1, 1), "another generation has its own numbers");
}

static void
test_room(void)
{
	memset(&cover, 0, sizeof(cover));
	for (int64_t n = 0; n < COVERAGE_RUNS; n++)
		add(A, 10 + n * 2);
	ok(coverage_has(&cover, A, 10, 10), "the lowest of as many runs as there is room for");
	add(A, 3);
	ok(!coverage_has(&cover, A, 3, 3) && coverage_has(&cover, A, 10, 10), "a number below them finds no room");
	add(A, 1000);
	ok(!coverage_has(&cover, A, 10, 10) && coverage_has(&cover, A, 12, 12) && coverage_has(&cover, A, 1000, 1000),
	   "a number above them takes the room of the lowest");
	add(A, 13);
	ok(coverage_has(&cover, A, 12, 14), "a full set still closes holes");
}

static void
test_generations(void)
{
	memset(&cover, 0, sizeof(cover));
	coverage_add(&cover, A, 1, A, B);
	coverage_add(&cover, B, 1, A, B);
	coverage_add(&cover, C, 1, A, B);
	coverage_add(&cover, D, 1, A, B);
	coverage_add(&cover, C, 2, A, B);
	coverage_add(&cover, E, 1, A, B);
	ok(coverage_has(&cover, A, 1, 1) && coverage_has(&cover, B, 1, 1), "the two generations that matter keep their place, however old");
	ok(!coverage_has(&cover, D, 1, 1) && coverage_has(&cover, C, 1, 2) && coverage_has(&cover, E, 1, 1),
	   "a new one takes the place of that which was touched longest ago");
	for (int i = 0; i < 100; i++)
	{
		coverage_add(&cover, C, 1, A, B);
		coverage_add(&cover, D, 1, A, B);
		coverage_add(&cover, E, 1, A, B);
		coverage_add(&cover, F, 1, A, B);
	}
	ok(coverage_has(&cover, A, 1, 1) && coverage_has(&cover, B, 1, 1) && !coverage_has(&cover, A, 2, 2),
	   "a flood of others does not push them out");
}

/*
 * Against an array of booleans, in random orders. With at most COVERAGE_RUNS
 * runs the two are equal; with more, the set may only have forgotten.
 */
static void
test_like_naive(unsigned int seed, int numbers, int adds, bool exact)
{
	static bool naive[2][512];
	static const char *const gs[] = {A, B};
	int			wrong = 0;
	int			invented = 0;

	memset(&cover, 0, sizeof(cover));
	memset(naive, 0, sizeof(naive));
	srand(seed);
	for (int i = 0; i < adds; i++)
	{
		int			which = rand() % 2;
		int			n = 1 + rand() % numbers;
		int			lo = 1 + rand() % numbers;
		int			hi = lo + rand() % 8;
		int			missing = lo;
		int			reach = n;

		coverage_add(&cover, gs[which], n, A, B);
		naive[which][n] = true;
		which = rand() % 2;
		while (missing <= hi && naive[which][missing])
			missing++;
		while (naive[which][reach + 1])
			reach++;
		if (coverage_first_missing(&cover, gs[which], lo, hi) != missing ||
			coverage_has(&cover, gs[which], lo, hi) != (missing > hi) ||
			coverage_reach(&cover, gs[which], n) != (naive[which][n] || naive[which][n + 1] ? reach : n))
			wrong++;
		if (coverage_first_missing(&cover, gs[which], lo, hi) > missing || coverage_reach(&cover, gs[which], n) > reach)
			invented++;
		for (int j = 0; j < 2; j++)
			for (int r = 1; r < cover.gens[j].nruns; r++)
				if (cover.gens[j].runs[r].lo <= cover.gens[j].runs[r - 1].hi + 1)
					invented++;
	}
	if (exact)
		ok(wrong == 0, "%d numbers up to %d in random order: like a naive set (seed %u, %d differences)", adds, numbers, seed, wrong);
	ok(invented == 0, "%d numbers up to %d in random order: nothing is there that was not added, and runs stay apart (seed %u)",
	   adds, numbers, seed);
}

int
main(void)
{
	test_runs();
	test_room();
	test_generations();
	for (unsigned int seed = 1; seed <= 5; seed++)
		test_like_naive(seed, 2 * COVERAGE_RUNS, 1000, true);
	for (unsigned int seed = 1; seed <= 5; seed++)
		test_like_naive(seed, 500, 1000, false);
	return tap_done();
}

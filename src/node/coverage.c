/*
 * coverage.c
 *		A small set of numbers per generation, kept as runs.
 *
 * A healthy stream is one run. Everything is bounded: of a generation with
 * more holes than COVERAGE_RUNS the lowest runs are forgotten, and of more
 * generations than there is room for the one that was touched longest ago.
 */
#include <string.h>

#include "node/coverage.h"

static CoverageGen *find_gen(const Coverage *cover, const char *g);
static CoverageGen *make_gen(Coverage *cover, const char *g, const char *keep1, const char *keep2);
static void drop_run(CoverageGen *gen, int i);

void
coverage_add(Coverage *cover, const char *g, int64_t n, const char *keep1, const char *keep2)
{
	CoverageGen *gen = find_gen(cover, g);
	int			i;

	if (g[0] == '\0' || n < 1)
		return;
	if (gen == NULL)
		gen = make_gen(cover, g, keep1, keep2);
	if (gen == NULL)
		return;
	gen->touched = ++cover->clock;

	/* The first run, from the top, that starts at or below n: almost always the last one. */
	for (i = gen->nruns - 1; i >= 0 && gen->runs[i].lo > n; i--)
		;
	if (i >= 0 && n <= gen->runs[i].hi)
		return;
	if (i >= 0 && n == gen->runs[i].hi + 1)
	{
		gen->runs[i].hi = n;
		if (i + 1 < gen->nruns && gen->runs[i + 1].lo == n + 1)
		{
			gen->runs[i].hi = gen->runs[i + 1].hi;
			drop_run(gen, i + 1);
		}
		return;
	}
	i++;
	if (i < gen->nruns && gen->runs[i].lo == n + 1)
	{
		gen->runs[i].lo = n;
		return;
	}
	if (gen->nruns == COVERAGE_RUNS)
	{
		if (i == 0)
			return;				/* n itself would be the lowest */
		drop_run(gen, 0);
		i--;
	}
	memmove(&gen->runs[i + 1], &gen->runs[i], (gen->nruns - i) * sizeof(CoverageRun));
	gen->runs[i] = (CoverageRun) {n, n};
	gen->nruns++;
}

bool
coverage_has(const Coverage *cover, const char *g, int64_t lo, int64_t hi)
{
	return coverage_first_missing(cover, g, lo, hi) > hi;
}

int64_t
coverage_reach(const Coverage *cover, const char *g, int64_t n)
{
	const CoverageGen *gen = find_gen(cover, g);

	for (int i = 0; gen != NULL && i < gen->nruns; i++)
	{
		/* A run that starts right after n continues it. */
		if (gen->runs[i].lo - 1 <= n && n <= gen->runs[i].hi)
			return gen->runs[i].hi;
	}
	return n;
}

int64_t
coverage_first_missing(const Coverage *cover, const char *g, int64_t lo, int64_t hi)
{
	const CoverageGen *gen = find_gen(cover, g);

	if (lo > hi)
		return hi + 1;
	for (int i = 0; gen != NULL && i < gen->nruns; i++)
	{
		if (gen->runs[i].lo <= lo && lo <= gen->runs[i].hi)
			return gen->runs[i].hi >= hi ? hi + 1 : gen->runs[i].hi + 1;
	}
	return lo;
}

static CoverageGen *
find_gen(const Coverage *cover, const char *g)
{
	for (int i = 0; i < COVERAGE_GENERATIONS; i++)
	{
		if (g[0] != '\0' && strcmp(cover->gens[i].g, g) == 0)
			return (CoverageGen *) &cover->gens[i];
	}
	return NULL;
}

static CoverageGen *
make_gen(Coverage *cover, const char *g, const char *keep1, const char *keep2)
{
	CoverageGen *victim = NULL;

	for (int i = 0; i < COVERAGE_GENERATIONS; i++)
	{
		CoverageGen *gen = &cover->gens[i];

		if (gen->g[0] != '\0' && (strcmp(gen->g, keep1) == 0 || strcmp(gen->g, keep2) == 0))
			continue;
		if (victim == NULL || gen->touched < victim->touched)
			victim = gen;
	}
	if (victim != NULL)
	{
		memset(victim, 0, sizeof(*victim));
		strncpy(victim->g, g, sizeof(victim->g) - 1);
	}
	return victim;
}

static void
drop_run(CoverageGen *gen, int i)
{
	memmove(&gen->runs[i], &gen->runs[i + 1], (gen->nruns - i - 1) * sizeof(CoverageRun));
	gen->nruns--;
}

/*
 * coverage.h
 *		Which numbers of which generation this node has applied.
 *
 * A number never changes its content, and what was applied stays applied. So this is
 * a plain set: order of arrival, repeats, and whether an entry came from the
 * tail or from a scan make no difference, and an entry that was not authentic
 * leaves a hole. Forgetting a part of the set is always safe: the node then scans again.
 */
#ifndef SESSAUTH_NODE_COVERAGE_H
#define SESSAUTH_NODE_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/encoding.h"

#define COVERAGE_RUNS			64
#define COVERAGE_GENERATIONS	4

typedef struct CoverageRun
{
	int64_t		lo;
	int64_t		hi;				/* inclusive */
} CoverageRun;

typedef struct CoverageGen
{
	char		g[SA_UUID_SIZE];	/* empty: free */
	uint64_t	touched;
	int			nruns;
	CoverageRun runs[COVERAGE_RUNS];	/* ascending, never adjacent */
} CoverageGen;

typedef struct Coverage
{
	uint64_t	clock;			/* for choosing the generation to forget */
	CoverageGen gens[COVERAGE_GENERATIONS];
} Coverage;

/* Adds a number; keep1 and keep2 (may be empty) name generations that must not make room for a new one. */
extern void coverage_add(Coverage *cover, const char *g, int64_t n, const char *keep1, const char *keep2);

/* True when all of lo..hi are there; an empty range always is. */
extern bool coverage_has(const Coverage *cover, const char *g, int64_t lo, int64_t hi);

/* The last number of the unbroken run that n is in; n itself when it is not there. */
extern int64_t coverage_reach(const Coverage *cover, const char *g, int64_t n);

/* The first number of lo..hi that is missing; hi + 1 when none is. */
extern int64_t coverage_first_missing(const Coverage *cover, const char *g, int64_t lo, int64_t hi);

#endif							/* SESSAUTH_NODE_COVERAGE_H */

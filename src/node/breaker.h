/*
 * breaker.h
 *		A circuit breaker: when a server has failed a few times in a row, it is left
 *		alone for a while, then tried once.
 *
 * A pure state machine: no clock, no lock, no source of chance of its own. Times are microseconds of the node's own clock.
 */
#ifndef SESSAUTH_NODE_BREAKER_H
#define SESSAUTH_NODE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES	3		/* in a row open it */
#define BREAKER_FIRST_US	250000
#define BREAKER_MAX_US		8000000

typedef enum BreakerState
{
	BREAKER_CLOSED,				/* everybody may try */
	BREAKER_OPEN,				/* nobody, until its time */
	BREAKER_PROBING				/* one has been let through, and the others wait for what becomes of it */
} BreakerState;

typedef struct Breaker
{
	BreakerState state;
	int			failures;		/* since the last success */
	int64_t		until;			/* BREAKER_OPEN: closed to everybody before this */
	int64_t		pause;			/* of the last opening, before chance shortened it; 0: has recovered since */
} Breaker;					/* all zero: closed */

/* May somebody try now? True makes it the probe when the breaker was open; its end must be told below. */
extern bool breaker_try(Breaker *breaker, int64_t now);

/* The same question without being let through. */
extern bool breaker_would(const Breaker *breaker, int64_t now);

extern void breaker_succeeded(Breaker *breaker);

/* chance is any random number: it spreads out those who would all come back at the same moment. */
extern void breaker_failed(Breaker *breaker, int64_t now, uint32_t chance);

#endif							/* SESSAUTH_NODE_BREAKER_H */

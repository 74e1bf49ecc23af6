/*
 * pauses.h
 *		When the host of a virtual machine let one of its processors stand still.
 */
#ifndef SESSAUTH_BENCH_PAUSES_H
#define SESSAUTH_BENCH_PAUSES_H

#include <stdbool.h>

extern void pauses_watch(void);	/* from now on, on all processors that the process could use when it started */
extern void pauses_end(void);

/* Whether there was one in this time, by the wall clock in seconds. After the end. */
extern bool pauses_between(double from, double to);

#endif							/* SESSAUTH_BENCH_PAUSES_H */

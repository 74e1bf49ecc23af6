/*
 * metrics.h
 *		What the gate counts, and the text of it for Prometheus.
 */
#ifndef SESSAUTH_GATE_METRICS_H
#define SESSAUTH_GATE_METRICS_H

#include <event2/buffer.h>
#include <stdatomic.h>
#include <stdint.h>

#include "node/sessauth.h"

#define METRICS_CODES	(SESSAUTH_CANNOT_TELL + 1)
#define METRICS_SOURCES	(SESSAUTH_SOURCE_POSTGRES + 1)
#define METRICS_BUCKETS	14

/* Requests that got no further than looking for a token. */
typedef enum MetricsRefused
{
	METRICS_NO_TOKEN,
	METRICS_AMBIGUOUS,			/* two tokens */
	METRICS_REFUSED
} MetricsRefused;

/* Of one worker, who alone adds to it; anybody may read. */
typedef struct Metrics
{
	atomic_uint_fast64_t decisions[METRICS_CODES][METRICS_SOURCES];
	atomic_uint_fast64_t refused[METRICS_REFUSED];
	atomic_uint_fast64_t buckets[METRICS_BUCKETS + 1];
	atomic_uint_fast64_t us;	/* sum of latencies */
} Metrics;

extern void metrics_count(Metrics *metrics, SessauthCode code, SessauthSource source, int64_t us);
extern void metrics_count_refused(Metrics *metrics, MetricsRefused what, int64_t us);

/* The sums over all workers, and what the node says of itself. */
struct Gate;
extern void metrics_write(struct Gate *gate, struct evbuffer *out);

#endif							/* SESSAUTH_GATE_METRICS_H */

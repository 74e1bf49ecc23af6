/*
 * metrics.c
 *		What the gate counts, and the text of it for Prometheus (exposition format 0.0.4).
 */
#include "gate/metrics.h"

#include <stdio.h>

#include "gate/gate.h"
#include "gate/sse.h"

#define PREFIX	"sessauth_"

static const int64_t bounds_us[METRICS_BUCKETS] = {
	10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 500000, 2500000
};
static const char *const sources[METRICS_SOURCES] = {"token", "local", "cache", "redis", "postgres"};
static const char *const refused[METRICS_REFUSED] = {"no_token", "two_tokens"};

static void count_latency(Metrics *metrics, int64_t us);
static uint64_t get(const atomic_uint_fast64_t *counter);
static void sum_up(Gate *gate, Metrics *sum, size_t *connections);
static void head(struct evbuffer *out, const char *name, const char *type, const char *help);
static void value(struct evbuffer *out, const char *name, const char *type, const char *help, double number);

void
metrics_count(Metrics *metrics, SessauthCode code, SessauthSource source, int64_t us)
{
	atomic_fetch_add_explicit(&metrics->decisions[code][source], 1, memory_order_relaxed);
	count_latency(metrics, us);
}

void
metrics_count_refused(Metrics *metrics, MetricsRefused what, int64_t us)
{
	atomic_fetch_add_explicit(&metrics->refused[what], 1, memory_order_relaxed);
	count_latency(metrics, us);
}

void
metrics_write(Gate *gate, struct evbuffer *out)
{
	Metrics		sum = {0};
	size_t		connections;
	SessauthStatus status;
	uint64_t	count = 0;

	sum_up(gate, &sum, &connections);
	sessauth_status(gate->node, &status);

	head(out, "gate_requests_total", "counter", "Requests to /auth by decision, and what it was made from.");
	for (int code = 0; code < METRICS_CODES; code++)
		for (int source = 0; source < METRICS_SOURCES; source++)
			if (get(&sum.decisions[code][source]) > 0 || (code == SESSAUTH_ACTIVE && source > 0))
				evbuffer_add_printf(out, PREFIX "gate_requests_total{decision=\"%s\",source=\"%s\"} %llu\n",
									sessauth_code_name((SessauthCode) code), sources[source],
									(unsigned long long) get(&sum.decisions[code][source]));
	for (int i = 0; i < METRICS_REFUSED; i++)
		evbuffer_add_printf(out, PREFIX "gate_requests_total{decision=\"%s\",source=\"request\"} %llu\n", refused[i],
							(unsigned long long) get(&sum.refused[i]));

	head(out, "gate_request_duration_seconds", "histogram", "From a request's arrival to its answer, waiting for keys and for who is asked included.");
	for (int i = 0; i <= METRICS_BUCKETS; i++)
	{
		count += get(&sum.buckets[i]);
		if (i < METRICS_BUCKETS)
			evbuffer_add_printf(out, PREFIX "gate_request_duration_seconds_bucket{le=\"%g\"} %llu\n", (double) bounds_us[i] / 1e6,
								(unsigned long long) count);
	}
	evbuffer_add_printf(out, PREFIX "gate_request_duration_seconds_bucket{le=\"+Inf\"} %llu\n", (unsigned long long) count);
	evbuffer_add_printf(out, PREFIX "gate_request_duration_seconds_sum %.6f\n", (double) get(&sum.us) / 1e6);
	evbuffer_add_printf(out, PREFIX "gate_request_duration_seconds_count %llu\n", (unsigned long long) count);

	value(out, "gate_connections", "gauge", "Clients that are connected.", (double) connections);
	value(out, "gate_event_streams", "gauge", "Clients that read /revocations.", (double) sse_clients(gate->sse));
	value(out, "node_ready", "gauge", "1 when the node is synced, has keys and a fresh lease.", status.ready);
	if (status.staleness_ms >= 0)
		value(out, "node_lease_age_seconds", "gauge", "How old the proof is of knowing every revocation.", (double) status.staleness_ms / 1e3);
	value(out, "node_lease_left_seconds", "gauge", "How long the node may still decide alone.", (double) status.lease_left_ms / 1e3);
	value(out, "node_applied_sequence", "gauge", "Number of the last revocation of this generation that was applied without a hole.", (double) status.applied);
	value(out, "node_known_revocations", "gauge", "Revocations in memory.", (double) status.revocations);
	value(out, "node_resyncs_total", "counter", "Times that the stream was read again from its start.", (double) status.rescans);
	value(out, "node_redis_connects_total", "counter", "Connections made to Redis, two at the start and then one for each that was lost.", (double) status.connects);
	value(out, "node_postgres_connects_total", "counter", "Connections made to PostgreSQL for leases.", (double) status.pg_connects);
	value(out, "node_refused_entries_total", "counter", "Entries in Redis that were not authentic.", (double) status.refused_entries);
	value(out, "node_key_refreshes_total", "counter", "Times that the keys were read.", (double) status.key_refreshes);
	value(out, "node_cache_hits_total", "counter", "Tokens that had been verified before.", (double) status.cache_hits);
	value(out, "node_cache_misses_total", "counter", "Tokens that had not.", (double) status.cache_misses);
	value(out, "node_asked_redis_total", "counter", "Questions to Redis about tokens that the node could not decide alone.", (double) status.asked_redis);
	value(out, "node_asked_postgres_total", "counter", "Questions to PostgreSQL about tokens that neither the node nor Redis could decide.", (double) status.asked_postgres);
	value(out, "node_ask_failures_total", "counter", "Questions to PostgreSQL to which no answer came.", (double) status.ask_failures);
	value(out, "node_asks_refused_total", "counter", "Questions that were not asked: too many were waiting, or PostgreSQL was left alone.", (double) status.asks_refused);
	value(out, "node_ask_breaker_open", "gauge", "1 while PostgreSQL is left alone after failures in a row.", status.ask_breaker_open);
	value(out, "node_cached_tokens", "gauge", "Verified tokens in memory.", (double) status.cached_tokens);
}

static void
count_latency(Metrics *metrics, int64_t us)
{
	int			i = 0;

	while (i < METRICS_BUCKETS && us > bounds_us[i])
		i++;
	atomic_fetch_add_explicit(&metrics->buckets[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&metrics->us, (uint64_t) us, memory_order_relaxed);
}

static uint64_t
get(const atomic_uint_fast64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void
sum_up(Gate *gate, Metrics *sum, size_t *connections)
{
	*connections = 0;
	for (int w = 0; w < gate->worker_count; w++)
	{
		const Metrics *of = &gate->workers[w]->metrics;

		*connections += connections_count(gate->workers[w]->connections);
		for (int code = 0; code < METRICS_CODES; code++)
			for (int source = 0; source < METRICS_SOURCES; source++)
				sum->decisions[code][source] += get(&of->decisions[code][source]);
		for (int i = 0; i < METRICS_REFUSED; i++)
			sum->refused[i] += get(&of->refused[i]);
		for (int i = 0; i <= METRICS_BUCKETS; i++)
			sum->buckets[i] += get(&of->buckets[i]);
		sum->us += get(&of->us);
	}
}

static void
head(struct evbuffer *out, const char *name, const char *type, const char *help)
{
	evbuffer_add_printf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void
value(struct evbuffer *out, const char *name, const char *type, const char *help, double number)
{
	head(out, name, type, help);
	evbuffer_add_printf(out, PREFIX "%s %.15g\n", name, number);
}

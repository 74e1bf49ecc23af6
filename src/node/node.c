/*
 * node.c
 *		Opening and closing a node, and what it says of itself.
 */
#include "node/node.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/ask.h"
#include "node/pg_follower.h"
#include "node/postgres.h"

#ifndef SESSAUTH_VERSION
#define SESSAUTH_VERSION "unknown"
#endif

static const char *check_options(SessauthNode *node, const SessauthOptions *options);
static bool copy_options(SessauthNode *node, const SessauthOptions *options);
static bool make_id(SessauthNode *node, const char *name);
static char *copy(const char *text, bool *ok);
static void redis_problem(const SessauthNode *node, int64_t now, char *out, size_t size);

SessauthNode *
sessauth_open(const SessauthOptions *options)
{
	SessauthNode *node = aligned_alloc(_Alignof(SessauthNode), sizeof(*node));	/* its locks have cache lines of their own */
	pthread_condattr_t attr;
	const char *why;

	if (node == NULL)
		return NULL;
	memset(node, 0, sizeof(*node));

	many_readers_init(&node->known_lock);
	pthread_mutex_init(&node->apply_lock, NULL);
	pthread_mutex_init(&node->keys_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&node->keys_wanted, &attr);
	pthread_condattr_destroy(&attr);
	watches_init(&node->watches);

	why = check_options(node, options);
	if (why == NULL && (!copy_options(node, options) || !make_id(node, options->name) ||
						!memory_init(&node->memory, options->max_revocations) ||
						!seen_init(&node->seen, options->max_cached_tokens)))
		why = "out of memory";
	if (why == NULL)
	{
		lease_init(&node->lease, node->max_staleness);
		if (!ask_start(node) || (node->redis_url && !follower_start(node)) || (node->pg_conninfo && !pg_follower_start(node)) ||
			!keys_start(node) || !upkeep_start(node))
			why = "could not start: no more threads or descriptors";
	}
	if (why && why != node->error)
		snprintf(node->error, sizeof(node->error), "%s", why);
	node->opened = why == NULL;
	return node;
}

const char *
sessauth_error(const SessauthNode *node)
{
	return node->opened ? NULL : node->error;
}

void
sessauth_close(SessauthNode *node)
{
	if (node == NULL)
		return;
	ask_stop(node);
	keys_stop(node);
	follower_stop(node);
	pg_follower_stop(node);
	upkeep_stop(node);
	ask_free(node);
	memory_free(&node->memory);
	seen_free(&node->seen);
	watches_free(&node->watches);
	sa_wipe(node->link_key, sizeof(node->link_key));
	pthread_cond_destroy(&node->keys_wanted);
	pthread_mutex_destroy(&node->keys_lock);
	pthread_mutex_destroy(&node->apply_lock);
	many_readers_destroy(&node->known_lock);
	free(node->redis_url);
	free(node->redis_password_file);
	free(node->pg_conninfo);
	free(node->jwks_file);
	free(node->link_key_file);
	free(node->issuer);
	free(node->audience);
	free(node);
}

int64_t
sessauth_now(void)
{
	return clock_now();
}

const char *
sessauth_code_name(SessauthCode code)
{
	switch (code)
	{
		case SESSAUTH_ACTIVE:
			return "active";
		case SESSAUTH_REVOKED:
			return "revoked";
		case SESSAUTH_EXPIRED:
			return "expired";
		case SESSAUTH_NOT_YET_VALID:
			return "not_yet_valid";
		case SESSAUTH_MALFORMED:
			return "malformed";
		case SESSAUTH_BAD_SIGNATURE:
			return "bad_signature";
		case SESSAUTH_UNKNOWN_KEY:
			return "unknown_key";
		case SESSAUTH_WRONG_ISSUER:
			return "wrong_issuer";
		case SESSAUTH_CANNOT_TELL:
			break;
	}
	return "cannot_tell";
}

bool
sessauth_ready(SessauthNode *node)
{
	SessauthStatus status;

	sessauth_status(node, &status);
	return status.ready;
}

void
sessauth_status(SessauthNode *node, SessauthStatus *out)
{
	int64_t		now;
	int64_t		left;
	bool		has_keys;
	bool		old_keys;
	char		keys_error[sizeof(node->keys_error)];
	SeenCount	seen;

	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&node->keys_lock);
	has_keys = node->keys != NULL && sa_keyset_count(node->keys->set) > 0;
	out->key_refreshes = node->key_refreshes;
	memcpy(keys_error, node->keys_error, sizeof(keys_error));
	pthread_mutex_unlock(&node->keys_lock);
	seen_count(&node->seen, &seen);
	out->cached_tokens = seen.tokens;
	out->cache_hits = seen.hits;
	out->cache_misses = seen.misses;
	out->watches = (int64_t) watches_count(&node->watches);
	ask_status(node, out);

	many_readers_read(&node->known_lock);
	now = clock_now();
	left = node->lease.end - now;
	memcpy(out->node, node->id, sizeof(out->node) < sizeof(node->id) ? sizeof(out->node) : sizeof(node->id));
	out->lease_left_ms = left > 0 ? left / 1000 : 0;
	lease_position(&node->lease, out->generation, &out->applied);
	out->revocations = (int64_t) node->memory.count;
	out->ledger_ms = node_ledger_time(node, now) / 1000;
	out->rescans = node->rescans;
	out->refused_entries = node->refused_entries;
	out->connects = node->connects;
	out->pg_connects = node->pg_connects;
	out->staleness_ms = node->lease.end == 0 ? -1 : (now - node->lease.end + node->max_staleness) / 1000;
	old_keys = has_keys && atomic_load(&node->keys_begun) < node->lease.keys_from;
	out->ready = has_keys && left > 0 && !old_keys;
	if (!has_keys)
		snprintf(out->reason, sizeof(out->reason), "no keys yet%s%s", keys_error[0] ? ": " : "", keys_error);
	else if (old_keys)
		snprintf(out->reason, sizeof(out->reason), "the keys are older than revocations that were missed%s%s", keys_error[0] ? ": " : "", keys_error);
	else if (left <= 0)
		node_lease_problem(node, now, out->reason, sizeof(out->reason));
	many_readers_end_read(&node->known_lock);
}

char *
sessauth_jwks(SessauthNode *node)
{
	SharedKeys *keys = keys_use(node);
	char	   *text = keys ? strdup(keys->text) : NULL;

	if (keys)
		keys_release(keys);
	return text;
}

void
sessauth_refresh_keys(SessauthNode *node)
{
	keys_request(node);
}

bool
sessauth_percent_encode(const char *text, char *out, size_t size)
{
	size_t		len = strlen(text);

	if (size < SA_PCT_SIZE(len))
		return false;
	sa_pct_encode(text, len, out);
	return true;
}

const char *
sessauth_version(void)
{
	return SESSAUTH_VERSION;
}

void
node_lease_problem(const SessauthNode *node, int64_t now, char *out, size_t size)
{
	const char *state = node->lease.end == 0 ? "not synced yet" : "the lease is over";
	char		redis[200] = "";

	if (node->redis_url)
		redis_problem(node, now, redis, sizeof(redis));
	snprintf(out, size, "%s%s%.*s%s%s", state, redis[0] ? ": " : "", node->pg_state[0] ? 100 : 200, redis,
			 node->pg_state[0] == '\0' ? "" : redis[0] ? "; " : ": ", node->pg_state);
}

/* Why there is no answer over Redis; empty when that is not known. With the lock held. */
static void
redis_problem(const SessauthNode *node, int64_t now, char *out, size_t size)
{
	const Lease *lease = &node->lease;
	int64_t		lo;
	int64_t		hi;

	if (node_redis_state(node)[0] != '\0')
		snprintf(out, size, "Redis: %s", node_redis_state(node));
	else if (lease_waits(lease, &lo, &hi) && node->memory.count >= node->memory.max)
		snprintf(out, size, "the memory for revocations is full");
	else if (lease_waits(lease, &lo, &hi))
		snprintf(out, size, "the stream does not show revocation %lld of %lld", (long long) lo, (long long) hi);
	else if (lease->state == LEASE_NONCE_OUTSTANDING)
		snprintf(out, size, "the worker has not answered for %lld ms (is it running, does it have the same link key, "
				 "is max_staleness within sessauth.max_lease?)", (long long) (now - lease->t0) / 1000);
}

const char *
node_redis_state(const SessauthNode *node)
{
	for (int i = 0; i < REDIS_TASKS; i++)
		if (node->redis_state[i][0] != '\0')
			return node->redis_state[i];
	return "";
}

bool
node_is_answered(SessauthNode *node, int64_t now)
{
	int64_t		answered_t0;

	many_readers_read(&node->known_lock);
	answered_t0 = node->lease.answered_t0;
	many_readers_end_read(&node->known_lock);
	return answered_t0 != 0 && now < answered_t0 + node->max_staleness;
}

void
node_clean(char *text)
{
	for (char *c = text; *c; c++)
	{
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
}

bool
node_start_thread(pthread_t *thread, void *(*run) (void *), void *arg)
{
	sigset_t	all;
	sigset_t	before;
	bool		started;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(thread, NULL, run, arg) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

void
node_log(SessauthNode *node, SessauthLevel level, const char *format,...)
{
	char		line[512];
	va_list		args;

	if (node->log == NULL)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	node->log(node->log_arg, level, line);
}

static const char *
check_options(SessauthNode *node, const SessauthOptions *options)
{
	const char *why;

	if (options->size != sizeof(SessauthOptions))
		return "the options are of another version of the library";
	if (options->redis_url == NULL && options->pg_conninfo == NULL)
		return "a Redis URL or a PostgreSQL conninfo is needed";
	why = options->redis_url ? sa_redis_url_parse(options->redis_url, &node->redis) : NULL;
	if (why)
	{
		snprintf(node->error, sizeof(node->error), "invalid Redis URL: %s%s", why,
				 strstr(why, "password") ? "; put it into a file of its own" : "");
		return node->error;
	}
	if (options->pg_conninfo == NULL && (options->jwks_file == NULL || options->link_key_file == NULL))
		return "keys are needed: give a PostgreSQL conninfo, or both a JWKS file and a link key file";
	if (options->pg_conninfo && !postgres_conninfo_valid(options->pg_conninfo))
		return "invalid PostgreSQL conninfo";
	if (options->name && !sa_node_name_valid(options->name, strlen(options->name)))
		return "invalid node name: use 1 to 64 of A-Z a-z 0-9 - . _ : @";
	if (options->max_staleness_ms < 100 || options->max_staleness_ms > 3600000)
		return "max_staleness must be from 100 ms to 1 h";
	if (options->leeway_s < 0 || options->leeway_s > 300)
		return "leeway must be from 0 to 300 s";
	if (options->issuer == NULL || options->audience == NULL)
		return "issuer and audience are needed";
	if (options->max_revocations < 1)
		return "max_revocations must be positive";
	if (options->ask_connections < 0 || options->ask_connections > ASK_CONNECTIONS_MAX)
		return "ask_connections must be from 0 to 64";
	if (options->ask_timeout_ms < 100 || options->ask_timeout_ms > 60000)
		return "ask_timeout must be from 100 ms to 1 min";
	return NULL;
}

static bool
copy_options(SessauthNode *node, const SessauthOptions *options)
{
	bool		ok = true;

	node->redis_url = copy(options->redis_url, &ok);
	node->redis_password_file = copy(options->redis_password_file, &ok);
	node->pg_conninfo = copy(options->pg_conninfo, &ok);
	node->jwks_file = copy(options->jwks_file, &ok);
	node->link_key_file = copy(options->link_key_file, &ok);
	node->issuer = copy(options->issuer, &ok);
	node->audience = copy(options->audience, &ok);
	node->max_staleness = options->max_staleness_ms * 1000;
	node->leeway = options->leeway_s;
	node->ask_connections = options->ask_connections;
	node->ask_timeout = options->ask_timeout_ms * 1000;
	node->trust_redis = options->trust_redis;
	node->log = options->log;
	node->log_arg = options->log_arg;
	node->keys_refreshed = options->keys_refreshed;
	node->keys_refreshed_arg = options->keys_refreshed_arg;
	node->revoked = options->revoked;
	node->revoked_arg = options->revoked_arg;
	return ok;
}

static char *
copy(const char *text, bool *ok)
{
	char	   *result = text ? strdup(text) : NULL;

	if (text && result == NULL)
		*ok = false;
	return result;
}

/* A node id belongs to one life of one process: name and a random incarnation. */
static bool
make_id(SessauthNode *node, const char *name)
{
	unsigned char bytes[16];
	char		incarnation[SA_HEX_SIZE(16)];
	char		fallback[SA_NODE_NAME_MAX + 1];

	if (name == NULL)
	{
		char		host[SA_NODE_NAME_MAX - 11];

		if (gethostname(host, sizeof(host)) != 0 || (host[sizeof(host) - 1] = '\0', !sa_node_name_valid(host, strlen(host))))
			strcpy(host, "node");
		snprintf(fallback, sizeof(fallback), "%s:%ld", host, (long) getpid());
		name = fallback;
	}
	if (!sa_random(bytes, sizeof(bytes)))
		return false;
	sa_hex_encode(bytes, sizeof(bytes), incarnation);
	snprintf(node->id, sizeof(node->id), "%s/%s", name, incarnation);
	return true;
}

/*
 * upkeep.c
 *		What has to happen now and then, whichever transport is alive: to say when the lease begins and ends, and to forget
 *		what has expired. Its own thread, so that neither a transport that hangs nor a large memory delays the other.
 */
#include <stdlib.h>
#include <time.h>

#include "node/apply.h"
#include "node/ask.h"

#define TICK_MS		100
#define PRUNE_US	5000000

struct Upkeep
{
	SessauthNode *node;
	pthread_t	thread;
	bool		running;
	pthread_mutex_t lock;
	pthread_cond_t stop_wanted;
	bool		stopping;
	bool		was_fresh;		/* the lease, at the last tick */
};

static void *run(void *arg);
static void tell_freshness(Upkeep *upkeep);
static void prune(SessauthNode *node);

bool
upkeep_start(SessauthNode *node)
{
	Upkeep	   *upkeep = calloc(1, sizeof(*upkeep));
	pthread_condattr_t attr;

	if (upkeep == NULL)
		return false;
	upkeep->node = node;
	node->upkeep = upkeep;
	pthread_mutex_init(&upkeep->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&upkeep->stop_wanted, &attr);
	pthread_condattr_destroy(&attr);
	upkeep->running = node_start_thread(&upkeep->thread, run, upkeep);
	return upkeep->running;
}

void
upkeep_stop(SessauthNode *node)
{
	Upkeep	   *upkeep = node->upkeep;

	if (upkeep == NULL)
		return;
	pthread_mutex_lock(&upkeep->lock);
	upkeep->stopping = true;
	pthread_cond_signal(&upkeep->stop_wanted);
	pthread_mutex_unlock(&upkeep->lock);
	if (upkeep->running)
		pthread_join(upkeep->thread, NULL);
	pthread_cond_destroy(&upkeep->stop_wanted);
	pthread_mutex_destroy(&upkeep->lock);
	free(upkeep);
	node->upkeep = NULL;
}

static void *
run(void *arg)
{
	Upkeep	   *upkeep = arg;
	struct timespec next;
	int64_t		pruned_at = clock_now();

	pthread_mutex_lock(&upkeep->lock);
	while (!upkeep->stopping)
	{
		pthread_mutex_unlock(&upkeep->lock);
		tell_freshness(upkeep);
		ask_expire(upkeep->node);
		if (clock_now() - pruned_at > PRUNE_US)
		{
			prune(upkeep->node);
			pruned_at = clock_now();
		}
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_nsec += TICK_MS * 1000000;
		if (next.tv_nsec >= 1000000000)
		{
			next.tv_sec++;
			next.tv_nsec -= 1000000000;
		}
		pthread_mutex_lock(&upkeep->lock);
		if (!upkeep->stopping)
			(void) pthread_cond_timedwait(&upkeep->stop_wanted, &upkeep->lock, &next);
	}
	pthread_mutex_unlock(&upkeep->lock);
	return NULL;
}

/* What an operator wants to know first, once per change. */
static void
tell_freshness(Upkeep *upkeep)
{
	SessauthNode *node = upkeep->node;
	bool		fresh;
	char		why[256] = "the lease is over";

	many_readers_read(&node->known_lock);
	fresh = node->lease.end > clock_now();
	if (node_redis_state(node)[0] == '\0' && node->pg_state[0] == '\0')	/* else it was said when it began */
		node_lease_problem(node, clock_now(), why, sizeof(why));
	many_readers_end_read(&node->known_lock);
	if (fresh == upkeep->was_fresh)
		return;
	upkeep->was_fresh = fresh;
	if (fresh)
		node_log(node, SESSAUTH_LOG_INFO, "synced, the lease is fresh");
	else
		node_log(node, SESSAUTH_LOG_WARNING, "%s", why);
}

static void
prune(SessauthNode *node)
{
	int64_t		forgets_before;

	apply_prune(node);
	many_readers_read(&node->known_lock);
	forgets_before = node_forgets_before(node, clock_now());
	many_readers_end_read(&node->known_lock);
	seen_prune(&node->seen, atomic_load(&node->keys_serial), forgets_before / 1000);
}

/*
 * watch.c
 *		A table of watches by the names that can end them, and the queue of those
 *		that have to be told.
 */
#include "node/watch.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MIN	64			/* buckets */

static void end_below(Watches *watches, int what, const MemoryName *name, int64_t epoch, SessauthEnd why);
static bool grow(Watches *watches);
static void put(WatchLink **bucket, WatchLink *link);
static size_t place_of(const MemoryName *name, size_t size);
static bool same(const MemoryName *a, const MemoryName *b);
static void unlist(Watches *watches, SessauthWatch *watch);
static void end(Watches *watches, SessauthWatch *watch, SessauthEnd why);

void
watches_init(Watches *watches)
{
	memset(watches, 0, sizeof(*watches));
	pthread_mutex_init(&watches->lock, NULL);
	pthread_cond_init(&watches->told, NULL);
}

void
watches_free(Watches *watches)
{
	for (int i = 0; i < WATCH_NAMES; i++)
		free(watches->buckets[i]);
	pthread_cond_destroy(&watches->told);
	pthread_mutex_destroy(&watches->lock);
}

SessauthWatch *
watch_add(Watches *watches, const Claims *claims, void (*ended) (void *, SessauthEnd), void *arg)
{
	SessauthWatch *watch = calloc(1, sizeof(*watch));
	const WatchLink links[WATCH_NAMES] = {
		[WATCH_SESSION] = {.watch = watch, .name = claims->session, .epoch = MEMORY_DEAD - 1},
		[WATCH_USER] = {.watch = watch, .name = claims->user, .epoch = claims->epoch},
		[WATCH_TENANT] = {.watch = watch, .name = claims->tenant, .epoch = claims->tepoch},
		[WATCH_KEY] = {.watch = watch, .name = claims->key, .epoch = MEMORY_DEAD - 1},
	};

	if (watch == NULL)
		return NULL;
	memcpy(watch->links, links, sizeof(links));
	watch->exp = claims->exp;
	watch->ended = ended;
	watch->arg = arg;

	pthread_mutex_lock(&watches->lock);
	if (watches->count >= watches->size && !grow(watches))
	{
		pthread_mutex_unlock(&watches->lock);
		free(watch);
		return NULL;
	}
	for (int i = 0; i < WATCH_NAMES; i++)
		put(&watches->buckets[i][place_of(&watch->links[i].name, watches->size)], &watch->links[i]);
	watch->next = watches->all;
	if (watches->all)
		watches->all->prev = watch;
	watches->all = watch;
	watch->listed = true;
	watches->count++;
	pthread_mutex_unlock(&watches->lock);
	return watch;
}

bool
watch_withdraw(Watches *watches, SessauthWatch *watch)
{
	bool		early;

	pthread_mutex_lock(&watches->lock);
	early = watch->listed;
	if (early)
		unlist(watches, watch);
	for (SessauthWatch **link = &watches->due; watch->due && !early; link = &(*link)->next_due)
	{
		if (*link == watch)
		{
			*link = watch->next_due;
			watch->due = false;
			early = true;
			break;
		}
	}
	pthread_mutex_unlock(&watches->lock);
	return early;
}

void
watch_free(Watches *watches, SessauthWatch *watch)
{
	if (!watch_withdraw(watches, watch))
	{
		pthread_mutex_lock(&watches->lock);
		while (watches->telling == watch && !pthread_equal(watches->teller, pthread_self()))
			pthread_cond_wait(&watches->told, &watches->lock);
		pthread_mutex_unlock(&watches->lock);
	}
	free(watch);
}

void
watches_revoked(Watches *watches, int what, const MemoryName *name, int64_t epoch)
{
	end_below(watches, what, name, epoch, SESSAUTH_END_REVOKED);
}

void
watches_key_gone(Watches *watches, const MemoryName *name)
{
	end_below(watches, WATCH_KEY, name, MEMORY_DEAD, SESSAUTH_END_UNKNOWN);
}

static void
end_below(Watches *watches, int what, const MemoryName *name, int64_t epoch, SessauthEnd why)
{
	pthread_mutex_lock(&watches->lock);
	for (WatchLink *link = watches->size ? watches->buckets[what][place_of(name, watches->size)] : NULL; link;)
	{
		WatchLink  *next = link->next;

		if (same(&link->name, name) && epoch > link->epoch)
			end(watches, link->watch, why);
		link = next;
	}
	pthread_mutex_unlock(&watches->lock);
}

void
watches_missed(Watches *watches, int64_t horizon)
{
	pthread_mutex_lock(&watches->lock);
	for (SessauthWatch *watch = watches->all; watch;)
	{
		SessauthWatch *next = watch->next;

		if (watch->exp <= horizon)
			end(watches, watch, SESSAUTH_END_UNKNOWN);
		watch = next;
	}
	pthread_mutex_unlock(&watches->lock);
}

void
watches_tell(Watches *watches)
{
	pthread_mutex_lock(&watches->lock);
	watches->teller = pthread_self();
	while (watches->due)
	{
		SessauthWatch *watch = watches->due;
		void		(*ended) (void *, SessauthEnd) = watch->ended;
		void	   *arg = watch->arg;
		SessauthEnd why = watch->why;

		watches->due = watch->next_due;
		watch->due = false;
		watches->telling = watch;
		pthread_mutex_unlock(&watches->lock);
		ended(arg, why);		/* may free the watch */
		pthread_mutex_lock(&watches->lock);
		watches->telling = NULL;
		pthread_cond_broadcast(&watches->told);
	}
	pthread_mutex_unlock(&watches->lock);
}

size_t
watches_count(Watches *watches)
{
	size_t		count;

	pthread_mutex_lock(&watches->lock);
	count = watches->count;
	pthread_mutex_unlock(&watches->lock);
	return count;
}

static bool
grow(Watches *watches)
{
	size_t		size = watches->size ? watches->size * 2 : SIZE_MIN;
	WatchLink **bigger[WATCH_NAMES] = {0};

	for (int i = 0; i < WATCH_NAMES; i++)
	{
		bigger[i] = calloc(size, sizeof(WatchLink *));
		if (bigger[i] == NULL)
		{
			while (--i >= 0)
				free(bigger[i]);
			return false;
		}
	}
	for (int i = 0; i < WATCH_NAMES; i++)
	{
		for (size_t j = 0; j < watches->size; j++)
		{
			for (WatchLink *link = watches->buckets[i][j], *next; link; link = next)
			{
				next = link->next;
				put(&bigger[i][place_of(&link->name, size)], link);
			}
		}
		free(watches->buckets[i]);
		watches->buckets[i] = bigger[i];
	}
	watches->size = size;
	return true;
}

static void
put(WatchLink **bucket, WatchLink *link)
{
	link->next = *bucket;
	link->back = bucket;
	if (link->next)
		link->next->back = &link->next;
	*bucket = link;
}

/* The names are 16 bytes of a keyed digest: any bits of them will do. */
static size_t
place_of(const MemoryName *name, size_t size)
{
	return name->half[0] & (size - 1);
}

static bool
same(const MemoryName *a, const MemoryName *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

static void
unlist(Watches *watches, SessauthWatch *watch)
{
	for (int i = 0; i < WATCH_NAMES; i++)
	{
		WatchLink  *link = &watch->links[i];

		*link->back = link->next;
		if (link->next)
			link->next->back = link->back;
	}
	if (watch->prev)
		watch->prev->next = watch->next;
	else
		watches->all = watch->next;
	if (watch->next)
		watch->next->prev = watch->prev;
	watch->listed = false;
	watches->count--;
}

static void
end(Watches *watches, SessauthWatch *watch, SessauthEnd why)
{
	unlist(watches, watch);
	watch->why = why;
	watch->due = true;
	watch->next_due = watches->due;
	watches->due = watch;
}

/*
 * watch.h
 *		Long connections that want to hear of the end of their session.
 *
 * The transports' threads end watches as they bring revocations, one at a time; any thread may add or remove them.
 */
#ifndef SESSAUTH_NODE_WATCH_H
#define SESSAUTH_NODE_WATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/wire.h"
#include "node/memory.h"
#include "node/seen.h"
#include "node/sessauth.h"

enum
{
	WATCH_SESSION, WATCH_USER, WATCH_TENANT, WATCH_KEY, WATCH_NAMES
};

/* One of the four names under which a watch is found. */
typedef struct WatchLink
{
	struct WatchLink *next;
	struct WatchLink **back;	/* what points here */
	SessauthWatch *watch;
	MemoryName	name;
	int64_t		epoch;			/* a revocation above it ends the watch */
} WatchLink;

struct SessauthWatch
{
	SessauthNode *node;
	WatchLink	links[WATCH_NAMES];
	int64_t		exp;			/* of the token, unix seconds */
	void		(*ended) (void *arg, SessauthEnd why);
	void	   *arg;
	bool		listed;			/* in the table */
	bool		due;			/* in the queue of those to be told */
	SessauthEnd why;
	SessauthWatch *next_due;

	/* all that are listed */
	SessauthWatch *next;
	SessauthWatch *prev;
};

typedef struct Watches
{
	pthread_mutex_t lock;
	pthread_cond_t told;
	WatchLink **buckets[WATCH_NAMES];	/* apart, because a tenant or a key may have very many */
	size_t		size;			/* of each; a power of two; 0 before the first watch */
	size_t		count;
	SessauthWatch *all;
	SessauthWatch *due;
	SessauthWatch *telling;		/* its callback runs now, without the lock */
	pthread_t	teller;			/* in this thread */
} Watches;

extern void watches_init(Watches *watches);
extern void watches_free(Watches *watches);	/* after watch_free of each */

/* NULL when memory is short. */
extern SessauthWatch *watch_add(Watches *watches, const Claims *claims, void (*ended) (void *, SessauthEnd), void *arg);

/* Takes a watch out that was not told yet, without a word to anybody. Does not wait and does not free. False: it is too late. */
extern bool watch_withdraw(Watches *watches, SessauthWatch *watch);

/* Waits for its callback to return (unless that is who calls), and frees it. */
extern void watch_free(Watches *watches, SessauthWatch *watch);

/* A revocation: what of (WATCH_SESSION...), its name in the node's memory, and its epoch there. Nobody is told yet. */
extern void watches_revoked(Watches *watches, int what, const MemoryName *name, int64_t epoch);

/* A key that is not among the node's keys any more, for whatever reason. */
extern void watches_key_gone(Watches *watches, const MemoryName *name);

/* Revocations that expired at or before this (unix seconds) may have been missed. */
extern void watches_missed(Watches *watches, int64_t horizon);

/* Calls those whose sessions have ended. One caller at a time (the node's apply_lock), without the node's lock. */
extern void watches_tell(Watches *watches);

extern size_t watches_count(Watches *watches);

#endif							/* SESSAUTH_NODE_WATCH_H */

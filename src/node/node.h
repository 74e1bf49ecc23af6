/*
 * node.h
 *		What the files of the library share.
 *
 * node.c		options, threads, status
 * decide.c		one token
 * keys.c		signing keys and the link key, from PostgreSQL or files; its own thread
 * keys_postgres.c	what keys.c asks PostgreSQL
 * postgres.c	talking to PostgreSQL, without waiting for ever
 * apply.c		what the transports bring, put into what the node knows
 * follower.c	connections to Redis, nonces and answers; its own thread
 * stream.c		reading the stream, in the follower's thread
 * pg_follower.c	connection to PostgreSQL, and when to ask for a lease there; its own thread
 * pg_lease.c	one call for a lease
 * pg_row.c		reading a row of its answer
 * redis_link.c	one connection to Redis inside an event loop; redis_socket.c its bytes, redis_reader.c its replies
 * many_readers.c	the lock between requests and transports
 * keyed.c		digests that only this node can make
 * ask.c		tokens that others are asked about
 * ask_redis.c	asking Redis; in the follower's thread
 * ask_postgres.c	asking PostgreSQL; its own threads
 * breaker.c	when PostgreSQL is left alone
 * seen.c		verified tokens
 * watch.c		long connections that wait for the end of their session
 * news.c		what was revoked, told to watches and to the program
 * upkeep.c		what has to happen now and then; its own thread
 */
#ifndef SESSAUTH_NODE_NODE_H
#define SESSAUTH_NODE_NODE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/key.h"
#include "core/redis_url.h"
#include "core/wire.h"
#include "node/clock.h"
#include "node/lease.h"
#include "node/many_readers.h"
#include "node/memory.h"
#include "node/seen.h"
#include "node/sessauth.h"
#include "node/watch.h"

/* A set of keys that deciders may still be using when a newer one has arrived. */
typedef struct SharedKeys
{
	SaKeySet   *set;
	char	   *text;			/* the public keys as a JWK set */
	int64_t		begun;			/* when the refresh began that brought it */
	uint64_t	serial;			/* changes with the keys, not with each refresh */
	atomic_int	users;
} SharedKeys;

typedef struct Follower Follower;	/* follower.h */
typedef struct PgFollower PgFollower;	/* pg_follower.c */
typedef struct Upkeep Upkeep;	/* upkeep.c */
typedef struct Asker Asker;		/* ask.h */

/* What the follower does in Redis. */
typedef enum RedisTask
{
	REDIS_READ,					/* the stream */
	REDIS_ASK,					/* by nonces */
	REDIS_LISTEN,				/* for answers */
	REDIS_TASKS
} RedisTask;

struct SessauthNode
{
	/* fixed after sessauth_open */
	char		id[SA_NODE_ID_SIZE];
	char	   *redis_url;		/* NULL: PostgreSQL alone */
	SaRedisUrl	redis;
	char	   *redis_password_file;
	char	   *pg_conninfo;
	char	   *jwks_file;
	char	   *link_key_file;
	char	   *issuer;
	char	   *audience;
	int64_t		max_staleness;	/* us */
	int64_t		leeway;			/* s */
	int			ask_connections;
	int64_t		ask_timeout;	/* us */
	bool		trust_redis;
	void		(*log) (void *arg, SessauthLevel level, const char *message);
	void	   *log_arg;
	void		(*keys_refreshed) (void *arg);
	void	   *keys_refreshed_arg;
	void		(*revoked) (void *arg, const SessauthRevocation *revocation);
	void	   *revoked_arg;
	char		error[256];
	bool		opened;

	/* what is known of the ledger: guarded by known_lock; deciders read, transports write by way of apply.h */
	pthread_mutex_t apply_lock; /* taken before known_lock */
	ManyReaders known_lock;
	Lease		lease;
	LedgerClock ledger_clock;
	Memory		memory;
	struct
	{
		char		g[SA_UUID_SIZE];
		int64_t		n;
		int64_t		at;
	}			newest;			/* of the entries with a number that were applied; by it a ledger whose storage went back is found out */
	int64_t		rescans;
	int64_t		refused_entries;
	int64_t		connects;
	char		redis_state[REDIS_TASKS][160];	/* why it cannot do that; empty when it can */
	int64_t		pg_connects;
	char		pg_state[200];	/* why there is no lease from PostgreSQL; empty when there is one, or nobody asks for it */

	/* each with its own lock */
	Seen		seen;
	Watches		watches;

	atomic_uint_fast64_t keys_serial;	/* of the keys in use */
	atomic_int_fast64_t keys_begun; /* when they were asked for */

	/* keys: guarded by keys_lock */
	pthread_mutex_t keys_lock;
	pthread_cond_t keys_wanted;
	SharedKeys *keys;
	int64_t		keys_tried;		/* when the last refresh began, successful or not */
	int64_t		key_refreshes;
	bool		keys_requested;
	bool		keys_stop;
	char		keys_error[256];
	unsigned char link_key[SA_KEY_LEN];

	pthread_t	keys_thread;
	bool		keys_running;
	int			keys_wake[2];	/* a pipe: written to interrupt waiting for PostgreSQL */
	Follower   *follower;
	PgFollower *pg_follower;
	Upkeep	   *upkeep;
	Asker	   *asker;			/* NULL: nobody can be asked */
};

/* decide.c: sessauth_decide in two steps; *claims is filled when the token's members of *out are. */
extern SessauthCode decide_token(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out,
								 Claims *claims);
extern SessauthCode decide_claims(SessauthNode *node, const Claims *claims, SessauthDecision *out);
extern void decide_describe(const Claims *claims, SessauthDecision *out);	/* the token's members */

/* keys.c */
extern bool keys_start(SessauthNode *node);
extern void keys_stop(SessauthNode *node);
extern void keys_request(SessauthNode *node);
extern SharedKeys *keys_use(SessauthNode *node);	/* NULL: none known; give back with keys_release */
extern void keys_release(SharedKeys *keys);

/* follower.c */
extern bool follower_start(SessauthNode *node);
extern void follower_stop(SessauthNode *node);
extern void follower_link_key_arrived(SessauthNode *node);	/* from another thread */
extern void follower_question_waits(SessauthNode *node);	/* likewise */

/* upkeep.c */
extern bool upkeep_start(SessauthNode *node);
extern void upkeep_stop(SessauthNode *node);

/* news.c; with apply_lock, without known_lock */
extern void news_revoked(SessauthNode *node, const SaEntry *entry);
extern void news_missed(SessauthNode *node, int64_t before, int64_t horizon);	/* the lease's horizon has moved (us) */
extern void news_keys(SessauthNode *node, const SaKeySet *before, const SaKeySet *now);	/* other ones are in use */

/* node.c */
extern void node_log(SessauthNode *node, SessauthLevel level, const char *format,...) __attribute__((format(printf, 3, 4)));

/* Why the node is not following Redis; empty when it is. With known_lock held. */
extern const char *node_redis_state(const SessauthNode *node);

/* Has the worker answered a nonce that is younger than max_staleness? Then it writes to that Redis. */
extern bool node_is_answered(SessauthNode *node, int64_t now);

/* Replaces what is no printable ASCII: text of other servers ends up in a log line or a reply. */
extern void node_clean(char *text);

/* Why there is no fresh lease, in words. Call with known_lock held. */
extern void node_lease_problem(const SessauthNode *node, int64_t now, char *out, size_t size);

/* Starts a thread in which no signal is delivered: they belong to the program, and SIGPIPE would end it. */
extern bool node_start_thread(pthread_t *thread, void *(*run) (void *), void *arg);

/* The ledger's time in us, at least; 0 when unknown. Call with known_lock held. */
static inline int64_t
node_ledger_time(const SessauthNode *node, int64_t now)
{
	int64_t		time;

	if (!node->ledger_clock.has_lower)
		return 0;
	time = now + node->ledger_clock.lower;
	return time > node->lease.horizon ? time : node->lease.horizon;
}

/*
 * What may be forgotten: revocations whose "until" is at or before this (unix
 * ms). Later by the leeway than their tokens' expiry, because until then those are accepted. Call with known_lock held.
 */
static inline int64_t
node_forgets_before(const SessauthNode *node, int64_t now)
{
	int64_t		time = node_ledger_time(node, now) / 1000 - node->leeway * 1000;

	return time > 0 ? time : 0;
}

#endif							/* SESSAUTH_NODE_NODE_H */

/*
 * follower.h
 *		What follower.c (connections, nonces, answers), stream.c and pages.c (reading) share.
 *
 * Everything here belongs to the follower's thread. What the node knows, the lease with its nonce included, does not: other threads
 * change it too (apply.h).
 */
#ifndef SESSAUTH_NODE_FOLLOWER_H
#define SESSAUTH_NODE_FOLLOWER_H

#include "node/node.h"
#include "node/redis_link.h"

#define REPLY_TIMEOUT_MS	2000

typedef struct RedisQuestions RedisQuestions;

struct Follower
{
	SessauthNode *node;
	pthread_t	thread;
	bool		running;
	struct event_base *base;
	RedisLink  *reader;
	RedisLink  *control;
	struct event *tick;
	struct event *wake;
	struct event *goodbye;
	int			pipe[2];
	bool		stopping;
	atomic_bool stop;			/* from another thread: it shall begin to */
	bool		has_key;
	unsigned char key[SA_KEY_LEN];	/* the link key */
	SaMacKey   *mac_key;		/* the same, prepared */

	char		stream_key[SA_REDIS_KEY_SIZE];
	char		nodes_key[SA_REDIS_KEY_SIZE];
	char		answers_key[SA_REDIS_KEY_SIZE];

	/* stream.c */
	uint64_t	last_id[2];		/* of the stream's entry that was read last */
	bool		reading;		/* an XREAD is under way */
	bool		read_waits;		/* and it blocks in Redis until there is news */
	int64_t		read_begun;
	int64_t		read_not_before;
	int64_t		rescan_not_before;
	int64_t		rescan_wait;
	SaEntry    *batch;			/* APPLY_MAX of them */

	/* pages.c; a page goes by its first number */
	char		pages_g[SA_UUID_SIZE];
	int64_t		pages_next;		/* to ask for */
	int64_t		pages_last;
	int64_t		pages_taken;	/* whose reply comes next */
	int64_t		pages_tried;	/* up to here none is asked for again */
	int			pages_asked;	/* under way */
	bool		pages_broken;	/* one of those that were asked for together was not to be had */

	/* asking */
	bool		beat;			/* since the last look for an answer */
	bool		getting;		/* an HGET is under way */
	int64_t		got_at;
	int64_t		written_at;

	RedisQuestions *questions;	/* ask_redis.c */

	/* connecting; index 0: reader, 1: control */
	int64_t		retry_at[2];	/* 0: not now */
	int64_t		up_at[2];
	int			backoff[2];
};

/* follower.c: what is wrong with one task in Redis, as one line; empty when nothing is. Logged when the whole changes. */
extern void follower_state(Follower *follower, RedisTask task, const char *format,...) __attribute__((format(printf, 3, 4)));

/* follower.c: asks, looks for the answer, asks again; called on every beat and tick. */
extern void follower_ask(Follower *follower);

/* stream.c */
extern bool stream_init(Follower *follower);
extern void stream_free(Follower *follower);
extern void stream_connected(Follower *follower);
extern void stream_read(Follower *follower, int64_t now);	/* reads on, unless it does already or should wait */

extern void stream_skip(Follower *follower, const uint64_t id[2]);	/* everything up to this entry is known already */
extern bool stream_parse_id(const redisReply *id, uint64_t out[2]);

/* pages.c */
extern void pages_connected(Follower *follower);
extern bool pages_read(Follower *follower); /* true when some are under way: then the stream waits for the last of them */

/* ask_redis.c */
extern bool questions_init(Follower *follower);
extern void questions_free(Follower *follower);
extern void questions_send(Follower *follower); /* those that wait */
extern void questions_tick(Follower *follower, int64_t now);	/* gives up those that take too long */
extern void questions_lost(Follower *follower); /* the connection with their replies has ended */

#endif							/* SESSAUTH_NODE_FOLLOWER_H */

/*
 * redis_link.h
 *		One connection to Redis that never blocks.
 *
 * hiredis is the codec only: commands are formatted and replies parsed by it,
 * while bytes move over our own non-blocking socket (redis_socket.c), in the worker's wait set. One
 * exchange at a time: queue commands, begin, and the owner is called back when the last reply is there.
 * The link is dirty from the first byte sent to the last reply; a dirty link that fails is closed, never reused.
 */
#ifndef SESSAUTH_WORKER_REDIS_LINK_H
#define SESSAUTH_WORKER_REDIS_LINK_H

#include "postgres.h"

#include <hiredis/hiredis.h>

#include "lib/stringinfo.h"

#include "core/digest.h"
#include "core/redis_url.h"
#include "server/clock.h"
#include "worker/redis_socket.h"

#define LINK_ERROR_SIZE SOCKET_ERROR_SIZE

typedef enum LinkState
{
	LINK_CLOSED,
	LINK_CONNECTING,
	LINK_READY,					/* connected, nothing under way */
	LINK_BUSY					/* an exchange is under way */
} LinkState;

typedef struct RedisLink
{
	LinkState	state;
	RedisSocket socket;
	Instant		deadline;		/* of the connect or the exchange; absolute */
	StringInfoData out;			/* queued bytes; "sent" of them are gone */
	int			sent;
	int			expected;		/* replies of this exchange, and of what has been queued since */
	int			begun_len;		/* of "out" without that */
	int			begun_expected;
	int			count;			/* of which are here */
	redisReply **replies;		/* malloc'ed by hiredis, freed by link_finish */
	int			replies_size;
	size_t		received;		/* bytes of this exchange */
	struct redisReader *reader;
	char		error[LINK_ERROR_SIZE];
} RedisLink;

extern void link_init(RedisLink *link);

/* Starts to connect. False when it failed at once (error is set). No transaction may be open. */
extern bool link_connect(RedisLink *link, const SaRedisUrl *url, Instant deadline);

/* Queues one command; arguments are bytes. */
extern void link_command(RedisLink *link, int argc, const SaField *argv);

/* Sends what was queued. The exchange is over when link_progress says so. */
extern void link_begin(RedisLink *link, Instant deadline);

/* Makes what has been queued since part of the exchange under way, or forgets it. */
extern void link_extend(RedisLink *link, Instant deadline);
extern void link_drop(RedisLink *link);

/* Replies that are still to come; -1 when not even all commands are gone. */
extern int	link_unanswered(const RedisLink *link);

typedef enum LinkProgress
{
	LINK_WAIT,					/* nothing to do but wait */
	LINK_CONNECTED,				/* just now */
	LINK_DONE,					/* all replies are in link->replies; call link_finish after reading them */
	LINK_FAILED					/* closed; error says why */
} LinkProgress;

/* Reads and writes what can be without blocking; also checks the deadline. */
extern LinkProgress link_progress(RedisLink *link, Instant now);

extern void link_finish(RedisLink *link);	/* frees the replies; the link is ready again */
extern void link_close(RedisLink *link);

/* What the server said, fit for logs and views: printable ASCII, not too long. */
extern void link_error_text(const char *reply, char *out, size_t size);
extern int	link_wait_events(const RedisLink *link);	/* WL_SOCKET_*; 0 when closed */
extern Instant link_next_event(const RedisLink *link);	/* when to call link_progress although nothing has come */

#endif							/* SESSAUTH_WORKER_REDIS_LINK_H */

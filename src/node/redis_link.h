/*
 * redis_link.h
 *		One connection to Redis inside an event loop.
 *
 * hiredis formats and parses; libevent moves the bytes. Commands are answered
 * in order, each reply going to the function that was passed with it. Everything happens in the loop's thread.
 */
#ifndef SESSAUTH_NODE_REDIS_LINK_H
#define SESSAUTH_NODE_REDIS_LINK_H

#include <event2/event.h>
#include <hiredis/hiredis.h>

#include "core/digest.h"
#include "core/redis_url.h"

#define REDIS_LINK_COMMANDS_MAX 80	/* under way at once */

typedef struct RedisLink RedisLink;

/* reply is valid during the call only, also when the connection ends in it. */
typedef void (*RedisReplied) (void *arg, const redisReply *reply);

typedef struct RedisEvents
{
	void		(*up) (void *arg, RedisLink *link); /* logged in, database selected */
	void		(*down) (void *arg, RedisLink *link, const char *why);	/* closed; call redis_link_connect again when you like */
	void	   *arg;
} RedisEvents;

/* NULL when out of memory. The URL must live as long as the link; password_file may be NULL. */
extern RedisLink *redis_link_new(struct event_base *base, const SaRedisUrl *url, const char *password_file,
								 const RedisEvents *events);
extern void redis_link_free(RedisLink *link);	/* without calling down */

/* The outcome comes by up or down, possibly before this returns. Names are resolved here and may block. */
extern void redis_link_connect(RedisLink *link);
extern bool redis_link_is_up(const RedisLink *link);

/* False when the link is not up, too many commands are under way or memory is short. A reply later than timeout_ms ends the connection. */
extern bool redis_link_command(RedisLink *link, RedisReplied replied, int timeout_ms, int argc, const SaField *argv);

#endif							/* SESSAUTH_NODE_REDIS_LINK_H */

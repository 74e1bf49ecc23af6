/*
 * redis_reader.h
 *		Replies of Redis out of bytes, all of one reply in one place.
 *
 * hiredis is the codec. Its own objects cost two allocations for each string, and a reply with a thousand entries of
 * the stream has 25 thousand; here they are cut from memory that the next reply uses again.
 */
#ifndef SESSAUTH_NODE_REDIS_READER_H
#define SESSAUTH_NODE_REDIS_READER_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct RedisReader RedisReader;

extern RedisReader *redis_reader_new(void); /* NULL when memory is short */
extern void redis_reader_free(RedisReader *reader);

/* Forgets what was fed, for a new connection. False when memory is short. The last reply stays until the next one. */
extern bool redis_reader_restart(RedisReader *reader);

/*
 * Bytes as they come, in pieces of any size. False when they are no reply, when a reply is larger than any that we ask for,
 * or when memory is short: then only redis_reader_restart helps.
 */
extern bool redis_reader_feed(RedisReader *reader, const void *bytes, size_t len);

/* The next whole reply, until the next call; NULL when it has not come yet. False as above. */
extern bool redis_reader_next(RedisReader *reader, const redisReply **reply);

#endif							/* SESSAUTH_NODE_REDIS_READER_H */

/*
 * redis_url.h
 *		Where a mirror is: redis://[user@]host[:port][/db] or unix:///path[?db=n].
 */
#ifndef SESSAUTH_CORE_REDIS_URL_H
#define SESSAUTH_CORE_REDIS_URL_H

#include <stdbool.h>

typedef struct SaRedisUrl
{
	bool		is_unix;
	char		host[256];		/* or the path of the socket */
	char		port[8];
	char		user[128];		/* empty: Redis's default user */
	int			db;
} SaRedisUrl;

/* NULL when the URL was understood, else why not: a static English phrase in lower case. */
extern const char *sa_redis_url_parse(const char *url, SaRedisUrl *out);

#endif							/* SESSAUTH_CORE_REDIS_URL_H */

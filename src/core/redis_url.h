/*
 * redis_url.h
 *		Where a mirror is, and what its keys are called there. Worker and node read the same text.
 *
 *	redis://[user@]host[:port][/db][?options]
 *	rediss://[user@]host[:port][/db][?options]		TLS; certificate and host name are verified
 *	unix:///path[?options]
 *
 * Options, joined by '&', with percent-encoded values:
 *
 *	prefix		of all key names (doc/protocol.md, section 1)
 *	db			number of the database; only with unix, the others have it in the path
 *	cacert		PEM file with the CAs to trust, instead of the system's; this and the next two only with rediss
 *	cert, key	PEM files with a certificate, for a server that demands one, and its private key
 */
#ifndef SESSAUTH_CORE_REDIS_URL_H
#define SESSAUTH_CORE_REDIS_URL_H

#include <stdbool.h>

#include "wire.h"

#define SA_REDIS_FILE_SIZE 512

typedef struct SaRedisUrl
{
	bool		is_unix;
	bool		is_tls;
	char		host[256];		/* or the path of the socket */
	char		port[8];
	char		user[128];		/* empty: Redis's default user */
	int			db;
	char		prefix[SA_PREFIX_MAX + 1];
	char		ca_file[SA_REDIS_FILE_SIZE];	/* empty: none given, as the next two */
	char		cert_file[SA_REDIS_FILE_SIZE];
	char		key_file[SA_REDIS_FILE_SIZE];
} SaRedisUrl;

/* NULL when the URL was understood, else why not: a static English phrase in lower case. */
extern const char *sa_redis_url_parse(const char *url, SaRedisUrl *out);

/*
 * Whether two URLs name the same server, database and prefix, whatever else they say. Two names of one host, or its name and
 * its address, are different here: only who connects can tell.
 */
extern bool sa_redis_url_same_place(const SaRedisUrl *a, const SaRedisUrl *b);

#endif							/* SESSAUTH_CORE_REDIS_URL_H */

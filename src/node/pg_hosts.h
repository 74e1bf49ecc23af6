/*
 * pg_hosts.h
 *		The hosts that a conninfo lists, one by one.
 *
 * libpq goes through such a list by itself, but without its blocking calls it gives up no host that does not answer: the first one could
 * take all the time that there is for the others.
 */
#ifndef SESSAUTH_NODE_PG_HOSTS_H
#define SESSAUTH_NODE_PG_HOSTS_H

#include <stdbool.h>

/* Of one host, in libpq's words; empty: not said. */
typedef struct PgHost
{
	char		host[512];
	char		hostaddr[128];
	char		port[32];
} PgHost;

/* How many there are; 1, too, when the lists have gaps or do not fit each other, or the conninfo is not valid: that is libpq's to judge. */
extern int	pg_hosts_count(const char *conninfo);

/* The one of that index, from 0; false when it is too long, or memory is short. */
extern bool pg_hosts_get(const char *conninfo, int index, PgHost *out);

#endif							/* SESSAUTH_NODE_PG_HOSTS_H */

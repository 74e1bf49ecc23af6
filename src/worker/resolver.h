/*
 * resolver.h
 *		The addresses of a host, without waiting for a name server.
 *
 * getaddrinfo() cannot be told when to stop, and nothing else happens meanwhile: no beat to another mirror, no
 * shutdown. c-ares reads /etc/hosts and /etc/resolv.conf, anew for each lookup, and asks the name servers over sockets of its own.
 */
#ifndef SESSAUTH_WORKER_RESOLVER_H
#define SESSAUTH_WORKER_RESOLVER_H

#include <sys/socket.h>

#include "server/clock.h"

#define RESOLVER_ADDRESSES_MAX 16

typedef struct Address
{
	struct sockaddr_storage address;
	socklen_t	len;
} Address;

typedef struct AddressList
{
	int			count;
	Address		items[RESOLVER_ADDRESSES_MAX];
} AddressList;

typedef enum ResolverProgress
{
	RESOLVER_DONE,				/* the list has at least one address, the best first */
	RESOLVER_WAIT,
	RESOLVER_FAILED
} ResolverProgress;

typedef struct Resolver Resolver;

/* Begins a lookup whose result goes into *found, which must live as long. NULL when that is impossible, and *why a static text. */
extern Resolver *resolver_begin(const char *host, const char *port, AddressList *found, const char **why);

/* Goes on; *why says, as a static text, why it failed. */
extern ResolverProgress resolver_progress(Resolver *resolver, const char **why);

/* To wait for: readable when resolver_progress has something to do, which is also at that time. */
extern int	resolver_fd(const Resolver *resolver);
extern Instant resolver_next_event(const Resolver *resolver);

/* Ends it, whether it is done or not. */
extern void resolver_end(Resolver *resolver);

#endif							/* SESSAUTH_WORKER_RESOLVER_H */

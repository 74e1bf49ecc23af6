/*
 * connections.h
 *		Who is connected to one loop, and who takes too long.
 */
#ifndef SESSAUTH_GATE_CONNECTIONS_H
#define SESSAUTH_GATE_CONNECTIONS_H

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdatomic.h>
#include <stddef.h>

typedef struct Connections Connections;

/*
 * idle_s: how long a connection may be silent between requests, and how long a request may take to arrive. unread_max: how many bytes of a
 * connection are read ahead; at least what the body of a request may have, and a line of its headers. total counts those of all
 * loops that share it. NULL: no memory.
 */
extern Connections *connections_new(struct event_base *base, int idle_s, size_t unread_max, atomic_size_t *total);
extern void connections_free(Connections *connections);

/* A bufferevent for evhttp to use for a new connection. NULL: no memory. */
extern struct bufferevent *connections_add(Connections *connections);

/* How many are open, at most a second ago. From any thread. */
extern size_t connections_count(const Connections *connections);

/* The same of all loops that share the total. */
extern size_t connections_total(const Connections *connections);

/* Closes those on which no request is under way. Returns how many are left; those that are closed count for two sweeps. */
extern size_t connections_close_idle(Connections *connections);

#endif							/* SESSAUTH_GATE_CONNECTIONS_H */

/*
 * listener.h
 *		Listening sockets, TCP and unix, and how many connections they let in.
 *
 * A listener is one address; an acceptor is one loop's share in all of them.
 */
#ifndef SESSAUTH_GATE_LISTENER_H
#define SESSAUTH_GATE_LISTENER_H

#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>

#include "gate/connections.h"

#define LISTEN_MAX	8

/* Where to listen: host and port (0: any free one), or the path of a unix socket. */
typedef struct ListenAddress
{
	char		host[256];		/* empty: unix socket */
	int			port;
	char		path[108];
} ListenAddress;

typedef struct Listener Listener;
typedef struct Acceptor Acceptor;

/* host:port, [v6]:port or unix:/path. */
extern bool listen_address_parse(const char *text, size_t len, ListenAddress *out);

/*
 * Listens, and says where on stderr, as "what" (empty, or a word and a space). A socket that nobody listens on any more is replaced. At most
 * max_connections clients at a time in all loops that share a total, and at most one more for each loop. NULL, and why on stderr, when it cannot.
 * From now on each of the loops 0 to loops - 1 is owed connections, so each must have an acceptor.
 */
extern Listener *listener_open(const ListenAddress *address, const char *what, int max_connections, int loops);
extern void listener_stop(Listener *listener);	/* clients are refused from now on, while acceptors may still be there */
extern void listener_free(Listener *listener);	/* after its acceptors; removes a unix socket. NULL is fine. */

/* Lets this loop take connections, one at a time, so that loops that share a socket get about as many each. NULL: no memory. */
extern Acceptor *acceptor_new(Listener *const *listeners, int count, int loop, struct event_base *base, struct evhttp *http, Connections *connections);

/*
 * For a loop that is about to stop: takes all that have connected by now, which would be cut off otherwise, within what there is room for. It
 * takes until the loop's next turns; then acceptor_free.
 */
extern void acceptor_last_call(Acceptor *acceptor);

/* Takes no more; NULL is fine. The http must still be there. */
extern void acceptor_free(Acceptor *acceptor);

#endif							/* SESSAUTH_GATE_LISTENER_H */

/*
 * listener.h
 *		The gate's listening socket, and how many connections it lets in.
 */
#ifndef SESSAUTH_GATE_LISTENER_H
#define SESSAUTH_GATE_LISTENER_H

#include <event2/event.h>
#include <event2/http.h>

typedef struct Listener Listener;

/* Listens for http and says where on stderr; port 0: any free one. NULL, and why on stderr, when it cannot. */
extern Listener *listener_open(struct event_base *base, struct evhttp *http, const char *host, int port);

/* After evhttp_free, which closes the socket. NULL is fine. */
extern void listener_free(Listener *listener);

#endif							/* SESSAUTH_GATE_LISTENER_H */

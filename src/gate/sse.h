/*
 * sse.h
 *		/revocations: server-sent events, for whoever holds long connections.
 *
 * An event "revoked" has the id generation:number and a JSON object: kind, tenant, user, session, kid, epoch, at, as far as the
 * kind has them. "missed" says that there may have been others that will not come: look at every connection again.
 * "connected" comes first and has the id to resume from.
 */
#ifndef SESSAUTH_GATE_SSE_H
#define SESSAUTH_GATE_SSE_H

#include <event2/event.h>
#include <event2/http.h>
#include <stddef.h>

#include "node/sessauth.h"

typedef struct Sse Sse;

/* Made before the node is opened, because revocations may come at once. NULL: no memory or descriptors. */
extern Sse *sse_new(struct event_base *base);
extern void sse_free(Sse *sse);	/* after the node was closed. NULL is fine. */

/* From the library's thread. */
extern void sse_push(Sse *sse, const SessauthRevocation *revocation);

/* Serves one client, from Last-Event-ID on, until it goes. */
extern void sse_serve(Sse *sse, SessauthNode *node, struct evhttp_request *request);

/* Ends all of them. */
extern void sse_close_all(Sse *sse);

extern size_t sse_clients(const Sse *sse);	/* NULL: none */

#endif							/* SESSAUTH_GATE_SSE_H */

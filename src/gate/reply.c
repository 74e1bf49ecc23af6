/*
 * reply.c
 *		Writing an answer, or giving up a request that nobody waits for any more.
 */
#include <event2/buffer.h>
#include <string.h>

#include "gate/gate.h"

void
reply(Gate *gate, struct evhttp_request *request, int status, const char *phrase, const char *body)
{
	struct evbuffer *buffer = evbuffer_new();

	reply_header(request, "Cache-Control", "no-store");
	if (atomic_load_explicit(&gate->stopping, memory_order_relaxed))
		reply_header(request, "Connection", "close");
	if (buffer)
		evbuffer_add(buffer, body, strlen(body));
	evhttp_send_reply(request, status, phrase, buffer);
	if (buffer)
		evbuffer_free(buffer);
}

void
reply_header(struct evhttp_request *request, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(request), name, value);
}

void
reply_to_nobody(struct evhttp_request *request)
{
	if (evhttp_request_get_connection(request) == NULL)
		evhttp_request_free(request);
}

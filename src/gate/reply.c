/*
 * reply.c
 *		Writing an answer, or giving up a request that nobody waits for any more.
 */
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/util.h>
#include <stdio.h>
#include <string.h>

#include "gate/gate.h"

static void send_now(struct evhttp_connection *connection);
static bool ends_anywhere(struct evhttp_request *request);

void
reply(Gate *gate, struct evhttp_request *request, int status, const char *phrase, const char *body)
{
	evbuffer_add(evhttp_request_get_output_buffer(request), body, strlen(body));
	reply_written(gate, request, status, phrase);
}

void
reply_written(Gate *gate, struct evhttp_request *request, int status, const char *phrase)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	struct evbuffer *body = evhttp_request_get_output_buffer(request);
	size_t		len = evbuffer_get_length(body);
	char		length[24];

	reply_header(request, "Cache-Control", "no-store");
	if (atomic_load_explicit(&gate->stopping, memory_order_relaxed) || ends_anywhere(request))
	{
		/* What it asked for, HTTP/1.0 would be told beside this. */
		evhttp_remove_header(evhttp_request_get_input_headers(request), "Connection");
		reply_header(request, "Connection", "close");
	}

	/* evhttp would send a body to HEAD, and whoever asked would take it for the beginning of the next answer. */
	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD)
	{
		snprintf(length, sizeof(length), "%zu", len);
		reply_header(request, "Content-Length", length);
		evbuffer_drain(body, len);
	}
	evhttp_send_reply(request, status, phrase, NULL);
	if (connection)
		send_now(connection);
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

/*
 * A bufferevent writes when the loop has turned and found the socket writable: three system calls that say nothing, because it nearly
 * always is. So what it would do then is done now, and its end is told as it would tell it. What the socket does not take is left to it.
 */
static void
send_now(struct evhttp_connection *connection)
{
	struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
	struct evbuffer *output = bufferevent_get_output(bev);

	evbuffer_unfreeze(output, 1);
	(void) evbuffer_write(output, bufferevent_getfd(bev));
	evbuffer_freeze(output, 1);
	if (evbuffer_get_length(output) > 0)
		return;
	bufferevent_disable(bev, EV_WRITE);
	bufferevent_trigger(bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

/*
 * Where a proxy and we may not agree where the request ends, and so who sent what follows it (RFC 9112, section 6.3): with two lengths, a length and
 * chunks, an encoding that evhttp does not read, a body of a method that it reads none of, and a name that somebody else may read differently.
 */
static bool
ends_anywhere(struct evhttp_request *request)
{
	enum evhttp_cmd_type method = evhttp_request_get_command(request);
	bool		has_no_body = method == EVHTTP_REQ_HEAD || method == EVHTTP_REQ_TRACE;
	bool		doubtful = false;
	int			lengths = 0;
	int			encodings = 0;

	for (struct evkeyval *header = evhttp_request_get_input_headers(request)->tqh_first; header; header = header->next.tqe_next)
	{
		const char *value = header->value;

		doubtful = doubtful || strpbrk(header->key, " \t");
		if (evutil_ascii_strcasecmp(header->key, "Content-Length") == 0)
		{
			lengths++;
			doubtful = doubtful || value[strspn(value, "0123456789")] != '\0' || (has_no_body && strcmp(value, "0") != 0);
		}
		if (evutil_ascii_strcasecmp(header->key, "Transfer-Encoding") == 0)
		{
			encodings++;
			doubtful = doubtful || has_no_body || evutil_ascii_strcasecmp(value, "chunked") != 0 || request->minor == 0;
		}
	}
	return doubtful || lengths + encodings > 1;
}

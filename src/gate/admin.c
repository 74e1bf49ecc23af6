/*
 * admin.c
 *		The administrator's listener, in the loop of the main thread: /metrics and
 *		/revocations. It is off by default, and tells everything to everybody who can connect.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gate/gate.h"
#include "gate/sse.h"

struct Admin
{
	Listener   *listener;
	Connections *connections;
	atomic_size_t total;		/* of connections */
	struct evhttp *http;
	Acceptor   *acceptor;
};

static void on_metrics(struct evhttp_request *request, void *arg);
static void on_revocations(struct evhttp_request *request, void *arg);
static void on_other(struct evhttp_request *request, void *arg);

Admin *
admin_open(Gate *gate, struct event_base *base)
{
	const GateOptions *options = &gate->options;
	Admin	   *admin = calloc(1, sizeof(*admin));

	if (admin == NULL)
		return NULL;
	admin->listener = listener_open(&options->admin_listen, "administration ", options->max_connections, 1);
	if (admin->listener)
	{
		admin->http = evhttp_new(base);
		admin->connections = connections_new(base, options->idle_timeout_s, AHEAD_BYTES_MAX, &admin->total);
	}
	if (admin->http && admin->connections)
	{
		evhttp_set_allowed_methods(admin->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
		evhttp_set_max_headers_size(admin->http, HEADER_BYTES_MAX);
		evhttp_set_max_body_size(admin->http, BODY_BYTES_MAX);
		evhttp_set_timeout(admin->http, options->idle_timeout_s);
		evhttp_set_default_content_type(admin->http, "text/plain");
		evhttp_set_cb(admin->http, "/metrics", on_metrics, gate);
		evhttp_set_cb(admin->http, "/revocations", on_revocations, gate);
		evhttp_set_gencb(admin->http, on_other, gate);
		admin->acceptor = acceptor_new(&admin->listener, 1, 0, base, admin->http, admin->connections);
	}
	if (admin->acceptor == NULL)
	{
		if (admin->listener)
			fprintf(stderr, "sessauth-gate: out of memory or descriptors\n");
		admin_free(admin);
		return NULL;
	}
	return admin;
}

void
admin_free(Admin *admin)
{
	if (admin == NULL)
		return;
	acceptor_free(admin->acceptor);
	if (admin->http)
		evhttp_free(admin->http);
	connections_free(admin->connections);
	listener_free(admin->listener);
	free(admin);
}

static void
on_metrics(struct evhttp_request *request, void *arg)
{
	metrics_write(arg, evhttp_request_get_output_buffer(request));
	reply_header(request, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	reply_written(arg, request, 200, "OK");
}

static void
on_revocations(struct evhttp_request *request, void *arg)
{
	Gate	   *gate = arg;

	if (evhttp_request_get_command(request) != EVHTTP_REQ_GET)
	{
		reply_header(request, "Allow", "GET");
		reply(gate, request, 405, "Method Not Allowed", "only GET has a stream\n");
		return;
	}
	sse_serve(gate->sse, gate->node, request);
}

static void
on_other(struct evhttp_request *request, void *arg)
{
	reply(arg, request, 404, "Not Found", "the endpoints are /metrics and /revocations\n");
}

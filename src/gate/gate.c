/*
 * gate.c
 *		sessauth-gate: the library behind HTTP, for nginx auth_request and its
 *		like.
 *
 * One event loop answers everything from the library's memory. The one thing it waits for is
 * a refresh of the keys, when a token names a key that nobody has heard of: such requests are parked, for
 * a bounded time and in bounded number, and decided again.
 */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate/listener.h"
#include "gate/options.h"

#define HEADER_BYTES_MAX	(32 * 1024)
#define BODY_BYTES_MAX		(64 * 1024)
#define IDLE_TIMEOUT_S		30
#define PARKED_MAX			256
#define PARKED_US			2000000

#define METHODS \
	(EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | \
	 EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH)

typedef struct Gate
{
	struct event_base *base;
	struct evhttp *http;
	Listener   *listener;
	SessauthNode *node;
	int			refreshed[2];	/* a pipe: the library's thread tells the loop that keys were refreshed */
	struct Parked *parked;
	int			parked_count;
} Gate;

/* A request that waits for keys. */
typedef struct Parked
{
	struct Parked *next;
	Gate	   *gate;
	struct evhttp_request *request;
	int64_t		arrived;
	struct event *timer;
} Parked;

static void log_line(void *arg, SessauthLevel level, const char *message);
static void keys_refreshed(void *arg);
static void on_refreshed(evutil_socket_t fd, short what, void *arg);
static void on_signal(evutil_socket_t fd, short what, void *arg);
static bool serve(Gate *gate, const GateOptions *options);
static void on_auth(struct evhttp_request *request, void *arg);
static void on_health(struct evhttp_request *request, void *arg);
static void on_ready(struct evhttp_request *request, void *arg);
static void on_jwks(struct evhttp_request *request, void *arg);
static void on_other(struct evhttp_request *request, void *arg);
static const char *bearer_token(struct evhttp_request *request, const char **problem);
static bool decide(Gate *gate, struct evhttp_request *request, int64_t arrived, bool may_wait);
static bool park(Gate *gate, struct evhttp_request *request, int64_t arrived);
static void unpark(Parked *parked, bool may_wait);
static void on_parked_too_long(evutil_socket_t fd, short what, void *arg);
static void on_parked_closed(struct evhttp_connection *connection, void *arg);
static void accept_request(struct evhttp_request *request, const SessauthDecision *decision);
static void refuse(struct evhttp_request *request, const char *error, const char *why);
static void cannot_tell(struct evhttp_request *request, const char *why);
static void answer(struct evhttp_request *request, int status, const char *phrase, const char *body);

int
main(int argc, char **argv)
{
	GateOptions options;
	Gate		gate = {.refreshed = {-1, -1}};
	struct event *wake;
	struct event *term;
	struct event *interrupt;

	switch (options_read(argc, argv, &options))
	{
		case OPTIONS_EXIT_OK:
			return 0;
		case OPTIONS_EXIT_USAGE:
			return 2;
		case OPTIONS_RUN:
			break;
	}
	setvbuf(stderr, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	gate.base = event_base_new();
	if (gate.base == NULL || pipe(gate.refreshed) != 0)
	{
		fprintf(stderr, "sessauth-gate: out of memory or descriptors\n");
		return 1;
	}
	evutil_make_socket_nonblocking(gate.refreshed[0]);
	evutil_make_socket_nonblocking(gate.refreshed[1]);

	options.node.log = log_line;
	options.node.keys_refreshed = keys_refreshed;
	options.node.keys_refreshed_arg = &gate;
	gate.node = sessauth_open(&options.node);
	if (gate.node == NULL || sessauth_error(gate.node))
	{
		fprintf(stderr, "sessauth-gate: %s\nTry --help.\n", gate.node ? sessauth_error(gate.node) : "out of memory");
		sessauth_close(gate.node);
		event_base_free(gate.base);
		return 2;
	}
	wake = event_new(gate.base, gate.refreshed[0], EV_READ | EV_PERSIST, on_refreshed, &gate);
	term = evsignal_new(gate.base, SIGTERM, on_signal, &gate);
	interrupt = evsignal_new(gate.base, SIGINT, on_signal, &gate);
	if (!wake || !term || !interrupt || event_add(wake, NULL) || event_add(term, NULL) || event_add(interrupt, NULL) ||
		!serve(&gate, &options))
	{
		sessauth_close(gate.node);
		return 1;
	}
	event_base_dispatch(gate.base);

	while (gate.parked)
		unpark(gate.parked, false);
	evhttp_free(gate.http);
	listener_free(gate.listener);
	sessauth_close(gate.node);
	event_free(wake);
	event_free(term);
	event_free(interrupt);
	event_base_free(gate.base);
	return 0;
}

static void
log_line(void *arg, SessauthLevel level, const char *message)
{
	static const char *const names[] = {"info", "warning", "error"};

	(void) arg;
	fprintf(stderr, "sessauth-gate: %s: %s\n", names[level], message);
}

static void
keys_refreshed(void *arg)
{
	/* A full pipe means that the loop is about to look anyhow. */
	if (write(((Gate *) arg)->refreshed[1], "r", 1) != 1)
		return;
}

static void
on_refreshed(evutil_socket_t fd, short what, void *arg)
{
	Gate	   *gate = arg;
	Parked	   *parked = gate->parked;
	char		bytes[64];

	(void) what;
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
	while (parked)
	{
		Parked	   *next = parked->next;

		unpark(parked, true);
		parked = next;
	}
}

static void
on_signal(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	event_base_loopexit(((Gate *) arg)->base, NULL);
}

static bool
serve(Gate *gate, const GateOptions *options)
{
	gate->http = evhttp_new(gate->base);
	if (gate->http == NULL)
		return false;
	evhttp_set_allowed_methods(gate->http, METHODS);
	evhttp_set_max_headers_size(gate->http, HEADER_BYTES_MAX);
	evhttp_set_max_body_size(gate->http, BODY_BYTES_MAX);
	evhttp_set_timeout(gate->http, IDLE_TIMEOUT_S);
	evhttp_set_default_content_type(gate->http, "text/plain");
	evhttp_set_cb(gate->http, "/auth", on_auth, gate);
	evhttp_set_cb(gate->http, "/healthz", on_health, gate);
	evhttp_set_cb(gate->http, "/readyz", on_ready, gate);
	evhttp_set_cb(gate->http, "/.well-known/jwks.json", on_jwks, gate);
	evhttp_set_gencb(gate->http, on_other, gate);
	gate->listener = listener_open(gate->base, gate->http, options->listen_host, options->listen_port);
	return gate->listener != NULL;
}

static void
on_auth(struct evhttp_request *request, void *arg)
{
	int64_t		arrived = sessauth_now();

	(void) decide(arg, request, arrived, true);
}

/* Answers the request unless it may wait for keys and has to; then false. */
static bool
decide(Gate *gate, struct evhttp_request *request, int64_t arrived, bool may_wait)
{
	const char *problem = NULL;
	const char *token = bearer_token(request, &problem);
	SessauthDecision decision;
	SessauthStatus status;

	if (token == NULL)
	{
		refuse(request, problem ? "invalid_request" : NULL, problem);
		return true;
	}
	switch (sessauth_decide(gate->node, token, strlen(token), arrived, &decision))
	{
		case SESSAUTH_ACTIVE:
			accept_request(request, &decision);
			return true;
		case SESSAUTH_CANNOT_TELL:
			if (decision.why == SESSAUTH_WHY_KEYS_PENDING && may_wait && park(gate, request, arrived))
				return false;
			sessauth_status(gate->node, &status);
			cannot_tell(request, decision.why == SESSAUTH_WHY_LEASE ? status.reason :
						decision.why == SESSAUTH_WHY_INTERNAL ? "out of memory" :
						"the token's key is unknown and the keys cannot be refreshed now");
			return true;
		default:
			refuse(request, "invalid_token", sessauth_code_name(decision.code));
			return true;
	}
}

/* RFC 6750, section 2.1: exactly one Authorization header, scheme Bearer in any case. NULL without a problem: there was none. */
static const char *
bearer_token(struct evhttp_request *request, const char **problem)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
	const char *value = NULL;

	for (struct evkeyval *header = headers->tqh_first; header; header = header->next.tqe_next)
	{
		if (evutil_ascii_strcasecmp(header->key, "Authorization") != 0)
			continue;
		if (value)
		{
			*problem = "more than one Authorization header";
			return NULL;
		}
		value = header->value;
	}
	if (value == NULL || evutil_ascii_strncasecmp(value, "Bearer", 6) != 0 || (value[6] != ' ' && value[6] != '\0'))
		return NULL;
	value += 6;
	while (*value == ' ')
		value++;
	return value;
}

static bool
park(Gate *gate, struct evhttp_request *request, int64_t arrived)
{
	int64_t		left = arrived + PARKED_US - sessauth_now();
	struct timeval tv;
	Parked	   *parked;

	if (left <= 0 || gate->parked_count >= PARKED_MAX)
		return false;
	parked = calloc(1, sizeof(*parked));
	if (parked == NULL)
		return false;
	parked->gate = gate;
	parked->request = request;
	parked->arrived = arrived;
	parked->timer = evtimer_new(gate->base, on_parked_too_long, parked);
	if (parked->timer == NULL)
	{
		free(parked);
		return false;
	}
	tv.tv_sec = left / 1000000;
	tv.tv_usec = left % 1000000;
	evtimer_add(parked->timer, &tv);
	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_parked_closed, parked);
	parked->next = gate->parked;
	gate->parked = parked;
	gate->parked_count++;
	return true;
}

/* Takes the request out and decides it; a request whose client has gone is only taken out. */
static void
unpark(Parked *parked, bool may_wait)
{
	Parked	  **link = &parked->gate->parked;

	while (*link != parked)
		link = &(*link)->next;
	*link = parked->next;
	parked->gate->parked_count--;
	event_free(parked->timer);
	if (parked->request)
	{
		evhttp_connection_set_closecb(evhttp_request_get_connection(parked->request), NULL, NULL);
		(void) decide(parked->gate, parked->request, parked->arrived, may_wait);
	}
	free(parked);
}

static void
on_parked_too_long(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	unpark(arg, false);
}

static void
on_parked_closed(struct evhttp_connection *connection, void *arg)
{
	Parked	   *parked = arg;

	(void) connection;
	parked->request = NULL;		/* libevent frees it with its connection */
	unpark(parked, false);
}

static void
accept_request(struct evhttp_request *request, const SessauthDecision *decision)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	char		text[3 * 256 + 1];

	if (sessauth_percent_encode(decision->tid, text, sizeof(text)))
		evhttp_add_header(headers, "X-Sessauth-Tenant", text);
	if (sessauth_percent_encode(decision->uid, text, sizeof(text)))
		evhttp_add_header(headers, "X-Sessauth-User", text);
	evhttp_add_header(headers, "X-Sessauth-Session", decision->sid);
	snprintf(text, sizeof(text), "%lld", (long long) decision->epoch);
	evhttp_add_header(headers, "X-Sessauth-Epoch", text);
	answer(request, 200, "OK", "ok\n");
}

/* RFC 6750, section 3: a request without a token gets the bare challenge. */
static void
refuse(struct evhttp_request *request, const char *error, const char *why)
{
	char		challenge[160];
	char		body[96];

	if (error)
		snprintf(challenge, sizeof(challenge), "Bearer error=\"%s\", error_description=\"%s\"", error, why);
	else
		snprintf(challenge, sizeof(challenge), "Bearer");
	snprintf(body, sizeof(body), "%s\n", why ? why : "no bearer token");
	evhttp_add_header(evhttp_request_get_output_headers(request), "WWW-Authenticate", challenge);
	answer(request, 401, "Unauthorized", body);
}

static void
cannot_tell(struct evhttp_request *request, const char *why)
{
	char		body[300];

	snprintf(body, sizeof(body), "cannot tell: %s\n", why);
	evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", "1");
	answer(request, 503, "Service Unavailable", body);
}

static void
on_health(struct evhttp_request *request, void *arg)
{
	(void) arg;
	answer(request, 200, "OK", "alive\n");
}

static void
on_ready(struct evhttp_request *request, void *arg)
{
	SessauthStatus status;
	char		body[300];

	sessauth_status(((Gate *) arg)->node, &status);
	if (status.ready)
	{
		answer(request, 200, "OK", "ready\n");
		return;
	}
	snprintf(body, sizeof(body), "not ready: %s\n", status.reason);
	evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", "1");
	answer(request, 503, "Service Unavailable", body);
}

static void
on_jwks(struct evhttp_request *request, void *arg)
{
	char	   *jwks = sessauth_jwks(((Gate *) arg)->node);

	if (jwks == NULL)
	{
		cannot_tell(request, "no keys yet");
		return;
	}
	evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "application/json");
	answer(request, 200, "OK", jwks);
	free(jwks);
}

static void
on_other(struct evhttp_request *request, void *arg)
{
	(void) arg;
	answer(request, 404, "Not Found", "the endpoints are /auth, /healthz, /readyz and /.well-known/jwks.json\n");
}

static void
answer(struct evhttp_request *request, int status, const char *phrase, const char *body)
{
	struct evbuffer *buffer = evbuffer_new();

	evhttp_add_header(evhttp_request_get_output_headers(request), "Cache-Control", "no-store");
	if (buffer)
		evbuffer_add(buffer, body, strlen(body));
	evhttp_send_reply(request, status, phrase, buffer);
	if (buffer)
		evbuffer_free(buffer);
}

/*
 * endpoints.c
 *		What a request to each path is answered, from the library's memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate/credentials.h"
#include "gate/gate.h"

static void on_auth(struct evhttp_request *request, void *arg);
static void on_health(struct evhttp_request *request, void *arg);
static void on_ready(struct evhttp_request *request, void *arg);
static void on_jwks(struct evhttp_request *request, void *arg);
static void on_other(struct evhttp_request *request, void *arg);
static void accept_request(Gate *gate, struct evhttp_request *request, const SessauthDecision *decision);
static void refuse(Gate *gate, struct evhttp_request *request, const char *error, const char *why);
static void explain(Gate *gate, struct evhttp_request *request, SessauthWhy why);
static void cannot_tell(Gate *gate, struct evhttp_request *request, const char *why);

void
endpoints_serve(Worker *worker)
{
	evhttp_set_cb(worker->http, "/auth", on_auth, worker);
	evhttp_set_cb(worker->http, "/healthz", on_health, worker);
	evhttp_set_cb(worker->http, "/readyz", on_ready, worker);
	evhttp_set_cb(worker->http, "/.well-known/jwks.json", on_jwks, worker);
	evhttp_set_gencb(worker->http, on_other, worker);
}

static void
on_auth(struct evhttp_request *request, void *arg)
{
	int64_t		arrived = sessauth_now();

	(void) endpoints_decide(arg, request, arrived, true);
}

/* Answers the request unless somebody is asked about its token, or it may wait for keys and has to; then false. */
bool
endpoints_decide(Worker *worker, struct evhttp_request *request, int64_t arrived, bool may_wait)
{
	Gate	   *gate = worker->gate;
	const char *problem;
	size_t		len;
	const char *token = credentials_token(request, gate->options.cookie, &len, &problem);
	SessauthDecision decision;

	if (token == NULL)
	{
		metrics_count_refused(&worker->metrics, problem ? METRICS_AMBIGUOUS : METRICS_NO_TOKEN, sessauth_now() - arrived);
		refuse(gate, request, problem ? "invalid_request" : NULL, problem);
		return true;
	}
	(void) sessauth_decide(gate->node, token, len, arrived, &decision);
	if (decision.code == SESSAUTH_CANNOT_TELL && decision.why == SESSAUTH_WHY_KEYS_PENDING && may_wait && park(worker, request, arrived))
		return false;
	if (decision.code == SESSAUTH_CANNOT_TELL && (decision.why == SESSAUTH_WHY_LEASE || decision.why == SESSAUTH_WHY_TIME) &&
		ask(worker, request, arrived, token, len, &decision))
		return false;
	endpoints_answer(worker, request, arrived, &decision);
	return true;
}

void
endpoints_answer(Worker *worker, struct evhttp_request *request, int64_t arrived, const SessauthDecision *decision)
{
	Gate	   *gate = worker->gate;

	/* Before anybody has the answer, and looks for it here. */
	metrics_count(&worker->metrics, decision->code, decision->source, sessauth_now() - arrived);
	switch (decision->code)
	{
		case SESSAUTH_ACTIVE:
			accept_request(gate, request, decision);
			break;
		case SESSAUTH_CANNOT_TELL:
			explain(gate, request, decision->why);
			break;
		default:
			refuse(gate, request, "invalid_token", sessauth_code_name(decision->code));
			break;
	}
}

static void
accept_request(Gate *gate, struct evhttp_request *request, const SessauthDecision *decision)
{
	char		text[3 * 256 + 1];

	if (sessauth_percent_encode(decision->tid, text, sizeof(text)))
		reply_header(request, "X-Sessauth-Tenant", text);
	if (sessauth_percent_encode(decision->uid, text, sizeof(text)))
		reply_header(request, "X-Sessauth-User", text);
	reply_header(request, "X-Sessauth-Session", decision->sid);
	snprintf(text, sizeof(text), "%lld", (long long) decision->epoch);
	reply_header(request, "X-Sessauth-Epoch", text);
	reply(gate, request, 200, "OK", "ok\n");
}

/* RFC 6750, section 3: a request without a token gets the bare challenge. */
static void
refuse(Gate *gate, struct evhttp_request *request, const char *error, const char *why)
{
	char		challenge[160];
	char		body[96];

	if (error)
		snprintf(challenge, sizeof(challenge), "Bearer error=\"%s\", error_description=\"%s\"", error, why);
	else
		snprintf(challenge, sizeof(challenge), "Bearer");
	snprintf(body, sizeof(body), "%s\n", why ? why : "no token");
	reply_header(request, "WWW-Authenticate", challenge);
	reply(gate, request, 401, "Unauthorized", body);
}

static void
explain(Gate *gate, struct evhttp_request *request, SessauthWhy why)
{
	SessauthStatus status;
	const char *reason;
	char		text[sizeof(status.reason) + 64];

	switch (why)
	{
		case SESSAUTH_WHY_LEASE:
		case SESSAUTH_WHY_UNANSWERED:
			sessauth_status(gate->node, &status);
			reason = status.ready ? "not at that moment" : status.reason;

			/* The reason's reason names servers: it is for the log and for /readyz, not for whoever a proxy shows this to. */
			snprintf(text, sizeof(text), "%.*s%s", (int) strcspn(reason, ":"), reason,
					 why == SESSAUTH_WHY_UNANSWERED ? "; nobody else could tell either" : "");
			cannot_tell(gate, request, text);
			break;
		case SESSAUTH_WHY_TIME:
			cannot_tell(gate, request, "the token begins later than the ledger's time as it is known here");
			break;
		case SESSAUTH_WHY_INTERNAL:
			cannot_tell(gate, request, "out of memory");
			break;
		default:
			cannot_tell(gate, request, "the token's key is unknown and the keys cannot be refreshed now");
			break;
	}
}

static void
cannot_tell(Gate *gate, struct evhttp_request *request, const char *why)
{
	char		body[400];

	snprintf(body, sizeof(body), "cannot tell: %s\n", why);
	reply_header(request, "Retry-After", "1");
	reply(gate, request, 503, "Service Unavailable", body);
}

static void
on_health(struct evhttp_request *request, void *arg)
{
	reply(((Worker *) arg)->gate, request, 200, "OK", "alive\n");
}

/* A gate that is stopping still answers, but whoever balances the load shall look for another. */
static void
on_ready(struct evhttp_request *request, void *arg)
{
	Gate	   *gate = ((Worker *) arg)->gate;
	SessauthStatus status;
	char		body[300];

	sessauth_status(gate->node, &status);
	if (status.ready && !atomic_load(&gate->stopping))
	{
		reply(gate, request, 200, "OK", "ready\n");
		return;
	}
	snprintf(body, sizeof(body), "not ready: %s\n", status.ready ? "the gate is stopping" : status.reason);
	reply_header(request, "Retry-After", "1");
	reply(gate, request, 503, "Service Unavailable", body);
}

static void
on_jwks(struct evhttp_request *request, void *arg)
{
	Gate	   *gate = ((Worker *) arg)->gate;
	char	   *jwks = sessauth_jwks(gate->node);

	if (jwks == NULL)
	{
		cannot_tell(gate, request, "no keys yet");
		return;
	}
	reply_header(request, "Content-Type", "application/json");
	reply(gate, request, 200, "OK", jwks);
	free(jwks);
}

static void
on_other(struct evhttp_request *request, void *arg)
{
	reply(((Worker *) arg)->gate, request, 404, "Not Found", "the endpoints are /auth, /healthz, /readyz and /.well-known/jwks.json\n");
}

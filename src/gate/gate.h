/*
 * gate.h
 *		What the files of the gate share.
 *
 * gate.c		the process: starting, signals, stopping
 * worker.c		one thread with its own loop, which serves what the listeners bring
 * listener.c	listening sockets, shared by all workers
 * connections.c	who is connected, and who takes too long
 * endpoints.c	what a request to each path is answered
 * parked.c		requests that wait for keys
 * asked.c		requests whose token others are asked about
 * credentials.c	where the token is in a request
 * reply.c		writing an answer
 * admin.c		the administrator's listener: metrics.c and sse.c
 * options.c	flags and environment variables
 */
#ifndef SESSAUTH_GATE_GATE_H
#define SESSAUTH_GATE_GATE_H

#include <event2/event.h>
#include <event2/http.h>
#include <pthread.h>
#include <stdatomic.h>

#include "gate/connections.h"
#include "gate/listener.h"
#include "gate/metrics.h"
#include "gate/options.h"
#include "node/sessauth.h"

#define HEADER_BYTES_MAX	(32 * 1024)
#define BODY_BYTES_MAX		(64 * 1024)
#define AHEAD_BYTES_MAX		(HEADER_BYTES_MAX + BODY_BYTES_MAX)

struct Asked;
struct Parked;
struct Sse;

typedef struct Gate Gate;

typedef struct Worker
{
	Gate	   *gate;
	pthread_t	thread;
	struct event_base *base;
	struct evhttp *http;
	Acceptor   *acceptor;		/* NULL once it is stopping */
	Connections *connections;
	int			pipe[2];		/* written to by other threads: 'r' keys were refreshed, 'a' answers have come, 'q' stop */
	struct event *wake;
	struct event *drain;
	bool		draining;
	int64_t		drain_until;
	struct Parked *parked;
	int			parked_count;
	struct Asked *asked;		/* all of them */
	pthread_mutex_t answers_lock;
	struct Asked *answers;		/* guarded by that: those that have been answered */
	Metrics		metrics;
} Worker;

struct Gate
{
	GateOptions options;
	struct event_base *base;	/* of the main thread */
	struct event *look;			/* for the last worker's end */
	SessauthNode *node;
	Listener   *listeners[LISTEN_MAX];
	int			listener_count;
	Worker	   *workers[THREADS_MAX];
	atomic_int	worker_count;
	atomic_int	running;		/* workers */
	atomic_bool stopping;
	atomic_size_t connections;	/* of all workers */
	struct Sse *sse;			/* NULL without an administrator's listener */
};

/* worker.c */
extern Worker *worker_start(Gate *gate);	/* NULL, and why on stderr */
extern void worker_tell(Worker *worker, char what);	/* from any thread */
extern void worker_join(Worker *worker);	/* after 'q'; the keys may still be refreshed */
extern void worker_free(Worker *worker);	/* after that, and after sessauth_close */

/* endpoints.c */
extern void endpoints_serve(Worker *worker);
extern bool endpoints_decide(Worker *worker, struct evhttp_request *request, int64_t arrived, bool may_wait);

/* parked.c */
extern bool park(Worker *worker, struct evhttp_request *request, int64_t arrived);
extern void unpark_all(Worker *worker, bool may_wait);

/* Replies to a decision and counts it. */
extern void endpoints_answer(Worker *worker, struct evhttp_request *request, int64_t arrived, const SessauthDecision *decision);

/* asked.c */
extern bool ask(Worker *worker, struct evhttp_request *request, int64_t arrived, const char *token, size_t len, SessauthDecision *decision);
extern void asked_reply(Worker *worker);	/* to those that have been answered */
extern void asked_abandon(Worker *worker);	/* the others: nobody will be there to reply */
extern void asked_free(Worker *worker); /* after sessauth_close */

/* reply.c; closes the connection when the gate is stopping */
extern void reply(Gate *gate, struct evhttp_request *request, int status, const char *phrase, const char *body);
extern void reply_written(Gate *gate, struct evhttp_request *request, int status, const char *phrase);	/* the body is in its output buffer */
extern void reply_header(struct evhttp_request *request, const char *name, const char *value);

/*
 * For the callback of a connection that is closed under a request which was not answered: libevent has either taken the request off the
 * connection, and leaves it to us, or frees it with the connection.
 */
extern void reply_to_nobody(struct evhttp_request *request);

/* admin.c: in the loop of the main thread */
typedef struct Admin Admin;

extern Admin *admin_open(Gate *gate, struct event_base *base);	/* NULL, and why on stderr */
extern void admin_free(Admin *admin);

#endif							/* SESSAUTH_GATE_GATE_H */

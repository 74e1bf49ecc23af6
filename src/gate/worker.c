/*
 * worker.c
 *		One thread with its own loop, which serves what the listeners bring.
 *
 * Asked to stop, it takes no more connections, lets those go on which no request is under way, answers the others, and
 * ends when they have gone or a few seconds are over.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gate/gate.h"

#define DRAIN_LOOK_MS	100
#define DRAIN_US		5000000

/* Everything that evhttp knows but CONNECT, which is for proxies; what it does not know (PROPFIND, say) it answers with 501. */
#define METHODS \
	(EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | \
	 EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH | EVHTTP_REQ_TRACE)

static bool prepare(Worker *worker);
static struct event_base *new_base(void);
static void *run(void *arg);
static void on_wake(evutil_socket_t fd, short what, void *arg);
static void on_drain(evutil_socket_t fd, short what, void *arg);
static void discard(Worker *worker);

Worker *
worker_start(Gate *gate)
{
	Worker	   *worker = aligned_alloc(64, (sizeof(*worker) + 63) / 64 * 64);
	sigset_t	all;
	sigset_t	before;
	bool		started;

	if (worker == NULL)
		return NULL;
	*worker = (Worker) {.gate = gate, .pipe = {-1, -1}, .answers_lock = PTHREAD_MUTEX_INITIALIZER};
	if (!prepare(worker))
	{
		fprintf(stderr, "sessauth-gate: out of memory or descriptors\n");
		discard(worker);
		return NULL;
	}

	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_fetch_add(&gate->running, 1);
	started = pthread_create(&worker->thread, NULL, run, worker) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!started)
	{
		atomic_fetch_sub(&gate->running, 1);
		fprintf(stderr, "sessauth-gate: could not start a thread\n");
		discard(worker);
		return NULL;
	}
	return worker;
}

void
worker_tell(Worker *worker, char what)
{
	/* A full pipe means that the loop is about to look anyhow; it looks at gate->stopping, too. */
	if (write(worker->pipe[1], &what, 1) != 1)
		return;
}

void
worker_join(Worker *worker)
{
	pthread_join(worker->thread, NULL);
}

void
worker_free(Worker *worker)
{
	discard(worker);
}

static bool
prepare(Worker *worker)
{
	const GateOptions *options = &worker->gate->options;

	if (pipe2(worker->pipe, O_CLOEXEC | O_NONBLOCK) != 0)
		return false;
	worker->base = new_base();
	if (worker->base == NULL)
		return false;
	worker->http = evhttp_new(worker->base);
	worker->connections = connections_new(worker->base, options->idle_timeout_s, AHEAD_BYTES_MAX, &worker->gate->connections);
	worker->wake = event_new(worker->base, worker->pipe[0], EV_READ | EV_PERSIST, on_wake, worker);
	worker->drain = event_new(worker->base, -1, EV_PERSIST, on_drain, worker);
	if (!worker->http || !worker->connections || !worker->wake || !worker->drain || event_add(worker->wake, NULL) != 0)
		return false;
	evhttp_set_allowed_methods(worker->http, METHODS);
	evhttp_set_max_headers_size(worker->http, HEADER_BYTES_MAX);
	evhttp_set_max_body_size(worker->http, BODY_BYTES_MAX);
	evhttp_set_timeout(worker->http, options->idle_timeout_s);
	evhttp_set_default_content_type(worker->http, "text/plain");
	endpoints_serve(worker);
	/* This one's number is how many there are before it. */
	worker->acceptor = acceptor_new(worker->gate->listeners, worker->gate->listener_count, worker->gate->worker_count, worker->base, worker->http, worker->connections);
	return worker->acceptor != NULL;
}

/*
 * evhttp stops to listen to a connection while it answers a request, and listens to it again at once: the kernel need not hear
 * of it. Then no descriptor may be closed in the turn of the loop in which its last event was taken off; connections.c sees to that.
 */
static struct event_base *
new_base(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config && event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) == 0)
		base = event_base_new_with_config(config);
	if (config)
		event_config_free(config);
	return base;
}

static void *
run(void *arg)
{
	Worker	   *worker = arg;

	event_base_dispatch(worker->base);
	unpark_all(worker, false);
	asked_abandon(worker);
	atomic_fetch_sub(&worker->gate->running, 1);
	return NULL;
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	Worker	   *worker = arg;
	struct timeval tv = {0, DRAIN_LOOK_MS * 1000};
	char		bytes[64];
	ssize_t		n;
	bool		only_answers = true;

	(void) what;
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < n; i++)
			only_answers = only_answers && bytes[i] == 'a';
	asked_reply(worker);
	if (only_answers && !atomic_load(&worker->gate->stopping))
		return;
	unpark_all(worker, true);
	if (!atomic_load(&worker->gate->stopping) || worker->draining)
		return;
	worker->draining = true;
	worker->drain_until = sessauth_now() + DRAIN_US;
	acceptor_last_call(worker->acceptor);

	/* Not at once: a client may have connected, or a request arrived, that was not looked at yet. */
	event_add(worker->drain, &tv);
}

static void
on_drain(evutil_socket_t fd, short what, void *arg)
{
	Worker	   *worker = arg;
	bool		late = sessauth_now() >= worker->drain_until;

	(void) fd;
	(void) what;
	acceptor_free(worker->acceptor);
	worker->acceptor = NULL;
	if (late)
		unpark_all(worker, false);
	if (connections_close_idle(worker->connections) == 0 || late)
		event_base_loopbreak(worker->base);
}

static void
discard(Worker *worker)
{
	asked_free(worker);
	acceptor_free(worker->acceptor);
	if (worker->http)
		evhttp_free(worker->http);
	connections_free(worker->connections);
	if (worker->wake)
		event_free(worker->wake);
	if (worker->drain)
		event_free(worker->drain);
	if (worker->base)
		event_base_free(worker->base);
	if (worker->pipe[0] >= 0)
	{
		close(worker->pipe[0]);
		close(worker->pipe[1]);
	}
	free(worker);
}

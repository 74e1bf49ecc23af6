/*
 * gate.c
 *		sessauth-gate: the library behind HTTP, for nginx auth_request and its
 *		like. The process: starting, signals, stopping.
 *
 * Workers answer everything from the library's memory, each in its own loop. The main thread has the signals and the
 * administrator's listener.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "gate/gate.h"
#include "gate/sse.h"

#define STOP_LOOK_MS	20

static bool run(Gate *gate, struct event_base *base);
static bool start(Gate *gate);
static void on_stop(evutil_socket_t fd, short what, void *arg);
static void on_reload(evutil_socket_t fd, short what, void *arg);
static void on_look(evutil_socket_t fd, short what, void *arg);
static void log_line(void *arg, SessauthLevel level, const char *message);
static void keys_refreshed(void *arg);
static void revoked(void *arg, const SessauthRevocation *revocation);

int
main(int argc, char **argv)
{
	static Gate gate;
	struct event_base *base;
	int			status = 2;

	switch (options_read(argc, argv, &gate.options))
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
	base = gate.base = event_base_new();
	if (base && gate.options.has_admin)
		gate.sse = sse_new(base);
	if (base == NULL || (gate.options.has_admin && gate.sse == NULL))
	{
		fprintf(stderr, "sessauth-gate: out of memory or descriptors\n");
		return 1;
	}

	gate.options.node.log = log_line;
	gate.options.node.keys_refreshed = keys_refreshed;
	gate.options.node.keys_refreshed_arg = &gate;
	if (gate.sse)
	{
		gate.options.node.revoked = revoked;
		gate.options.node.revoked_arg = gate.sse;
	}
	gate.node = sessauth_open(&gate.options.node);
	if (gate.node == NULL || sessauth_error(gate.node))
		fprintf(stderr, "sessauth-gate: %s\nTry --help.\n", gate.node ? sessauth_error(gate.node) : "out of memory");
	else
		status = run(&gate, base) ? 0 : 1;

	/* The library's threads call until it is closed, and workers are who they call. */
	for (int i = 0; i < gate.worker_count; i++)
		worker_tell(gate.workers[i], 'q');
	for (int i = 0; i < gate.worker_count; i++)
		worker_join(gate.workers[i]);
	sse_close_all(gate.sse);
	sessauth_close(gate.node);
	for (int i = 0; i < gate.worker_count; i++)
		worker_free(gate.workers[i]);
	for (int i = 0; i < gate.listener_count; i++)
		listener_free(gate.listeners[i]);
	sse_free(gate.sse);
	event_base_free(base);
	return status;
}

/* Until it is stopped. False when it could not start. */
static bool
run(Gate *gate, struct event_base *base)
{
	const int	numbers[] = {SIGTERM, SIGINT, SIGHUP};
	struct event *signals[3] = {0};
	Admin	   *admin = NULL;
	bool		ok;

	gate->look = event_new(base, -1, EV_PERSIST, on_look, gate);
	ok = gate->look != NULL;

	for (int i = 0; i < 3 && ok; i++)
	{
		signals[i] = evsignal_new(base, numbers[i], numbers[i] == SIGHUP ? on_reload : on_stop, gate);
		ok = signals[i] && event_add(signals[i], NULL) == 0;
	}
	ok = ok && start(gate);
	if (ok && gate->options.has_admin)
	{
		admin = admin_open(gate, base);
		ok = admin != NULL;
	}
	if (ok)
		event_base_dispatch(base);
	atomic_store(&gate->stopping, true);
	sse_close_all(gate->sse);
	admin_free(admin);
	for (int i = 0; i < 3; i++)
		if (signals[i])
			event_free(signals[i]);
	if (gate->look)
		event_free(gate->look);
	return ok;
}

static bool
start(Gate *gate)
{
	for (int i = 0; i < gate->options.listen_count; i++)
	{
		gate->listeners[i] = listener_open(&gate->options.listen[i], "", gate->options.max_connections, gate->options.threads);
		if (gate->listeners[i] == NULL)
			return false;
		gate->listener_count++;
	}
	for (int i = 0; i < gate->options.threads; i++)
	{
		gate->workers[i] = worker_start(gate);
		if (gate->workers[i] == NULL)
			return false;
		gate->worker_count++;
	}
	return true;
}

static void
on_stop(evutil_socket_t fd, short what, void *arg)
{
	Gate	   *gate = arg;
	struct timeval tv = {0, STOP_LOOK_MS * 1000};

	(void) fd;
	(void) what;
	event_add(gate->look, &tv);
	atomic_store(&gate->stopping, true);
	for (int i = 0; i < gate->worker_count; i++)
		worker_tell(gate->workers[i], 'q');
}

static void
on_reload(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	fprintf(stderr, "sessauth-gate: reading the keys again\n");
	sessauth_refresh_keys(((Gate *) arg)->node);
}

/* Closes the door behind the workers' last call, and sees whether the last of them has ended, who has no way of his own to say so. */
static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	Gate	   *gate = arg;

	(void) fd;
	(void) what;
	for (int i = 0; i < gate->listener_count; i++)
		listener_stop(gate->listeners[i]);
	if (atomic_load(&gate->stopping) && atomic_load(&gate->running) == 0)
		event_base_loopbreak(gate->base);
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
	Gate	   *gate = arg;
	int			count = atomic_load(&gate->worker_count);

	for (int i = 0; i < count; i++)
		worker_tell(gate->workers[i], 'r');
}

static void
revoked(void *arg, const SessauthRevocation *revocation)
{
	sse_push(arg, revocation);
}

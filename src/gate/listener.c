/*
 * listener.c
 *		The gate's listening socket, and how many connections it lets in.
 *
 * Clients must not be able to take the last descriptor: the library needs some to
 * reach Redis and PostgreSQL again, and without them the lease would run out. evhttp does not say when a connection
 * has ended, so connections are not counted. Instead: a new descriptor is always the lowest free one, so when
 * that number comes near the limit, so many are in use. Then the gate stops accepting for a moment, and the kernel keeps
 * the newcomers in the backlog.
 */
#include "gate/listener.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG			1024
#define RESERVED		32		/* descriptors for Redis, PostgreSQL and files */
#define CONNECTIONS_MAX	65536	/* however high the limit is */
#define PAUSE_MS		100

struct Listener
{
	struct evconnlistener *socket;
	struct event *pause;
	int			highest;		/* descriptor that a client may get */
};

static int descriptor_limit(void);
static struct bufferevent *on_accept(struct event_base *base, void *arg);
static void on_accept_error(struct evconnlistener *socket, void *arg);
static void on_error_over(evutil_socket_t fd, short what, void *arg);
static void on_pause_over(evutil_socket_t fd, short what, void *arg);
static bool crowded(const Listener *listener);
static void pause_accepting(Listener *listener);
static void say_where(evutil_socket_t fd, const char *host);

Listener *
listener_open(struct event_base *base, struct evhttp *http, const char *host, int port)
{
	Listener   *listener = calloc(1, sizeof(*listener));
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *address = NULL;
	char		service[16];
	int			rc;

	snprintf(service, sizeof(service), "%d", port);
	rc = getaddrinfo(host, service, &hints, &address);
	if (rc != 0)
	{
		fprintf(stderr, "sessauth-gate: could not listen on %s: %s\n", host, gai_strerror(rc));
		free(listener);
		return NULL;
	}
	if (listener)
	{
		listener->highest = descriptor_limit() - RESERVED;
		listener->pause = evtimer_new(base, on_pause_over, listener);
		listener->socket = evconnlistener_new_bind(base, NULL, NULL,
												   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
												   BACKLOG, address->ai_addr, (int) address->ai_addrlen);
	}
	if (listener == NULL || listener->pause == NULL || listener->socket == NULL)
		fprintf(stderr, "sessauth-gate: could not listen on %s port %d: %s\n", host, port, strerror(errno));
	freeaddrinfo(address);
	if (listener == NULL || listener->pause == NULL || listener->socket == NULL ||
		evhttp_bind_listener(http, listener->socket) == NULL)
	{
		if (listener && listener->socket)
			evconnlistener_free(listener->socket);
		listener_free(listener);
		return NULL;
	}
	evconnlistener_set_error_cb(listener->socket, on_accept_error);
	evhttp_set_bevcb(http, on_accept, listener);
	say_where(evconnlistener_get_fd(listener->socket), host);
	return listener;
}

void
listener_free(Listener *listener)
{
	if (listener == NULL)
		return;
	if (listener->pause)
		event_free(listener->pause);
	free(listener);
}

/* Raises the soft limit as far as it may go; returns what holds then. */
static int
descriptor_limit(void)
{
	struct rlimit limit;
	rlim_t		wanted = CONNECTIONS_MAX + RESERVED;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 1024;
	if (limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max)
	{
		struct rlimit raised = limit;

		raised.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			limit = raised;
	}
	return limit.rlim_cur < wanted ? (int) limit.rlim_cur : (int) wanted;
}

/* evhttp asks for a bufferevent for each connection it has accepted. */
static struct bufferevent *
on_accept(struct event_base *base, void *arg)
{
	if (crowded(arg))
		pause_accepting(arg);
	return bufferevent_socket_new(base, -1, 0);
}

/* Out of descriptors after all, or the client has gone again. Trying at once could be a busy loop. The argument is evhttp's. */
static void
on_accept_error(struct evconnlistener *socket, void *arg)
{
	struct timeval tv = {0, PAUSE_MS * 1000};

	(void) arg;
	if (event_base_once(evconnlistener_get_base(socket), -1, EV_TIMEOUT, on_error_over, socket, &tv) == 0)
		evconnlistener_disable(socket);
}

static void
on_error_over(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	evconnlistener_enable(arg);
}

static void
on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	Listener   *listener = arg;

	(void) fd;
	(void) what;
	if (crowded(listener))
		pause_accepting(listener);
	else
		evconnlistener_enable(listener->socket);
}

static bool
crowded(const Listener *listener)
{
	int			fd = fcntl(evconnlistener_get_fd(listener->socket), F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return true;
	close(fd);
	return fd > listener->highest;
}

static void
pause_accepting(Listener *listener)
{
	struct timeval tv = {0, PAUSE_MS * 1000};

	evconnlistener_disable(listener->socket);
	evtimer_add(listener->pause, &tv);
}

static void
say_where(evutil_socket_t fd, const char *host)
{
	struct sockaddr_storage address;
	socklen_t	len = sizeof(address);
	bool		v6 = strchr(host, ':') != NULL;
	int			port = 0;

	if (getsockname(fd, (struct sockaddr *) &address, &len) == 0)
		port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &address)->sin6_port :
					 ((struct sockaddr_in *) &address)->sin_port);
	fprintf(stderr, "sessauth-gate: listening on http://%s%s%s:%d\n", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

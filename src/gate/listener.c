/*
 * listener.c
 *		Listening sockets, TCP and unix, and how many connections they let in.
 *
 * Clients must not be able to take the last descriptor: the library needs some to
 * reach Redis and PostgreSQL again, and without them the lease would run out. A new descriptor is always the lowest free one, so when
 * that number comes near the process's limit, so many are in use. Then, and when there are as many clients as there may be, the gate
 * stops accepting for a moment, and the kernel keeps the newcomers in the backlog.
 */
#include "gate/listener.h"

#include <ctype.h>
#include <errno.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG			1024
#define OURS			512		/* descriptors for the loops, and all that is open at most times */
#define RESERVED		32		/* those for Redis, PostgreSQL and files that may be needed at any time */
#define LOOK_MS			100		/* for room, and after an error */
#define SILENCE_MS		30000	/* after which a client that acknowledges nothing is gone; accepted sockets inherit it */

struct Listener
{
	int		   *fds;			/* of TCP one for each loop, among which the kernel spreads the connections; of a path one for all */
	int			fd_count;
	size_t		clients_max;
	int			highest;		/* descriptor that a client may get */
	char		path[108];		/* of a unix socket */
	dev_t		device;			/* which is ours only while it is this one */
	ino_t		inode;
};

struct Acceptor
{
	int			count;
	Listener   *const *listeners;
	struct evconnlistener *sockets[LISTEN_MAX];
	struct evhttp_bound_socket *bound[LISTEN_MAX];
	struct evhttp *http;
	Connections *connections;
	struct event *next_turn;
	struct event *look;
	bool		last_call;
};

static bool listen_tcp(Listener *listener, const ListenAddress *address, int loops, const char *what);
static bool add_tcp(Listener *listener, const struct sockaddr *address, socklen_t len);
static bool listen_unix(Listener *listener, const ListenAddress *address, const char *what);
static bool is_stale(const struct sockaddr_un *address);
static int descriptor_limit(int wanted);
static struct bufferevent *on_accept(struct event_base *base, void *arg);
static void on_accept_error(struct evconnlistener *socket, void *arg);
static void on_turn(evutil_socket_t fd, short what, void *arg);
static bool crowded(const Acceptor *acceptor);

bool
listen_address_parse(const char *text, size_t len, ListenAddress *out)
{
	const char *colon = memrchr(text, ':', len);
	size_t		host_len;
	long		port = 0;

	memset(out, 0, sizeof(*out));
	if (len > 6 && strncmp(text, "unix:/", 6) == 0)
	{
		if (len - 5 >= sizeof(out->path))
			return false;
		memcpy(out->path, text + 5, len - 5);
		return true;
	}
	if (colon == NULL || colon == text || colon + 1 == text + len || text + len - colon > 6)
		return false;
	for (const char *c = colon + 1; c < text + len; c++)
	{
		if (!isdigit((unsigned char) *c))
			return false;
		port = port * 10 + (*c - '0');
	}
	host_len = (size_t) (colon - text);
	if (text[0] == '[' && text[host_len - 1] == ']')
	{
		text++;
		host_len -= 2;
	}
	if (host_len == 0 || host_len >= sizeof(out->host) || port > 65535)
		return false;
	memcpy(out->host, text, host_len);
	out->port = (int) port;
	return true;
}

Listener *
listener_open(const ListenAddress *address, const char *what, int max_connections, int loops)
{
	Listener   *listener = calloc(1, sizeof(*listener));
	bool		listens;

	if (listener == NULL)
		return NULL;
	listener->fds = malloc(sizeof(int) * (size_t) loops);
	listener->clients_max = (size_t) max_connections;
	listener->highest = descriptor_limit(max_connections + loops * LISTEN_MAX + OURS + RESERVED) - RESERVED;
	listens = listener->fds &&
		(address->host[0] != '\0' ? listen_tcp(listener, address, loops, what) : listen_unix(listener, address, what));
	if (!listens)
	{
		listener_free(listener);
		return NULL;
	}
	return listener;
}

void
listener_stop(Listener *listener)
{
	for (int i = 0; i < listener->fd_count; i++)
		(void) shutdown(listener->fds[i], SHUT_RDWR);
}

void
listener_free(Listener *listener)
{
	struct stat st;

	if (listener == NULL)
		return;
	if (listener->inode != 0 && stat(listener->path, &st) == 0 && st.st_ino == listener->inode && st.st_dev == listener->device)
		(void) unlink(listener->path);
	for (int i = 0; i < listener->fd_count; i++)
		close(listener->fds[i]);
	free(listener->fds);
	free(listener);
}

Acceptor *
acceptor_new(Listener *const *listeners, int count, int loop, struct event_base *base, struct evhttp *http, Connections *connections)
{
	Acceptor   *acceptor = calloc(1, sizeof(*acceptor));
	struct timeval tv = {0, LOOK_MS * 1000};
	bool		ok;

	if (acceptor == NULL)
		return NULL;
	acceptor->listeners = listeners;
	acceptor->http = http;
	acceptor->connections = connections;
	acceptor->next_turn = evtimer_new(base, on_turn, acceptor);
	acceptor->look = event_new(base, -1, EV_PERSIST, on_turn, acceptor);
	ok = acceptor->next_turn && acceptor->look && event_add(acceptor->look, &tv) == 0;
	for (int i = 0; i < count && ok; i++)
	{
		int			fd = listeners[i]->fds[loop % listeners[i]->fd_count];

		acceptor->sockets[i] = evconnlistener_new(base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, fd);
		if (acceptor->sockets[i])
			acceptor->bound[i] = evhttp_bind_listener(http, acceptor->sockets[i]);
		acceptor->count++;
		ok = acceptor->bound[i] != NULL;
		if (ok)
			evconnlistener_set_error_cb(acceptor->sockets[i], on_accept_error);
	}
	if (!ok)
	{
		acceptor_free(acceptor);
		return NULL;
	}
	evhttp_set_bevcb(http, on_accept, acceptor);
	return acceptor;
}

void
acceptor_last_call(Acceptor *acceptor)
{
	acceptor->last_call = true;
	on_turn(-1, 0, acceptor);
}

void
acceptor_free(Acceptor *acceptor)
{
	if (acceptor == NULL)
		return;
	for (int i = 0; i < acceptor->count; i++)
	{
		if (acceptor->bound[i])
			evhttp_del_accept_socket(acceptor->http, acceptor->bound[i]);
		else if (acceptor->sockets[i])
			evconnlistener_free(acceptor->sockets[i]);
	}
	if (acceptor->next_turn)
		event_free(acceptor->next_turn);
	if (acceptor->look)
		event_free(acceptor->look);
	free(acceptor);
}

/*
 * Loops that take from one socket would not share the connections: whichever wakes first has them. The first socket must have the address for
 * itself, or another gate that listens there already would get its share without anybody noticing.
 */
static bool
listen_tcp(Listener *listener, const ListenAddress *address, int loops, const char *what)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	struct sockaddr_storage bound;
	socklen_t	len = sizeof(bound);
	bool		v6 = strchr(address->host, ':') != NULL;
	bool		ok;
	char		service[16];
	int			rc;

	snprintf(service, sizeof(service), "%d", address->port);
	rc = getaddrinfo(address->host, service, &hints, &found);
	if (rc != 0)
	{
		fprintf(stderr, "sessauth-gate: could not listen on %s: %s\n", address->host, gai_strerror(rc));
		return false;
	}
	ok = add_tcp(listener, found->ai_addr, found->ai_addrlen) && getsockname(listener->fds[0], (struct sockaddr *) &bound, &len) == 0;
	freeaddrinfo(found);
	while (ok && listener->fd_count < loops)
		ok = add_tcp(listener, (struct sockaddr *) &bound, len);
	if (!ok)
	{
		fprintf(stderr, "sessauth-gate: could not listen on %s port %d: %s\n", address->host, address->port, strerror(errno));
		return false;
	}
	fprintf(stderr, "sessauth-gate: %slistening on http://%s%s%s:%d\n", what, v6 ? "[" : "", address->host, v6 ? "]" : "",
			ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &bound)->sin6_port : ((struct sockaddr_in *) &bound)->sin_port));
	return true;
}

/* Another socket on the address. */
static bool
add_tcp(Listener *listener, const struct sockaddr *address, socklen_t len)
{
	int			on = 1;
	int			shared = listener->fd_count > 0;
	unsigned int silence = SILENCE_MS;
	int			fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return false;
	listener->fds[listener->fd_count++] = fd;
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof(silence)) == 0 &&
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof(shared)) == 0 && bind(fd, address, len) == 0 &&
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 && listen(fd, BACKLOG) == 0;
}

static bool
listen_unix(Listener *listener, const ListenAddress *address, const char *what)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	struct stat st;
	int			fd;

	memcpy(name.sun_path, address->path, sizeof(name.sun_path));
	if (is_stale(&name))
		(void) unlink(name.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		listener->fds[listener->fd_count++] = fd;
	if (fd < 0 || bind(fd, (struct sockaddr *) &name, sizeof(name)) != 0 || listen(fd, BACKLOG) != 0 || stat(name.sun_path, &st) != 0)
	{
		fprintf(stderr, "sessauth-gate: could not listen on %s: %s\n", address->path, strerror(errno));
		return false;
	}
	memcpy(listener->path, address->path, sizeof(listener->path));
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
	fprintf(stderr, "sessauth-gate: %slistening on unix:%s\n", what, address->path);
	return true;
}

/* A socket without a listener, which a gate that was killed leaves behind. */
static bool
is_stale(const struct sockaddr_un *address)
{
	struct stat st;
	bool		refused;
	int			fd;

	if (lstat(address->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	refused = connect(fd, (const struct sockaddr *) address, sizeof(*address)) != 0 && errno == ECONNREFUSED;
	close(fd);
	return refused;
}

/* Raises the soft limit as far as is wanted and may be; returns what holds then, at most wanted. */
static int
descriptor_limit(int wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 1024;
	if (limit.rlim_cur < (rlim_t) wanted && limit.rlim_cur < limit.rlim_max)
	{
		struct rlimit raised = limit;

		raised.rlim_cur = limit.rlim_max < (rlim_t) wanted ? limit.rlim_max : (rlim_t) wanted;
		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			limit = raised;
	}
	return limit.rlim_cur < (rlim_t) wanted ? (int) limit.rlim_cur : wanted;
}

/* evhttp asks for a bufferevent for each connection it has accepted. The other loops get their turn before this one takes the next. */
static struct bufferevent *
on_accept(struct event_base *base, void *arg)
{
	Acceptor   *acceptor = arg;
	struct timeval tv = {0, 0};

	(void) base;
	if (!acceptor->last_call)
	{
		for (int i = 0; i < acceptor->count; i++)
			evconnlistener_disable(acceptor->sockets[i]);
		evtimer_add(acceptor->next_turn, &tv);
	}
	return connections_add(acceptor->connections);
}

/* Out of descriptors after all, or the client has gone again. Trying at once could be a busy loop. The argument is evhttp's. */
static void
on_accept_error(struct evconnlistener *socket, void *arg)
{
	(void) arg;
	evconnlistener_disable(socket);
}

/* Unless it is crowded: then the next look comes soon. */
static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
	Acceptor   *acceptor = arg;

	(void) fd;
	(void) what;
	if (crowded(acceptor))
		return;
	for (int i = 0; i < acceptor->count; i++)
		evconnlistener_enable(acceptor->sockets[i]);
}

static bool
crowded(const Acceptor *acceptor)
{
	const Listener *listener = acceptor->listeners[0];
	int			fd;

	if (connections_total(acceptor->connections) >= listener->clients_max)
		return true;
	fd = fcntl(listener->fds[0], F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return true;
	close(fd);
	return fd > listener->highest;
}

/*
 * redis_socket.c
 *		The bytes under a link. See redis_socket.h.
 */
#include "node/redis_socket.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define USER_TIMEOUT_MS		10000	/* sent data that nobody acknowledges */
#define READ_MAX			(128 * 1024)	/* at once; libevent's 16 KiB are a call of the system for every 40 revocations */
#define KEEPALIVE_IDLE_S	10
#define KEEPALIVE_PAUSE_S	5
#define KEEPALIVE_PROBES	3

static int	resolve(const SaRedisUrl *url, struct addrinfo **addresses);
static int	new_socket(int family);
static bool flush(RedisSocket *sock);
static void send_alert(RedisSocket *sock);
static bool fail(RedisSocket *sock, const char *what, const char *detail);

bool
socket_open(RedisSocket *sock, struct event_base *base, const SaRedisUrl *url,
			bufferevent_data_cb on_read, bufferevent_event_cb on_event, void *arg)
{
	SaTlsOptions options = {url->host, url->ca_file, url->cert_file, url->key_file};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct addrinfo *addresses = NULL;
	struct addrinfo unix_address = {.ai_family = AF_UNIX, .ai_addr = (struct sockaddr *) &un, .ai_addrlen = sizeof(un)};
	struct addrinfo *address = &unix_address;
	bool		connecting = false;
	int			fd;
	int			rc;

	sock->addresses = 1;
	if (url->is_tls && (sock->tls = sa_tls_new(&options, sock->error, sizeof(sock->error))) == NULL)
		return false;
	if (url->is_unix)
		memcpy(un.sun_path, url->host, strlen(url->host));
	else
	{
		rc = resolve(url, &addresses);
		if (rc != 0)
			return fail(sock, "could not resolve the host name", gai_strerror(rc));

		/* One address each time. */
		sock->addresses = 0;
		for (address = addresses; address; address = address->ai_next)
			sock->addresses++;
		address = addresses;
		for (unsigned int i = sock->attempt++ % sock->addresses; i > 0; i--)
			address = address->ai_next;
	}
	fd = new_socket(address->ai_family);
	if (fd < 0)
		(void) fail(sock, "could not open a socket", strerror(errno));
	else if ((sock->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS)) == NULL)
	{
		close(fd);
		(void) fail(sock, "out of memory", NULL);
	}
	else
	{
		bufferevent_setcb(sock->bev, on_read, NULL, on_event, arg);
		(void) bufferevent_set_max_single_read(sock->bev, READ_MAX);
		connecting = bufferevent_socket_connect(sock->bev, address->ai_addr, (int) address->ai_addrlen) == 0 &&
			bufferevent_enable(sock->bev, EV_READ | EV_WRITE) == 0;
		if (!connecting)
			(void) fail(sock, "could not connect", strerror(errno));
	}
	if (addresses)
		freeaddrinfo(addresses);
	return connecting;
}

void
socket_close(RedisSocket *sock)
{
	if (sock->bev)
		bufferevent_free(sock->bev);
	sock->bev = NULL;
	sa_tls_free(sock->tls);
	sock->tls = NULL;
}

/* A numeric address needs no resolver, which could block. */
static int
resolve(const SaRedisUrl *url, struct addrinfo **addresses)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
	int			rc = getaddrinfo(url->host, url->port, &hints, addresses);

	if (rc != EAI_NONAME)
		return rc;
	hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
	return getaddrinfo(url->host, url->port, &hints, addresses);
}

/* Of our own, because libevent's would be inherited by programs that the process starts. */
static int
new_socket(int family)
{
	static const int options[][3] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_PAUSE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
	};
	int			fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	for (size_t i = 0; fd >= 0 && family != AF_UNIX && i < sizeof(options) / sizeof(options[0]); i++)
		(void) setsockopt(fd, options[i][0], options[i][1], &options[i][2], sizeof(int));
	return fd;
}

SocketProgress
socket_secure(RedisSocket *sock)
{
	char		bytes[16 * 1024];
	int			n;

	while (sock->tls)
	{
		SaTlsStep	step = sa_tls_handshake(sock->tls);

		if (step == SA_TLS_FAILED)
		{
			send_alert(sock);
			(void) fail(sock, sa_tls_error(sock->tls), NULL);
			return SOCKET_FAILED;
		}
		if (!flush(sock))
			return SOCKET_FAILED;
		if (step == SA_TLS_DONE)
			break;
		n = evbuffer_remove(bufferevent_get_input(sock->bev), bytes, sizeof(bytes));
		if (n <= 0)
			return SOCKET_WAIT;
		if (!sa_tls_feed(sock->tls, bytes, (size_t) n))
		{
			(void) fail(sock, "out of memory", NULL);
			return SOCKET_FAILED;
		}
	}
	return SOCKET_DONE;
}

SocketProgress
socket_read(RedisSocket *sock, char *out, size_t size, size_t *len)
{
	struct evbuffer *input = bufferevent_get_input(sock->bev);
	char		bytes[16 * 1024];
	int			n;

	if (sock->tls == NULL)
	{
		n = evbuffer_remove(input, out, size);
		*len = n > 0 ? (size_t) n : 0;
		return n > 0 ? SOCKET_DONE : SOCKET_WAIT;
	}
	for (;;)
	{
		switch (sa_tls_read(sock->tls, out, size, len))
		{
			case SA_TLS_DONE:
				return SOCKET_DONE;
			case SA_TLS_FAILED:
				(void) fail(sock, sa_tls_error(sock->tls), NULL);
				return SOCKET_FAILED;
			case SA_TLS_WAIT:
				break;
		}
		if (!flush(sock))
			return SOCKET_FAILED;
		n = evbuffer_remove(input, bytes, sizeof(bytes));
		if (n <= 0)
			return SOCKET_WAIT;
		if (!sa_tls_feed(sock->tls, bytes, (size_t) n))
		{
			(void) fail(sock, "out of memory", NULL);
			return SOCKET_FAILED;
		}
	}
}

bool
socket_write(RedisSocket *sock, const void *bytes, size_t len)
{
	if (sock->tls == NULL)
		return bufferevent_write(sock->bev, bytes, len) == 0;
	return sa_tls_write(sock->tls, bytes, len) && flush(sock);
}

/* A client certificate is refused after the handshake is over, when our first commands may be on their way already. */
const char *
socket_last_words(RedisSocket *sock)
{
	char		bytes[16 * 1024];
	size_t		len;
	ssize_t		n = sock->tls ? recv(bufferevent_getfd(sock->bev), bytes, sizeof(bytes), 0) : 0;

	if (n <= 0 || !sa_tls_feed(sock->tls, bytes, (size_t) n) ||
		sa_tls_read(sock->tls, bytes, sizeof(bytes), &len) != SA_TLS_FAILED)
		return NULL;
	return sa_tls_error(sock->tls);
}

static bool
flush(RedisSocket *sock)
{
	const char *bytes;
	size_t		len = sa_tls_output(sock->tls, &bytes);

	if (len > 0 && bufferevent_write(sock->bev, bytes, len) != 0)
		return fail(sock, "out of memory", NULL);
	sa_tls_sent(sock->tls, len);
	return true;
}

/* So that the server's log says why we go; the loop would have no time for it. */
static void
send_alert(RedisSocket *sock)
{
	const char *bytes;
	size_t		len = sa_tls_output(sock->tls, &bytes);

	(void) !send(bufferevent_getfd(sock->bev), bytes, len, MSG_NOSIGNAL);
}

static bool
fail(RedisSocket *sock, const char *what, const char *detail)
{
	snprintf(sock->error, sizeof(sock->error), "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
	return false;
}

/*
 * redis_socket.c
 *		The bytes under a link. See redis_socket.h.
 */
#include "postgres.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access/xact.h"
#include "storage/fd.h"
#include "storage/latch.h"

#include "worker/redis_socket.h"

#define USER_TIMEOUT_MS		10000	/* sent data that nobody acknowledges */
#define KEEPALIVE_IDLE_S	10
#define KEEPALIVE_PAUSE_S	5
#define KEEPALIVE_PROBES	3
#define TLS_PIECE			16384	/* at most a record of TLS at a time, so that what waits is not held twice */
#define TLS_FEEDS_MAX		64		/* without a byte for us: then the caller looks at its deadline */

static uint64 sockets = 0;

static void close_fd(RedisSocket *sock);
static bool open_unix(RedisSocket *sock, const SaRedisUrl *url);
static bool open_tcp(RedisSocket *sock, const SaRedisUrl *url);
static bool is_numeric(const SaRedisUrl *url, AddressList *out);
static SocketProgress resolve(RedisSocket *sock);
static bool try_addresses(RedisSocket *sock);
static bool begin_connect(RedisSocket *sock, int family, const struct sockaddr *address, socklen_t len);
static void set_options(int fd);
static SocketProgress finish_connect(RedisSocket *sock);
static SocketProgress send_plain(RedisSocket *sock, const char *bytes, size_t len, size_t *gone);
static SocketProgress send_output(RedisSocket *sock);
static void hear_last_words(RedisSocket *sock);
static SocketProgress receive_plain(RedisSocket *sock, char *out, size_t size, size_t *len);
static SocketProgress feed_tls(RedisSocket *sock);
static SocketProgress fail(RedisSocket *sock, const char *what, const char *detail);

void
socket_init(RedisSocket *sock)
{
	memset(sock, 0, sizeof(*sock));
	sock->fd = PGINVALID_SOCKET;
}

bool
socket_open(RedisSocket *sock, const SaRedisUrl *url)
{
	Assert(!IsTransactionState());

	sock->error[0] = '\0';
	sock->connected = false;
	if (!AcquireExternalFD())
	{
		(void) fail(sock, "no free file descriptor", NULL);
		return false;
	}
	sock->fd_counted = true;
	if (url->is_tls)
	{
		SaTlsOptions options = {url->host, url->ca_file, url->cert_file, url->key_file};

		sock->tls = sa_tls_new(&options, sock->error, sizeof(sock->error));
		if (sock->tls == NULL)
			return false;
	}
	return url->is_unix ? open_unix(sock, url) : open_tcp(sock, url);
}

void
socket_close(RedisSocket *sock)
{
	close_fd(sock);
	if (sock->fd_counted)
		ReleaseExternalFD();
	sock->fd_counted = false;
	sa_tls_free(sock->tls);
	sock->tls = NULL;
}

static void
close_fd(RedisSocket *sock)
{
	if (sock->resolver)
		resolver_end(sock->resolver);
	else if (sock->fd != PGINVALID_SOCKET)
		close(sock->fd);
	sock->resolver = NULL;
	sock->fd = PGINVALID_SOCKET;
	sock->serial = 0;
}

static bool
open_unix(RedisSocket *sock, const SaRedisUrl *url)
{
	struct sockaddr_un address = {0};

	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, url->host, sizeof(address.sun_path));
	if (begin_connect(sock, AF_UNIX, (struct sockaddr *) &address, sizeof(address)))
		return true;
	(void) fail(sock, "could not connect", strerror(errno));
	return false;
}

static bool
open_tcp(RedisSocket *sock, const SaRedisUrl *url)
{
	const char *why;

	sock->tried = 0;
	if (is_numeric(url, &sock->addresses))
		return try_addresses(sock);
	sock->resolver = resolver_begin(url->host, url->port, &sock->addresses, &why);
	if (sock->resolver == NULL)
	{
		(void) fail(sock, "could not resolve the host name", why);
		return false;
	}
	sock->fd = resolver_fd(sock->resolver);
	sock->serial = ++sockets;
	return true;
}

static bool
is_numeric(const SaRedisUrl *url, AddressList *out)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
	struct addrinfo *address;

	if (getaddrinfo(url->host, url->port, &hints, &address) != 0)
		return false;
	out->count = 1;
	out->items[0].len = address->ai_addrlen;
	memcpy(&out->items[0].address, address->ai_addr, address->ai_addrlen);
	freeaddrinfo(address);
	return true;
}

/* The name has been looked up, or goes on being. */
static SocketProgress
resolve(RedisSocket *sock)
{
	const char *why;
	ResolverProgress progress = resolver_progress(sock->resolver, &why);

	if (progress == RESOLVER_WAIT)
		return SOCKET_WAIT;
	if (progress == RESOLVER_FAILED)
		return fail(sock, "could not resolve the host name", why);
	close_fd(sock);
	return try_addresses(sock) ? SOCKET_WAIT : SOCKET_FAILED;
}

/* The next one that does not refuse at once; false when all have been tried. */
static bool
try_addresses(RedisSocket *sock)
{
	while (sock->tried < sock->addresses.count)
	{
		const Address *next = &sock->addresses.items[sock->attempt++ % sock->addresses.count];

		sock->tried++;
		if (begin_connect(sock, next->address.ss_family, (const struct sockaddr *) &next->address, next->len))
			return true;
		(void) fail(sock, "could not connect", strerror(errno));
	}
	return false;
}

static bool
begin_connect(RedisSocket *sock, int family, const struct sockaddr *address, socklen_t len)
{
	int			fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			save;

	if (fd < 0)
		return false;
	if (family != AF_UNIX)
		set_options(fd);
	if (connect(fd, address, len) == 0 || errno == EINPROGRESS || errno == EAGAIN)
	{
		sock->fd = fd;
		sock->serial = ++sockets;
		return true;
	}
	save = errno;
	close(fd);
	errno = save;
	return false;
}

/* A host that is switched off says nothing: these end a connection to it, also where no deadline of ours runs. */
static void
set_options(int fd)
{
	static const struct
	{
		int			level;
		int			name;
		int			value;
	}			options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_PAUSE_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
	};

	for (int i = 0; i < lengthof(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

SocketProgress
socket_connect(RedisSocket *sock)
{
	SocketProgress progress;

	if (sock->resolver && (progress = resolve(sock)) != SOCKET_DONE)
		return progress;
	if (!sock->connected && (progress = finish_connect(sock)) != SOCKET_DONE)
		return progress;
	while (sock->tls)
	{
		SaTlsStep	step = sa_tls_handshake(sock->tls);

		/* A failure has an alert to send, which tells the server's log why. */
		progress = send_output(sock);
		if (step == SA_TLS_FAILED)
			return fail(sock, sa_tls_error(sock->tls), NULL);
		if (step == SA_TLS_DONE)
			break;
		if (progress == SOCKET_FAILED)
			return progress;
		progress = feed_tls(sock);
		if (progress != SOCKET_DONE)
			return progress;
	}
	sock->attempt = 0;
	return SOCKET_DONE;
}

static SocketProgress
finish_connect(RedisSocket *sock)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	struct sockaddr_storage peer;
	socklen_t	peerlen = sizeof(peer);

	if (getsockopt(sock->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0)
	{
		(void) fail(sock, "could not connect", strerror(error));
		close_fd(sock);
		return try_addresses(sock) ? SOCKET_WAIT : SOCKET_FAILED;
	}
	if (getpeername(sock->fd, (struct sockaddr *) &peer, &peerlen) != 0)
		return SOCKET_WAIT;		/* still under way */
	sock->connected = true;
	return SOCKET_DONE;
}

SocketProgress
socket_send(RedisSocket *sock, const char *bytes, int len, int *sent)
{
	for (;;)
	{
		SocketProgress progress;
		size_t		gone;

		if (sock->tls)
		{
			progress = send_output(sock);
			if (progress != SOCKET_DONE || *sent == len)
				return progress;
			gone = Min(len - *sent, TLS_PIECE);
			if (!sa_tls_write(sock->tls, bytes + *sent, gone))
				return fail(sock, sa_tls_error(sock->tls), NULL);
		}
		else
		{
			if (*sent == len)
				return SOCKET_DONE;
			progress = send_plain(sock, bytes + *sent, len - *sent, &gone);
			if (progress != SOCKET_DONE)
				return progress;
		}
		*sent += gone;
	}
}

/* Done: at least one byte is gone. */
static SocketProgress
send_plain(RedisSocket *sock, const char *bytes, size_t len, size_t *gone)
{
	ssize_t		n;

	do
		n = send(sock->fd, bytes, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return SOCKET_WAIT;
	if (n <= 0)
		return fail(sock, "could not send", strerror(errno));
	*gone = n;
	return SOCKET_DONE;
}

/* Done: nothing is left. */
static SocketProgress
send_output(RedisSocket *sock)
{
	const char *bytes;
	size_t		len;

	while ((len = sa_tls_output(sock->tls, &bytes)) > 0)
	{
		size_t		gone;
		SocketProgress progress = send_plain(sock, bytes, len, &gone);

		if (progress == SOCKET_FAILED)
			hear_last_words(sock);
		if (progress != SOCKET_DONE)
			return progress;
		sa_tls_sent(sock->tls, gone);
	}
	return SOCKET_DONE;
}

/* The server has gone, and may have said why before: a client certificate is refused after the handshake is over. */
static void
hear_last_words(RedisSocket *sock)
{
	char		bytes[TLS_PIECE];
	size_t		len;
	ssize_t		n = recv(sock->fd, bytes, sizeof(bytes), 0);

	if (n > 0 && sa_tls_feed(sock->tls, bytes, n) && sa_tls_read(sock->tls, bytes, sizeof(bytes), &len) == SA_TLS_FAILED)
		(void) fail(sock, sa_tls_error(sock->tls), NULL);
}

SocketProgress
socket_receive(RedisSocket *sock, char *out, size_t size, size_t *len)
{
	if (sock->tls == NULL)
		return receive_plain(sock, out, size, len);
	for (int i = 0; i < TLS_FEEDS_MAX; i++)
	{
		SaTlsStep	step = sa_tls_read(sock->tls, out, size, len);
		SocketProgress progress;

		if (step == SA_TLS_FAILED)
			return fail(sock, sa_tls_error(sock->tls), NULL);
		if (step == SA_TLS_DONE)
			return SOCKET_DONE;
		progress = feed_tls(sock);
		if (progress != SOCKET_DONE)
			return progress;
	}
	return SOCKET_WAIT;
}

static SocketProgress
feed_tls(RedisSocket *sock)
{
	char		bytes[TLS_PIECE];
	size_t		len;
	SocketProgress progress = receive_plain(sock, bytes, sizeof(bytes), &len);

	if (progress == SOCKET_DONE && !sa_tls_feed(sock->tls, bytes, len))
		return fail(sock, "out of memory", NULL);
	return progress;
}

static SocketProgress
receive_plain(RedisSocket *sock, char *out, size_t size, size_t *len)
{
	ssize_t		n;

	do
		n = recv(sock->fd, out, size, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return SOCKET_WAIT;
	if (n < 0)
		return fail(sock, "could not receive", strerror(errno));
	if (n == 0)
		return fail(sock, "the server closed the connection", NULL);
	*len = n;
	return SOCKET_DONE;
}

bool
socket_has_output(const RedisSocket *sock)
{
	const char *bytes;

	return sock->tls != NULL && sa_tls_output(sock->tls, &bytes) > 0;
}

int
socket_connect_events(const RedisSocket *sock)
{
	if (sock->resolver)
		return WL_SOCKET_READABLE;
	if (!sock->connected)
		return WL_SOCKET_WRITEABLE;
	return WL_SOCKET_READABLE | (socket_has_output(sock) ? WL_SOCKET_WRITEABLE : 0);
}

Instant
socket_connect_next_event(const RedisSocket *sock)
{
	return sock->resolver ? resolver_next_event(sock->resolver) : INSTANT_NEVER;
}

static SocketProgress
fail(RedisSocket *sock, const char *what, const char *detail)
{
	snprintf(sock->error, sizeof(sock->error), "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
	return SOCKET_FAILED;
}

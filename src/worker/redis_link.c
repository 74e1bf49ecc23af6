/*
 * redis_link.c
 *		One connection to Redis that never blocks. See redis_link.h.
 */
#include "postgres.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "access/xact.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "server/compat.h"
#include "worker/redis_link.h"

#define REPLY_BYTES_MAX (64 * 1024 * 1024)	/* of an exchange: more is no answer to anything we ask */
#define REPLY_ELEMENTS_MAX (1024 * 1024)	/* of an array */

static uint64 sockets = 0;

static bool connect_unix(RedisLink *link, const SaRedisUrl *url);
static bool connect_tcp(RedisLink *link, const SaRedisUrl *url);
static bool begin_connect(RedisLink *link, int family, const struct sockaddr *address, socklen_t len);
static redisReader *make_reader(void);
static LinkProgress fail(RedisLink *link, const char *what, const char *detail);
static LinkProgress finish_connect(RedisLink *link);
static bool send_some(RedisLink *link);
static bool receive_some(RedisLink *link);

void
link_init(RedisLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	memset(link, 0, sizeof(*link));
	link->socket = PGINVALID_SOCKET;
	initStringInfo(&link->out);
	MemoryContextSwitchTo(old);
}

bool
link_connect(RedisLink *link, const SaRedisUrl *url, TimestampTz deadline)
{
	Assert(link->state == LINK_CLOSED);
	Assert(!IsTransactionState());

	link->error[0] = '\0';
	if (!AcquireExternalFD())
	{
		(void) fail(link, "no free file descriptor", NULL);
		return false;
	}
	link->fd_counted = true;
	link->reader = make_reader();
	if (link->reader == NULL)
	{
		(void) fail(link, "out of memory", NULL);
		return false;
	}
	link->deadline = deadline;
	link->state = LINK_CONNECTING;
	return url->is_unix ? connect_unix(link, url) : connect_tcp(link, url);
}

#if HIREDIS_MAJOR < 1
static redisReplyObjectFunctions functions;
static void *(*hiredis_create_array) (const redisReadTask *task, int elements);

static void *
create_array(const redisReadTask *task, int elements)
{
	return elements > REPLY_ELEMENTS_MAX ? NULL : hiredis_create_array(task, elements);
}
#endif

/*
 * hiredis 0.14 allocates an array by the length that the other side claims,
 * before any of it has arrived, and aborts the process when it cannot. (From 1.1 on it has a limit of its own,
 * and another type for the length.)
 */
static redisReader *
make_reader(void)
{
	redisReader *reader = redisReaderCreate();
#if HIREDIS_MAJOR < 1
	if (reader == NULL)
		return NULL;
	if (functions.createArray == NULL)
	{
		functions = *reader->fn;
		hiredis_create_array = functions.createArray;
		functions.createArray = create_array;
	}
	reader->fn = &functions;
#else
	if (reader != NULL)
		reader->maxelements = REPLY_ELEMENTS_MAX;
#endif
	return reader;
}

static bool
connect_unix(RedisLink *link, const SaRedisUrl *url)
{
	struct sockaddr_un address = {0};

	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, url->host, sizeof(address.sun_path));
	if (begin_connect(link, AF_UNIX, (struct sockaddr *) &address, sizeof(address)))
		return true;
	(void) fail(link, "could not connect", strerror(errno));
	return false;
}

/* Of several addresses the first that does not fail at once is taken; a dead one costs the connect deadline and the next try begins again. */
static bool
connect_tcp(RedisLink *link, const SaRedisUrl *url)
{
	struct addrinfo hints = {0};
	struct addrinfo *addresses = NULL;
	int			rc;

	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	rc = getaddrinfo(url->host, url->port, &hints, &addresses);
	if (rc != 0)
	{
		hints.ai_flags = AI_NUMERICSERV;
		rc = getaddrinfo(url->host, url->port, &hints, &addresses);
	}
	if (rc != 0)
	{
		(void) fail(link, "could not resolve the host name", gai_strerror(rc));
		return false;
	}
	errno = EADDRNOTAVAIL;
	for (struct addrinfo *a = addresses; a != NULL; a = a->ai_next)
		if (begin_connect(link, a->ai_family, a->ai_addr, a->ai_addrlen))
		{
			freeaddrinfo(addresses);
			return true;
		}
	rc = errno;
	freeaddrinfo(addresses);
	(void) fail(link, "could not connect", strerror(rc));
	return false;
}

static bool
begin_connect(RedisLink *link, int family, const struct sockaddr *address, socklen_t len)
{
	int			one = 1;
	int			fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			save;

	if (fd < 0)
		return false;
	if (family != AF_UNIX)
	{
		int			user_timeout = 10 * 1000;

		(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		(void) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	}
	if (connect(fd, address, len) == 0 || errno == EINPROGRESS || errno == EAGAIN)
	{
		link->socket = fd;
		link->serial = ++sockets;
		return true;
	}
	save = errno;
	close(fd);
	errno = save;
	return false;
}

void
link_command(RedisLink *link, int argc, const SaField *argv)
{
	char		head[32];

	appendBinaryStringInfo(&link->out, head, snprintf(head, sizeof(head), "*%d\r\n", argc));
	for (int i = 0; i < argc; i++)
	{
		appendBinaryStringInfo(&link->out, head, snprintf(head, sizeof(head), "$%zu\r\n", argv[i].len));
		appendBinaryStringInfo(&link->out, argv[i].data, argv[i].len);
		appendBinaryStringInfo(&link->out, "\r\n", 2);
	}
	link->expected++;
}

void
link_begin(RedisLink *link, TimestampTz deadline)
{
	Assert(link->state == LINK_READY);
	if (link->replies_size < link->expected)
	{
		if (link->replies)
			pfree(link->replies);
		link->replies = MemoryContextAlloc(TopMemoryContext, sizeof(redisReply *) * link->expected);
		link->replies_size = link->expected;
	}
	link->count = 0;
	link->received = 0;
	link->deadline = deadline;
	link->state = LINK_BUSY;
}

LinkProgress
link_progress(RedisLink *link, TimestampTz now)
{
	Assert(!IsTransactionState());

	if (link->state == LINK_CONNECTING)
	{
		LinkProgress progress = finish_connect(link);

		if (progress != LINK_WAIT)
			return progress;
	}
	else if (link->state == LINK_BUSY)
	{
		if (!send_some(link) || !receive_some(link))
			return LINK_FAILED;
		if (link->count == link->expected)
			return LINK_DONE;
	}
	else if (link->state == LINK_READY)
	{
		char		byte;
		ssize_t		n = recv(link->socket, &byte, 1, MSG_PEEK);

		/* Nothing was asked, so anything but silence is the end of this connection. */
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return fail(link, "the server closed the connection", NULL);
		if (n > 0)
			return fail(link, "the server speaks without being asked", NULL);
	}
	if ((link->state == LINK_CONNECTING || link->state == LINK_BUSY) && now >= link->deadline)
		return fail(link, link->state == LINK_CONNECTING ? "timeout while connecting" : "timeout while waiting for a reply", NULL);
	return LINK_WAIT;
}

static LinkProgress
finish_connect(RedisLink *link)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	struct sockaddr_storage peer;
	socklen_t	peerlen = sizeof(peer);

	if (getsockopt(link->socket, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0)
		return fail(link, "could not connect", strerror(error));
	if (getpeername(link->socket, (struct sockaddr *) &peer, &peerlen) != 0)
		return LINK_WAIT;		/* still under way */
	link->state = LINK_READY;
	return LINK_CONNECTED;
}

static bool
send_some(RedisLink *link)
{
	while (link->sent < link->out.len)
	{
		ssize_t		n = send(link->socket, link->out.data + link->sent, link->out.len - link->sent, MSG_NOSIGNAL);

		if (n > 0)
			link->sent += n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return true;
		else
		{
			(void) fail(link, "could not send", strerror(errno));
			return false;
		}
	}
	return true;
}

static bool
receive_some(RedisLink *link)
{
	char		buffer[64 * 1024];

	for (;;)
	{
		ssize_t		n = recv(link->socket, buffer, sizeof(buffer), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return true;
		if (n <= 0)
		{
			(void) fail(link, n == 0 ? "the server closed the connection" : "could not receive", n == 0 ? NULL : strerror(errno));
			return false;
		}
		link->received += n;
		if (link->received > REPLY_BYTES_MAX || redisReaderFeed(link->reader, buffer, n) != REDIS_OK)
		{
			(void) fail(link, "the reply is not one of Redis", NULL);
			return false;
		}
		for (;;)
		{
			void	   *reply = NULL;

			if (redisReaderGetReply(link->reader, &reply) != REDIS_OK)
			{
				(void) fail(link, "the reply is not one of Redis", NULL);
				return false;
			}
			if (reply == NULL)
				break;
			if (link->count == link->expected)
			{
				freeReplyObject(reply);
				(void) fail(link, "there are more replies than commands", NULL);
				return false;
			}
			link->replies[link->count++] = reply;
		}
		if (link->count == link->expected)
			return true;
	}
}

void
link_finish(RedisLink *link)
{
	for (int i = 0; i < link->count; i++)
		freeReplyObject(link->replies[i]);
	link->count = 0;
	link->expected = 0;
	link->sent = 0;

	/* One large backlog must not pin its buffer for ever. */
	if (link->out.maxlen > 4 * 1024 * 1024)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		pfree(link->out.data);
		initStringInfo(&link->out);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&link->out);
	if (link->state == LINK_BUSY)
		link->state = LINK_READY;
}

void
link_close(RedisLink *link)
{
	link_finish(link);
	if (link->socket != PGINVALID_SOCKET)
		close(link->socket);
	link->socket = PGINVALID_SOCKET;
	link->serial = 0;
	if (link->fd_counted)
		ReleaseExternalFD();
	link->fd_counted = false;
	if (link->reader)
		redisReaderFree(link->reader);
	link->reader = NULL;
	link->state = LINK_CLOSED;
}

void
link_error_text(const char *reply, char *out, size_t size)
{
	size_t		at = snprintf(out, size, "the server refused: ");

	for (; *reply != '\0' && at < Min(size - 1, 150); reply++)
		out[at++] = *reply >= ' ' && *reply <= '~' ? *reply : '?';
	out[at] = '\0';
}

int
link_wait_events(const RedisLink *link)
{
	switch (link->state)
	{
		case LINK_CONNECTING:
			return WL_SOCKET_WRITEABLE;
		case LINK_BUSY:
			return WL_SOCKET_READABLE | (link->sent < link->out.len ? WL_SOCKET_WRITEABLE : 0);
		case LINK_READY:
			return WL_SOCKET_READABLE;	/* notices the server going away */
		default:
			return 0;
	}
}

static LinkProgress
fail(RedisLink *link, const char *what, const char *detail)
{
	snprintf(link->error, sizeof(link->error), "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
	link_close(link);
	return LINK_FAILED;
}

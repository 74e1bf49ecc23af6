/*
 * redis_link.c
 *		One connection to Redis that never blocks. See redis_link.h.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "worker/redis_link.h"

#define REPLY_BYTES_MAX (64 * 1024 * 1024)	/* of an exchange: more is no answer to anything we ask */
#define REPLY_ELEMENTS_MAX (1024 * 1024)	/* of an array */

static redisReader *make_reader(void);
static LinkProgress fail(RedisLink *link, const char *what);
static bool send_some(RedisLink *link);
static bool receive_some(RedisLink *link);

void
link_init(RedisLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	memset(link, 0, sizeof(*link));
	socket_init(&link->socket);
	initStringInfo(&link->out);
	MemoryContextSwitchTo(old);
}

bool
link_connect(RedisLink *link, const SaRedisUrl *url, Instant deadline)
{
	Assert(link->state == LINK_CLOSED);
	Assert(!IsTransactionState());

	link->error[0] = '\0';
	link->reader = make_reader();
	if (link->reader == NULL)
	{
		(void) fail(link, "out of memory");
		return false;
	}
	link->deadline = deadline;
	link->state = LINK_CONNECTING;
	if (socket_open(&link->socket, url))
		return true;
	(void) fail(link, link->socket.error);
	return false;
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
link_begin(RedisLink *link, Instant deadline)
{
	Assert(link->state == LINK_READY);
	link->count = 0;
	link->received = 0;
	link->state = LINK_BUSY;
	link_extend(link, deadline);
}

void
link_extend(RedisLink *link, Instant deadline)
{
	Assert(link->state == LINK_BUSY);
	if (link->replies == NULL)
		link->replies = MemoryContextAlloc(TopMemoryContext, sizeof(redisReply *) * link->expected);
	else if (link->replies_size < link->expected)
		link->replies = repalloc(link->replies, sizeof(redisReply *) * link->expected);
	link->replies_size = Max(link->replies_size, link->expected);
	link->begun_len = link->out.len;
	link->begun_expected = link->expected;
	link->deadline = deadline;
}

void
link_drop(RedisLink *link)
{
	Assert(link->state == LINK_BUSY);
	link->out.len = link->begun_len;
	link->expected = link->begun_expected;
}

int
link_unanswered(const RedisLink *link)
{
	return link->sent < link->out.len ? -1 : link->expected - link->count;
}

LinkProgress
link_progress(RedisLink *link, Instant now)
{
	Assert(!IsTransactionState());

	if (link->state == LINK_CONNECTING)
	{
		switch (socket_connect(&link->socket))
		{
			case SOCKET_DONE:
				link->state = LINK_READY;
				return LINK_CONNECTED;
			case SOCKET_FAILED:
				return fail(link, link->socket.error);
			case SOCKET_WAIT:
				break;
		}
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
		size_t		len;

		/* Nothing was asked, so anything but silence is the end of this connection. */
		switch (socket_receive(&link->socket, &byte, 1, &len))
		{
			case SOCKET_DONE:
				return fail(link, "the server speaks without being asked");
			case SOCKET_FAILED:
				return fail(link, link->socket.error);
			case SOCKET_WAIT:
				break;
		}
	}
	if ((link->state == LINK_CONNECTING || link->state == LINK_BUSY) && now >= link->deadline)
		return fail(link, link->state == LINK_BUSY ? "timeout while waiting for a reply" :
					link->socket.connected ? "timeout while agreeing on TLS" :
					link->socket.resolver ? "timeout while resolving the host name" : "timeout while connecting");
	return LINK_WAIT;
}

static bool
send_some(RedisLink *link)
{
	SocketProgress progress = socket_send(&link->socket, link->out.data, link->out.len, &link->sent);

	if (progress == SOCKET_DONE)
	{
		/* An exchange that is extended again and again shall not grow. */
		resetStringInfo(&link->out);
		link->sent = link->begun_len = 0;
	}
	if (progress != SOCKET_FAILED)
		return true;
	(void) fail(link, link->socket.error);
	return false;
}

static bool
receive_some(RedisLink *link)
{
	char		buffer[64 * 1024];
	size_t		len;

	for (;;)
	{
		switch (socket_receive(&link->socket, buffer, sizeof(buffer), &len))
		{
			case SOCKET_WAIT:
				return true;
			case SOCKET_FAILED:
				(void) fail(link, link->socket.error);
				return false;
			case SOCKET_DONE:
				break;
		}
		link->received += len;
		if (link->received > REPLY_BYTES_MAX || redisReaderFeed(link->reader, buffer, len) != REDIS_OK)
		{
			(void) fail(link, "the reply is not one of Redis");
			return false;
		}
		for (;;)
		{
			void	   *reply = NULL;

			if (redisReaderGetReply(link->reader, &reply) != REDIS_OK)
			{
				(void) fail(link, "the reply is not one of Redis");
				return false;
			}
			if (reply == NULL)
				break;
			if (link->count == link->expected)
			{
				freeReplyObject(reply);
				(void) fail(link, "there are more replies than commands");
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
	socket_close(&link->socket);
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
			return socket_connect_events(&link->socket);
		case LINK_BUSY:
			return WL_SOCKET_READABLE |
				(link->sent < link->out.len || socket_has_output(&link->socket) ? WL_SOCKET_WRITEABLE : 0);
		case LINK_READY:
			return WL_SOCKET_READABLE;	/* notices the server going away */
		default:
			return 0;
	}
}

Instant
link_next_event(const RedisLink *link)
{
	return link->state == LINK_CONNECTING ? Min(link->deadline, socket_connect_next_event(&link->socket)) : link->deadline;
}

static LinkProgress
fail(RedisLink *link, const char *what)
{
	strlcpy(link->error, what, sizeof(link->error));
	link_close(link);
	return LINK_FAILED;
}

/*
 * redis_link.c
 *		One connection to Redis inside an event loop. See redis_link.h.
 *
 * The server may be anything. So every command has its deadline, and of an answer to AUTH only the code is repeated: servers quote
 * commands that they do not know, password and all.
 */
#include "node/redis_link.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/redis_reader.h"
#include "node/redis_socket.h"

#define CONNECT_TIMEOUT_MS	2000

struct RedisLink
{
	struct event_base *base;
	const SaRedisUrl *url;
	const char *password_file;
	RedisEvents events;
	RedisSocket socket;
	unsigned int unreachable;	/* addresses of the host in a row that could not be connected to */
	bool		connected;
	bool		secured;		/* and TLS (if any) agreed on */
	struct event *timer;		/* of the oldest command, or of the connect */
	RedisReader *reader;		/* also of a connection that is over: somebody may still look at its last reply */
	bool		up;
	bool		password_sent;	/* and not answered yet */
	int			login_left;		/* replies until it is up */
	RedisReplied waiting[REDIS_LINK_COMMANDS_MAX];
	int			timeouts[REDIS_LINK_COMMANDS_MAX];
	int			first;
	int			count;
};

static void on_read(struct bufferevent *bev, void *arg);
static void on_event(struct bufferevent *bev, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);
static void close_link(RedisLink *link);
static void not_connected(RedisLink *link, const char *why, const char *detail);
static void fail(RedisLink *link, const char *why, const char *detail);
static void secure(RedisLink *link);
static bool take(RedisLink *link, const char *bytes, size_t n);
static void log_in(RedisLink *link);
static bool send_command(RedisLink *link, RedisReplied replied, int timeout_ms, int argc, const SaField *argv);
static void login_replied(RedisLink *link, const redisReply *reply);
static void arm(RedisLink *link, int ms);
static bool read_password(const char *path, char *out, size_t size);

RedisLink *
redis_link_new(struct event_base *base, const SaRedisUrl *url, const char *password_file, const RedisEvents *events)
{
	RedisLink  *link = calloc(1, sizeof(*link));

	if (link == NULL)
		return NULL;
	link->base = base;
	link->url = url;
	link->password_file = password_file;
	link->events = *events;
	link->timer = evtimer_new(base, on_timer, link);
	link->reader = redis_reader_new();
	if (link->timer == NULL || link->reader == NULL)
	{
		redis_reader_free(link->reader);
		if (link->timer)
			event_free(link->timer);
		free(link);
		return NULL;
	}
	return link;
}

void
redis_link_free(RedisLink *link)
{
	if (link == NULL)
		return;
	close_link(link);
	event_free(link->timer);
	redis_reader_free(link->reader);
	free(link);
}

bool
redis_link_is_up(const RedisLink *link)
{
	return link->up;
}

void
redis_link_connect(RedisLink *link)
{
	close_link(link);
	if (!redis_reader_restart(link->reader))
	{
		fail(link, "out of memory", NULL);
		return;
	}
	arm(link, CONNECT_TIMEOUT_MS);
	if (!socket_open(&link->socket, link->base, link->url, on_read, on_event, link))
		not_connected(link, link->socket.error, NULL);
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	RedisLink  *link = arg;
	const char *error = evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR());
	const char *words;

	(void) bev;

	if (what & BEV_EVENT_CONNECTED)
	{
		link->connected = true;
		link->unreachable = 0;
		secure(link);
	}
	else if ((what & BEV_EVENT_ERROR) && !link->connected)
		not_connected(link, "could not connect", error);
	else if (what & BEV_EVENT_EOF)
		fail(link, "the server closed the connection", NULL);
	else if ((what & BEV_EVENT_ERROR) && link->secured && (words = socket_last_words(&link->socket)) != NULL)
		fail(link, words, NULL);
	else if (what & BEV_EVENT_ERROR)
		fail(link, "the connection broke", error);
}

static void
secure(RedisLink *link)
{
	switch (socket_secure(&link->socket))
	{
		case SOCKET_DONE:
			link->secured = true;
			log_in(link);
			break;
		case SOCKET_FAILED:
			fail(link, link->socket.error, NULL);
			break;
		case SOCKET_WAIT:
			break;
	}
}

static void
log_in(RedisLink *link)
{
	char		password[512];
	char		db[16];
	bool		sent;

	snprintf(db, sizeof(db), "%d", link->url->db);
	link->login_left = 1;
	link->password_sent = link->password_file != NULL;
	if (link->password_file)
	{
		if (!read_password(link->password_file, password, sizeof(password)))
		{
			fail(link, "the password file cannot be read, or is readable by others", NULL);
			return;
		}
		link->login_left++;
		if (link->url->user[0] != '\0')
			sent = send_command(link, NULL, CONNECT_TIMEOUT_MS, 3,
								(SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(link->url->user), SA_FIELD_STR(password)});
		else
			sent = send_command(link, NULL, CONNECT_TIMEOUT_MS, 2, (SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(password)});
		sa_wipe(password, sizeof(password));
		if (!sent)
			return;
	}
	(void) send_command(link, NULL, CONNECT_TIMEOUT_MS, 2, (SaField[]) {SA_FIELD("SELECT", 6), SA_FIELD_STR(db)});
}

static void
login_replied(RedisLink *link, const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_STATUS)
	{
		const char *text = reply->type == REDIS_REPLY_ERROR ? reply->str : "it does not answer like Redis";
		size_t		len = link->password_sent ? strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") : strlen(text);
		char		shown[120];

		snprintf(shown, sizeof(shown), "%.*s", len < 100 ? (int) len : 100, text);
		fail(link, link->password_sent ? "the server refused the user name or password" : "the server refused the login", shown);
		return;
	}
	link->password_sent = false;
	if (--link->login_left > 0)
		return;
	link->up = true;
	link->socket.attempt = 0;
	link->events.up(link->events.arg, link);
}

bool
redis_link_command(RedisLink *link, RedisReplied replied, int timeout_ms, int argc, const SaField *argv)
{
	return link->up && send_command(link, replied, timeout_ms, argc, argv);
}

static bool
send_command(RedisLink *link, RedisReplied replied, int timeout_ms, int argc, const SaField *argv)
{
	const char *args[16];
	size_t		lens[16];
	char	   *formatted = NULL;
	long long	len;
	int			slot = (link->first + link->count) % REDIS_LINK_COMMANDS_MAX;
	bool		sent;

	if (link->socket.bev == NULL || link->count == REDIS_LINK_COMMANDS_MAX || argc > 16)
		return false;
	for (int i = 0; i < argc; i++)
	{
		args[i] = argv[i].data;
		lens[i] = argv[i].len;
	}
	len = redisFormatCommandArgv(&formatted, argc, args, lens);
	if (len < 0)
		return false;
	sent = socket_write(&link->socket, formatted, (size_t) len);
	sa_wipe(formatted, (size_t) len);	/* it may hold the password */
	redisFreeCommand(formatted);
	if (!sent)
	{
		/* Half of it may be on its way. */
		fail(link, "out of memory", NULL);
		return false;
	}
	link->waiting[slot] = replied;
	link->timeouts[slot] = timeout_ms;
	if (link->count++ == 0)
		arm(link, timeout_ms);
	return true;
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	RedisLink  *link = arg;
	char		bytes[64 * 1024];
	size_t		n;

	if (!link->secured)
		secure(link);
	while (link->socket.bev == bev && link->secured)
	{
		switch (socket_read(&link->socket, bytes, sizeof(bytes), &n))
		{
			case SOCKET_WAIT:
				return;
			case SOCKET_FAILED:
				fail(link, link->socket.error, NULL);
				return;
			case SOCKET_DONE:
				if (!take(link, bytes, n))
					return;
				break;
		}
	}
}

/* False when this connection has ended. */
static bool
take(RedisLink *link, const char *bytes, size_t n)
{
	const struct bufferevent *bev = link->socket.bev;

	if (!redis_reader_feed(link->reader, bytes, n))
	{
		fail(link, "the server does not answer like Redis", NULL);
		return false;
	}
	for (;;)
	{
		const redisReply *reply;
		RedisReplied replied;

		if (!redis_reader_next(link->reader, &reply))
		{
			fail(link, "the server does not answer like Redis", NULL);
			return false;
		}
		if (reply == NULL)
			return true;
		if (link->count == 0)
		{
			fail(link, "the server speaks without being asked", NULL);
			return false;
		}
		replied = link->waiting[link->first];
		link->first = (link->first + 1) % REDIS_LINK_COMMANDS_MAX;
		if (--link->count > 0)
			arm(link, link->timeouts[link->first]);
		else
			(void) evtimer_del(link->timer);
		if (replied)
			replied(link->events.arg, reply);
		else
			login_replied(link, reply);
		if (link->socket.bev != bev)
			return false;		/* the callback's doing ended this connection */
	}
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	RedisLink  *link = arg;

	(void) fd;
	(void) what;
	if (link->connected)
		fail(link, link->up ? "timeout while waiting for a reply" : "timeout while connecting", NULL);
	else
		not_connected(link, "timeout while connecting", NULL);
}

static void
arm(RedisLink *link, int ms)
{
	struct timeval tv = {ms / 1000, (ms % 1000) * 1000};

	(void) evtimer_add(link->timer, &tv);
}

static void
close_link(RedisLink *link)
{
	(void) evtimer_del(link->timer);
	socket_close(&link->socket);
	link->connected = false;
	link->secured = false;
	link->up = false;
	link->first = link->count = 0;
}

/* The host may have another address; when none can be reached, the last one says why. */
static void
not_connected(RedisLink *link, const char *why, const char *detail)
{
	if (++link->unreachable < link->socket.addresses)
	{
		redis_link_connect(link);
		return;
	}
	link->unreachable = 0;
	fail(link, why, detail);
}

static void
fail(RedisLink *link, const char *why, const char *detail)
{
	char		text[200];

	snprintf(text, sizeof(text), "%s%s%s", why, detail ? ": " : "", detail ? detail : "");
	close_link(link);
	link->events.down(link->events.arg, link, text);
}

static bool
read_password(const char *path, char *out, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t		len = -1;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & (S_IRWXO | S_IWGRP)))
		len = read(fd, out, size - 1);
	close(fd);
	while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == '\r'))
		len--;
	if (len <= 0)
		return false;
	out[len] = '\0';
	return true;
}

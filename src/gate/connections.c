/*
 * connections.c
 *		Who is connected to one loop, and who takes too long.
 *
 * evhttp's own timeout is of silence, so a client that sends a byte now and then would keep its connection for
 * ever; here a request must have arrived as a whole, and its answer been taken, within the time. evhttp does not say when it has closed a
 * connection, but then it takes its callbacks off the bufferevent, which we keep a reference to. Until that is given back the bufferevent has its
 * descriptor, which closes with it: otherwise the next connection could get the same one, and the old bufferevent would read from it.
 * It is given back a sweep later than it was found closed: the loop (worker.c) tells the kernel only at its next turn which
 * descriptors it has done with, and until then nobody else may get them.
 *
 * evhttp limits headers and bodies, but not what a client sends meanwhile: while an answer is on its way, while requests come faster than
 * they are answered, or where the length of a chunk should end. So reading stops when as much has been read as the largest request needs.
 */
#include "gate/connections.h"

#include <event2/buffer.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "node/sessauth.h"

#define SWEEP_MS	100

typedef struct Connection
{
	struct Connection *next;
	struct bufferevent *bev;
	int64_t		since;			/* of the first byte of a request that was not answered yet; 0: none under way */
	bool		closed;			/* by evhttp, as of the last look */
} Connection;

struct Connections
{
	struct event_base *base;
	struct event *sweep;
	Connection *first;
	int64_t		patience;		/* us */
	size_t		unread_max;
	atomic_size_t count;
	atomic_size_t *total;
};

static void on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg);
static void on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg);
static void on_sweep(evutil_socket_t fd, short what, void *arg);
static bool was_closed(const Connection *connection);
static bool is_over(Connection *connection);
static void forget(Connections *connections, Connection **link);
static void hang_up(Connection *connection);

Connections *
connections_new(struct event_base *base, int idle_s, size_t unread_max, atomic_size_t *total)
{
	Connections *connections = calloc(1, sizeof(*connections));
	struct timeval tv = {0, SWEEP_MS * 1000};

	if (connections == NULL)
		return NULL;
	connections->base = base;
	connections->total = total;
	connections->patience = (int64_t) idle_s * 1000000;
	connections->unread_max = unread_max;
	connections->sweep = event_new(base, -1, EV_PERSIST, on_sweep, connections);
	if (connections->sweep == NULL || event_add(connections->sweep, &tv) != 0)
	{
		connections_free(connections);
		return NULL;
	}
	return connections;
}

void
connections_free(Connections *connections)
{
	if (connections == NULL)
		return;
	while (connections->first)
		forget(connections, &connections->first);
	if (connections->sweep)
		event_free(connections->sweep);
	free(connections);
}

struct bufferevent *
connections_add(Connections *connections)
{
	Connection *connection = calloc(1, sizeof(*connection));
	struct bufferevent *bev = connection ? bufferevent_socket_new(connections->base, -1, BEV_OPT_CLOSE_ON_FREE) : NULL;

	if (bev == NULL ||
		evbuffer_add_cb(bufferevent_get_input(bev), on_input, connection) == NULL ||
		evbuffer_add_cb(bufferevent_get_output(bev), on_output, connection) == NULL)
	{
		if (bev)
			bufferevent_free(bev);
		free(connection);
		return NULL;
	}
	bufferevent_setwatermark(bev, EV_READ, 0, connections->unread_max);
	bufferevent_incref(bev);
	connection->bev = bev;
	connection->next = connections->first;
	connections->first = connection;
	atomic_fetch_add(&connections->count, 1);
	atomic_fetch_add(connections->total, 1);
	return bev;
}

size_t
connections_count(const Connections *connections)
{
	return atomic_load(&connections->count);
}

size_t
connections_total(const Connections *connections)
{
	return atomic_load(connections->total);
}

size_t
connections_close_idle(Connections *connections)
{
	for (Connection *connection = connections->first; connection; connection = connection->next)
		if (!was_closed(connection) && connection->since == 0 && evbuffer_get_length(bufferevent_get_output(connection->bev)) == 0)
			hang_up(connection);
	return connections_count(connections);
}

static void
on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	Connection *connection = arg;

	(void) buffer;
	if (info->n_added > 0 && connection->since == 0)
		connection->since = sessauth_now();
}

static void
on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	Connection *connection = arg;

	/* An answer that nobody takes leaves the request under way, and one taken may leave the next request, which came with the last. */
	if (info->n_deleted > 0 && evbuffer_get_length(buffer) == 0)
		connection->since = evbuffer_get_length(bufferevent_get_input(connection->bev)) > 0 ? sessauth_now() : 0;
}

static void
on_sweep(evutil_socket_t fd, short what, void *arg)
{
	Connections *connections = arg;
	Connection **link = &connections->first;
	int64_t		now = sessauth_now();

	(void) fd;
	(void) what;
	while (*link)
	{
		if (is_over(*link))
		{
			forget(connections, link);
			continue;
		}
		if ((*link)->since != 0 && now - (*link)->since > connections->patience)
			hang_up(*link);
		link = &(*link)->next;
	}
}

static bool
was_closed(const Connection *connection)
{
	bufferevent_data_cb read;
	bufferevent_data_cb write;
	bufferevent_event_cb event;
	void	   *arg;

	/* Between its making and evhttp's taking it there is no turn of the loop, so no callbacks means: not any more. */
	bufferevent_getcb(connection->bev, &read, &write, &event, &arg);
	return read == NULL && write == NULL && event == NULL;
}

/* It was closed, and the loop has turned since: only the sweep may ask, which comes once in a turn. */
static bool
is_over(Connection *connection)
{
	bool		before = connection->closed;

	connection->closed = was_closed(connection);
	return before;
}

static void
forget(Connections *connections, Connection **link)
{
	Connection *connection = *link;

	*link = connection->next;
	evbuffer_remove_cb(bufferevent_get_input(connection->bev), on_input, connection);
	evbuffer_remove_cb(bufferevent_get_output(connection->bev), on_output, connection);
	bufferevent_decref(connection->bev);
	free(connection);
	atomic_fetch_sub(&connections->count, 1);
	atomic_fetch_sub(connections->total, 1);
}

/* evhttp is told of the end of the stream, and closes. It would not find it by itself while reading stands still, or the client goes on sending. */
static void
hang_up(Connection *connection)
{
	(void) shutdown(bufferevent_getfd(connection->bev), SHUT_RDWR);
	bufferevent_trigger_event(connection->bev, BEV_EVENT_READING | BEV_EVENT_EOF, 0);
}

/*
 * sse.c
 *		/revocations: a ring of the last revocations, and clients that read along.
 *
 * The library's thread puts into the ring and wakes the loop; everything else happens in the loop, and what takes long without the lock, for which the
 * library's thread waits while it holds up the node's own news. A
 * client that falls behind by a ring, or comes back with an id that is no longer in it, is told that it missed something; one that does not
 * read is cut off, and may come back.
 */
#include "gate/sse.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate/gate.h"

#define RING			8192
#define CLIENTS_MAX		1024
#define KEEP_ALIVE_S	15
#define WRITE_TIMEOUT_S	30
#define UNREAD_MAX		(1024 * 1024)
#define ID_SIZE			64
#define BATCH			64		/* copied under one lock */

typedef struct Client
{
	struct Client *next;
	Sse		   *sse;
	struct evhttp_request *request;
	uint64_t	cursor;			/* of the next revocation for it */
	bool		missed;			/* has to be told so */
	char		tenant[129];	/* empty: all */
} Client;

struct Sse
{
	int			pipe[2];
	struct event *wake;
	struct event *keep_alive;
	Client	   *clients;
	atomic_size_t count;
	SessauthRevocation batch[BATCH];

	pthread_mutex_t lock;		/* for the ring */
	uint64_t	end;			/* revocations that were put in so far */
	SessauthRevocation ring[RING];
};

static void on_wake(evutil_socket_t fd, short what, void *arg);
static void on_keep_alive(evutil_socket_t fd, short what, void *arg);
static void on_closed(struct evhttp_connection *connection, void *arg);
static bool read_tenant(struct evhttp_request *request, char *out, size_t size);
static void last_id(const Sse *sse, const SessauthStatus *status, char out[ID_SIZE]);
static void resume(Sse *sse, Client *client, const SessauthStatus *status, const char *id);
static bool is_unnumbered(const SessauthRevocation *revocation);
static void deliver(Client *client);
static size_t take_batch(Client *client);
static void write_event(const Client *client, const SessauthRevocation *revocation, struct evbuffer *out);
static void send_text(Client *client, struct evbuffer *text);
static void cut_off(Client *client);
static void forget(Client *client);

Sse *
sse_new(struct event_base *base)
{
	Sse		   *sse = calloc(1, sizeof(*sse));
	struct timeval tv = {KEEP_ALIVE_S, 0};

	if (sse == NULL)
		return NULL;
	pthread_mutex_init(&sse->lock, NULL);
	if (pipe(sse->pipe) != 0)
	{
		free(sse);
		return NULL;
	}
	for (int i = 0; i < 2; i++)
	{
		evutil_make_socket_nonblocking(sse->pipe[i]);
		evutil_make_socket_closeonexec(sse->pipe[i]);
	}
	sse->wake = event_new(base, sse->pipe[0], EV_READ | EV_PERSIST, on_wake, sse);
	sse->keep_alive = event_new(base, -1, EV_PERSIST, on_keep_alive, sse);
	if (!sse->wake || !sse->keep_alive || event_add(sse->wake, NULL) != 0 || event_add(sse->keep_alive, &tv) != 0)
	{
		sse_free(sse);
		return NULL;
	}
	return sse;
}

void
sse_free(Sse *sse)
{
	if (sse == NULL)
		return;
	sse_close_all(sse);
	if (sse->wake)
		event_free(sse->wake);
	if (sse->keep_alive)
		event_free(sse->keep_alive);
	close(sse->pipe[0]);
	close(sse->pipe[1]);
	pthread_mutex_destroy(&sse->lock);
	free(sse);
}

void
sse_push(Sse *sse, const SessauthRevocation *revocation)
{
	pthread_mutex_lock(&sse->lock);
	sse->ring[sse->end++ % RING] = *revocation;
	pthread_mutex_unlock(&sse->lock);

	/* A full pipe means that the loop is about to look anyhow. */
	if (write(sse->pipe[1], "s", 1) != 1)
		return;
}

void
sse_serve(Sse *sse, SessauthNode *node, struct evhttp_request *request)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	struct timeval write_timeout = {WRITE_TIMEOUT_S, 0};
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	Client	   *client = calloc(1, sizeof(*client));
	SessauthStatus status;
	char		known[ID_SIZE];
	uint64_t	end;
	struct evbuffer *text = evbuffer_new();
	bool		asks_well = client && read_tenant(request, client->tenant, sizeof(client->tenant));

	if (client == NULL || text == NULL || !asks_well || sse->count >= CLIENTS_MAX)
	{
		if (client && !asks_well)
			evhttp_send_error(request, 400, "Bad Request");
		else
			evhttp_send_error(request, 503, "Service Unavailable");
		free(client);
		if (text)
			evbuffer_free(text);
		return;
	}
	client->sse = sse;
	client->request = request;

	/* In this order: what is applied meanwhile is told, and does not count as known already. */
	sessauth_status(node, &status);
	pthread_mutex_lock(&sse->lock);
	client->cursor = end = sse->end;
	last_id(sse, &status, known);
	pthread_mutex_unlock(&sse->lock);
	resume(sse, client, &status, evhttp_find_header(evhttp_request_get_input_headers(request), "Last-Event-ID"));
	client->next = sse->clients;
	sse->clients = client;
	sse->count++;

	evhttp_add_header(headers, "Content-Type", "text/event-stream");
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Accel-Buffering", "no");
	evhttp_connection_set_closecb(connection, on_closed, client);
	bufferevent_set_timeouts(evhttp_connection_get_bufferevent(connection), NULL, &write_timeout);
	evhttp_send_reply_start(request, 200, "OK");
	if (known[0] != '\0' && !client->missed && client->cursor == end)
		evbuffer_add_printf(text, "id: %s\n", known);
	evbuffer_add_printf(text, "event: connected\ndata: {}\n\n");
	send_text(client, text);
	evbuffer_free(text);
	deliver(client);
}

void
sse_close_all(Sse *sse)
{
	while (sse && sse->clients)
		cut_off(sse->clients);
}

size_t
sse_clients(const Sse *sse)
{
	return sse ? sse->count : 0;
}

/*
 * "tenant=" and an id, percent-encoded, or nothing. False for everything else: a filter that was misunderstood must not let all pass. A plus
 * is a plus, as in the headers of /auth.
 */
static bool
read_tenant(struct evhttp_request *request, char *out, size_t size)
{
	static const char name[] = "tenant=";
	const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(request));
	char	   *tenant;
	size_t		len;
	bool		ok;

	if (query == NULL)
		return true;
	if (strncmp(query, name, strlen(name)) != 0 || strpbrk(query, "&;") != NULL)
		return false;
	tenant = evhttp_uridecode(query + strlen(name), 0, &len);
	ok = tenant != NULL && len > 0 && len < size && strlen(tenant) == len;
	if (ok)
		memcpy(out, tenant, len + 1);
	free(tenant);
	return ok;
}

/* With the lock held: the last that was put in with a number, or as long as there was none, what the node knew. */
static void
last_id(const Sse *sse, const SessauthStatus *status, char out[ID_SIZE])
{
	out[0] = '\0';
	if (status->generation[0] != '\0')
		snprintf(out, ID_SIZE, "%s:%lld", status->generation, (long long) status->applied);
	for (uint64_t i = sse->end; i > 0 && i + RING > sse->end; i--)
	{
		const SessauthRevocation *revocation = &sse->ring[(i - 1) % RING];

		if (revocation->kind == SESSAUTH_KIND_MISSED || is_unnumbered(revocation))
			continue;
		snprintf(out, ID_SIZE, "%s:%lld", revocation->generation, (long long) revocation->n);
		return;
	}
}

/*
 * From the revocation after this id, if it is still known; what was pushed last and was all there is, counts too. What
 * came without a number after that is told again: the client cannot say whether it has heard it.
 */
static void
resume(Sse *sse, Client *client, const SessauthStatus *status, const char *id)
{
	const char *colon;
	size_t		len;
	int64_t		n;
	char		known[ID_SIZE];
	bool		found = false;

	if (id == NULL || id[0] == '\0')
		return;
	colon = strchr(id, ':');
	len = colon ? (size_t) (colon - id) : 0;
	n = colon ? strtoll(colon + 1, NULL, 10) : 0;
	pthread_mutex_lock(&sse->lock);
	for (uint64_t i = sse->end; i > 0 && i + RING > sse->end && !found; i--)
	{
		const SessauthRevocation *revocation = &sse->ring[(i - 1) % RING];

		/* The text of the number only where the rest is right: it takes long, and the library's thread waits. */
		if (revocation->kind == SESSAUTH_KIND_MISSED || len == 0 || strlen(revocation->generation) != len ||
			memcmp(revocation->generation, id, len) != 0 || revocation->n != n)
			continue;
		snprintf(known, sizeof(known), "%s:%lld", revocation->generation, (long long) revocation->n);
		found = strcmp(known, id) == 0;
		if (found)
			client->cursor = i;
	}
	snprintf(known, sizeof(known), "%s:%lld", status->generation, (long long) status->applied);
	if (!found && status->generation[0] != '\0' && strcmp(known, id) == 0)
	{
		found = true;
		while (client->cursor > 0 && client->cursor + RING > sse->end && is_unnumbered(&sse->ring[(client->cursor - 1) % RING]))
			client->cursor--;
	}
	pthread_mutex_unlock(&sse->lock);
	client->missed = !found;
}

static bool
is_unnumbered(const SessauthRevocation *revocation)
{
	return revocation->kind != SESSAUTH_KIND_MISSED && revocation->generation[0] == '\0';
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	Sse		   *sse = arg;
	char		bytes[256];

	(void) what;
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
	for (Client *client = sse->clients, *next; client; client = next)
	{
		next = client->next;
		deliver(client);
	}
}

static void
on_keep_alive(evutil_socket_t fd, short what, void *arg)
{
	Sse		   *sse = arg;
	struct evbuffer *text = evbuffer_new();

	(void) fd;
	(void) what;
	for (Client *client = sse->clients, *next; client && text; client = next)
	{
		next = client->next;
		evbuffer_add_printf(text, ": keep-alive\n\n");
		send_text(client, text);
	}
	if (text)
		evbuffer_free(text);
}

static void
deliver(Client *client)
{
	Sse		   *sse = client->sse;
	struct evbuffer *text = evbuffer_new();

	size_t		count;

	if (text == NULL)
		return;
	do
	{
		count = take_batch(client);
		if (client->missed)
			evbuffer_add_printf(text, "event: missed\ndata: {}\n\n");
		client->missed = false;
		for (size_t i = 0; i < count; i++)
			write_event(client, &sse->batch[i], text);
	} while (count == BATCH);
	if (evbuffer_get_length(text) > 0)
		send_text(client, text);
	evbuffer_free(text);
}

/* The next ones for it, and whether it has missed some before those. */
static size_t
take_batch(Client *client)
{
	Sse		   *sse = client->sse;
	size_t		count = 0;

	pthread_mutex_lock(&sse->lock);
	if (sse->end - client->cursor > RING)
	{
		client->missed = true;
		client->cursor = sse->end - RING;
	}
	for (; count < BATCH && client->cursor < sse->end; client->cursor++)
		sse->batch[count++] = sse->ring[client->cursor % RING];
	pthread_mutex_unlock(&sse->lock);
	return count;
}

/* A key has no tenant: it may have signed anybody's tokens. */
static void
write_event(const Client *client, const SessauthRevocation *revocation, struct evbuffer *out)
{
	static const char *const kinds[] = {"session", "user", "tenant", "key"};
	json_t	   *object;
	char	   *json;

	if (revocation->kind == SESSAUTH_KIND_MISSED)
	{
		evbuffer_add_printf(out, "event: missed\ndata: {\"before\":%lld}\n\n", (long long) revocation->at);
		return;
	}
	if (client->tenant[0] != '\0' && revocation->tid[0] != '\0' && strcmp(client->tenant, revocation->tid) != 0)
		return;
	object = json_pack("{s:s}", "kind", kinds[revocation->kind]);
	if (revocation->tid[0] != '\0')
		json_object_set_new(object, "tenant", json_string(revocation->tid));
	if (revocation->uid[0] != '\0')
		json_object_set_new(object, "user", json_string(revocation->uid));
	if (revocation->sid[0] != '\0')
		json_object_set_new(object, "session", json_string(revocation->sid));
	if (revocation->kid[0] != '\0')
		json_object_set_new(object, "kid", json_string(revocation->kid));
	if (revocation->epoch != 0)
		json_object_set_new(object, "epoch", json_integer(revocation->epoch));
	json_object_set_new(object, "at", json_integer(revocation->at));
	json = json_dumps(object, JSON_COMPACT);
	if (json && !is_unnumbered(revocation))
		evbuffer_add_printf(out, "id: %s:%lld\n", revocation->generation, (long long) revocation->n);
	if (json)
		evbuffer_add_printf(out, "event: revoked\ndata: %s\n\n", json);
	else
		evbuffer_add_printf(out, "event: missed\ndata: {}\n\n");
	free(json);
	json_decref(object);
}

/* Empties text. */
static void
send_text(Client *client, struct evbuffer *text)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(client->request);

	if (evbuffer_get_length(bufferevent_get_output(evhttp_connection_get_bufferevent(connection))) > UNREAD_MAX)
	{
		evbuffer_drain(text, evbuffer_get_length(text));
		cut_off(client);
		return;
	}
	evhttp_send_reply_chunk(client->request, text);
}

static void
on_closed(struct evhttp_connection *connection, void *arg)
{
	Client	   *client = arg;

	(void) connection;
	reply_to_nobody(client->request);
	forget(client);
}

static void
cut_off(Client *client)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(client->request);

	evhttp_connection_set_closecb(connection, NULL, NULL);
	forget(client);
	evhttp_connection_free(connection);
}

static void
forget(Client *client)
{
	Client	  **link = &client->sse->clients;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	client->sse->count--;
	free(client);
}

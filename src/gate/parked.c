/*
 * parked.c
 *		Requests that wait for a refresh of the keys, because their token names a
 *		key that nobody has heard of: for a bounded time and in bounded number.
 */
#include <stdlib.h>

#include "gate/gate.h"

#define PARKED_MAX			256
#define PARKED_US			2000000

typedef struct Parked
{
	struct Parked *next;
	Worker	   *worker;
	struct evhttp_request *request;
	int64_t		arrived;
	struct event *timer;
} Parked;

static void unpark(Parked *parked, bool may_wait);
static void on_too_long(evutil_socket_t fd, short what, void *arg);
static void on_closed(struct evhttp_connection *connection, void *arg);

bool
park(Worker *worker, struct evhttp_request *request, int64_t arrived)
{
	int64_t		left = arrived + PARKED_US - sessauth_now();
	struct timeval tv;
	Parked	   *parked;

	if (left <= 0 || worker->parked_count >= PARKED_MAX)
		return false;
	parked = calloc(1, sizeof(*parked));
	if (parked == NULL)
		return false;
	parked->worker = worker;
	parked->request = request;
	parked->arrived = arrived;
	parked->timer = evtimer_new(worker->base, on_too_long, parked);
	if (parked->timer == NULL)
	{
		free(parked);
		return false;
	}
	tv.tv_sec = left / 1000000;
	tv.tv_usec = left % 1000000;
	evtimer_add(parked->timer, &tv);
	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_closed, parked);
	parked->next = worker->parked;
	worker->parked = parked;
	worker->parked_count++;
	return true;
}

void
unpark_all(Worker *worker, bool may_wait)
{
	Parked	   *parked = worker->parked;

	while (parked)
	{
		Parked	   *next = parked->next;

		unpark(parked, may_wait);
		parked = next;
	}
}

/* Takes the request out and decides it; a request whose client has gone is only taken out. */
static void
unpark(Parked *parked, bool may_wait)
{
	Parked	  **link = &parked->worker->parked;

	while (*link != parked)
		link = &(*link)->next;
	*link = parked->next;
	parked->worker->parked_count--;
	event_free(parked->timer);
	if (parked->request)
	{
		evhttp_connection_set_closecb(evhttp_request_get_connection(parked->request), NULL, NULL);
		(void) endpoints_decide(parked->worker, parked->request, parked->arrived, may_wait);
	}
	free(parked);
}

static void
on_too_long(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	unpark(arg, false);
}

static void
on_closed(struct evhttp_connection *connection, void *arg)
{
	Parked	   *parked = arg;

	(void) connection;
	reply_to_nobody(parked->request);
	parked->request = NULL;
	unpark(parked, false);
}

/*
 * asked.c
 *		Requests whose token the node cannot decide alone, so that others are asked about it.
 *
 * The answer comes in a thread of the library; it is put on the worker's list, and the worker replies. Who has been asked always
 * answers, so what belongs to a request lives until then, also when its client has gone.
 */
#include <stdlib.h>

#include "gate/gate.h"

typedef struct Asked
{
	struct Asked *next;			/* of those that the worker waits for */
	struct Asked **link;
	struct Asked *next_answer;
	Worker	   *worker;
	struct evhttp_request *request; /* NULL: its client has gone, or the worker has ended */
	int64_t		arrived;
	SessauthDecision decision;
} Asked;

static void on_answered(void *arg, const SessauthDecision *decision);
static void on_closed(struct evhttp_connection *connection, void *arg);
static Asked *take_answers(Worker *worker);
static void forget(Asked *asked);

/* False when nobody is asked; then *decision is the last word. */
bool
ask(Worker *worker, struct evhttp_request *request, int64_t arrived, const char *token, size_t len, SessauthDecision *decision)
{
	Asked	   *asked = malloc(sizeof(*asked));

	if (asked == NULL)
		return false;
	*asked = (Asked) {.worker = worker, .request = request, .arrived = arrived};
	if (!sessauth_ask(worker->gate->node, token, len, arrived, decision, on_answered, asked))
	{
		free(asked);
		return false;
	}

	/* The answer may have come already; but only this thread looks for it. */
	asked->next = worker->asked;
	asked->link = &worker->asked;
	if (asked->next)
		asked->next->link = &asked->next;
	worker->asked = asked;
	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_closed, asked);
	return true;
}

void
asked_reply(Worker *worker)
{
	Asked	   *asked = take_answers(worker);

	while (asked)
	{
		Asked	   *next = asked->next_answer;

		if (asked->request)
		{
			evhttp_connection_set_closecb(evhttp_request_get_connection(asked->request), NULL, NULL);
			endpoints_answer(worker, asked->request, asked->arrived, &asked->decision);
		}
		forget(asked);
		free(asked);
		asked = next;
	}
}

void
asked_abandon(Worker *worker)
{
	asked_reply(worker);
	for (Asked *asked = worker->asked; asked; asked = asked->next)
	{
		if (asked->request)
			evhttp_connection_set_closecb(evhttp_request_get_connection(asked->request), NULL, NULL);
		asked->request = NULL;
	}
}

void
asked_free(Worker *worker)
{
	Asked	   *asked = take_answers(worker);

	while (asked)
	{
		Asked	   *next = asked->next_answer;

		free(asked);
		asked = next;
	}
}

/* In a thread of the library. */
static void
on_answered(void *arg, const SessauthDecision *decision)
{
	Asked	   *asked = arg;
	Worker	   *worker = asked->worker;
	bool		first;

	asked->decision = *decision;
	pthread_mutex_lock(&worker->answers_lock);
	first = worker->answers == NULL;
	asked->next_answer = worker->answers;
	worker->answers = asked;
	pthread_mutex_unlock(&worker->answers_lock);
	if (first)
		worker_tell(worker, 'a');
}

static void
on_closed(struct evhttp_connection *connection, void *arg)
{
	Asked	   *asked = arg;

	(void) connection;
	reply_to_nobody(asked->request);
	asked->request = NULL;
}

static Asked *
take_answers(Worker *worker)
{
	Asked	   *asked;

	pthread_mutex_lock(&worker->answers_lock);
	asked = worker->answers;
	worker->answers = NULL;
	pthread_mutex_unlock(&worker->answers_lock);
	return asked;
}

static void
forget(Asked *asked)
{
	*asked->link = asked->next;
	if (asked->next)
		asked->next->link = asked->link;
}

/*
 * resolver.c
 *		The addresses of a host. See resolver.h.
 */
#include "postgres.h"

#include <ares.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "access/xact.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "worker/resolver.h"

/* One that is silent must leave time to ask the next, and to connect, before the deadline of the link. */
#define ASK_TIMEOUT_MS	500
#define ASK_ROUNDS		2
#define READY_MAX		8

struct Resolver
{
	ares_channel channel;
	int			epoll;			/* of the sockets that c-ares has open: one descriptor stands for all in the worker's wait set */
	bool		answered;
	int			status;			/* ARES_... once it has answered */
	AddressList *found;
};

static void socket_changed(void *arg, ares_socket_t fd, int readable, int writable);
static void answer(void *arg, int status, int timeouts, struct ares_addrinfo *result);

Resolver *
resolver_begin(const char *host, const char *port, AddressList *found, const char **why)
{
	Resolver   *resolver = MemoryContextAllocZero(TopMemoryContext, sizeof(Resolver));
	struct ares_options options = {
		.timeout = ASK_TIMEOUT_MS, .tries = ASK_ROUNDS,
		.sock_state_cb = socket_changed, .sock_state_cb_data = resolver
	};
	struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NUMERICSERV};
	int			status;

	Assert(!IsTransactionState());
	found->count = 0;
	resolver->found = found;
	resolver->epoll = epoll_create1(EPOLL_CLOEXEC);
	status = resolver->epoll < 0 ? ARES_ENOMEM :
		ares_init_options(&resolver->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
	if (status != ARES_SUCCESS)
	{
		*why = ares_strerror(status);
		resolver->channel = NULL;
		resolver_end(resolver);
		return NULL;
	}
	ares_getaddrinfo(resolver->channel, host, port, &hints, answer, resolver);
	return resolver;
}

ResolverProgress
resolver_progress(Resolver *resolver, const char **why)
{
	struct epoll_event ready[READY_MAX];
	int			count = epoll_wait(resolver->epoll, ready, READY_MAX, 0);

	ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);	/* what has waited too long */
	for (int i = 0; i < count; i++)
		ares_process_fd(resolver->channel, ready[i].events & ~EPOLLOUT ? ready[i].data.fd : ARES_SOCKET_BAD,
						ready[i].events & EPOLLOUT ? ready[i].data.fd : ARES_SOCKET_BAD);
	if (!resolver->answered)
		return RESOLVER_WAIT;
	if (resolver->found->count > 0)
		return RESOLVER_DONE;
	*why = ares_strerror(resolver->status == ARES_SUCCESS ? ARES_ENODATA : resolver->status);
	return RESOLVER_FAILED;
}

int
resolver_fd(const Resolver *resolver)
{
	return resolver->epoll;
}

Instant
resolver_next_event(const Resolver *resolver)
{
	struct timeval wait;

	if (resolver->answered)
		return 0;
	if (ares_timeout(resolver->channel, NULL, &wait) == NULL)
		return INSTANT_NEVER;
	return clock_boot() + wait.tv_sec * USECS_PER_SEC + wait.tv_usec;
}

/* c-ares closes its sockets and calls back, for the last time, before this returns. */
void
resolver_end(Resolver *resolver)
{
	if (resolver->channel)
		ares_destroy(resolver->channel);
	if (resolver->epoll >= 0)
		close(resolver->epoll);
	pfree(resolver);
}

/* Waits for neither: it is about to be closed. */
static void
socket_changed(void *arg, ares_socket_t fd, int readable, int writable)
{
	Resolver   *resolver = arg;
	struct epoll_event event = {.events = (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0), .data.fd = fd};

	if (event.events == 0)
	{
		if (epoll_ctl(resolver->epoll, EPOLL_CTL_DEL, fd, NULL) == 0)
			ReleaseExternalFD();
	}
	else if (epoll_ctl(resolver->epoll, EPOLL_CTL_MOD, fd, &event) != 0 && epoll_ctl(resolver->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
		ReserveExternalFD();
}

static void
answer(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
	Resolver   *resolver = arg;
	AddressList *found = resolver->found;

	resolver->answered = true;
	resolver->status = status;
	for (struct ares_addrinfo_node *node = result ? result->nodes : NULL; node && found->count < RESOLVER_ADDRESSES_MAX; node = node->ai_next)
	{
		Address    *item = &found->items[found->count];

		if (node->ai_addrlen > sizeof(item->address))
			continue;
		memcpy(&item->address, node->ai_addr, node->ai_addrlen);
		item->len = node->ai_addrlen;
		found->count++;
	}
	if (result)
		ares_freeaddrinfo(result);
}

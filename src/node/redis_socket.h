/*
 * redis_socket.h
 *		The bytes under a link: a socket in an event loop, with TLS or without.
 */
#ifndef SESSAUTH_NODE_REDIS_SOCKET_H
#define SESSAUTH_NODE_REDIS_SOCKET_H

#include <event2/bufferevent.h>

#include "core/redis_url.h"
#include "core/tls.h"

typedef struct RedisSocket
{
	struct bufferevent *bev;	/* NULL: closed */
	SaTls	   *tls;			/* NULL: none */
	unsigned int attempt;		/* goes through the addresses of the host */
	unsigned int addresses;		/* how many there were at the last try */
	char		error[200];		/* why the last function failed */
} RedisSocket;

/*
 * Starts to connect; false when that failed at once. Names are resolved here and may block. The callbacks are
 * bufferevent's; after BEV_EVENT_CONNECTED, and whenever something has arrived until it is done, call socket_secure.
 */
extern bool socket_open(RedisSocket *sock, struct event_base *base, const SaRedisUrl *url,
						bufferevent_data_cb on_read, bufferevent_event_cb on_event, void *arg);
extern void socket_close(RedisSocket *sock);

typedef enum SocketProgress
{
	SOCKET_DONE,
	SOCKET_WAIT,				/* for the server */
	SOCKET_FAILED				/* see error; only socket_close may follow */
} SocketProgress;

/* Goes on agreeing on TLS; without it, there is nothing to do. */
extern SocketProgress socket_secure(RedisSocket *sock);

/* Done: *len bytes, at least one, have arrived. */
extern SocketProgress socket_read(RedisSocket *sock, char *out, size_t size, size_t *len);

/* False when memory is short; with TLS, the socket can then only be closed. */
extern bool socket_write(RedisSocket *sock, const void *bytes, size_t len);

/* After an error of the socket: what the server has said about it by way of TLS, or NULL. Lives as long as sock. */
extern const char *socket_last_words(RedisSocket *sock);

#endif							/* SESSAUTH_NODE_REDIS_SOCKET_H */

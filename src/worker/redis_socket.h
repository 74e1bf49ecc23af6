/*
 * redis_socket.h
 *		The bytes under a link: a socket that never blocks, with TLS or without.
 */
#ifndef SESSAUTH_WORKER_REDIS_SOCKET_H
#define SESSAUTH_WORKER_REDIS_SOCKET_H

#include "core/redis_url.h"
#include "core/tls.h"
#include "worker/resolver.h"

#define SOCKET_ERROR_SIZE 256

typedef struct RedisSocket
{
	pgsocket	fd;				/* or the resolver's, while there is one */
	uint64		serial;			/* of the descriptor: its number may be used again at once. 0: closed */
	bool		fd_counted;		/* AcquireExternalFD was called for it */
	bool		connected;		/* to the server; TLS may still be under way */
	SaTls	   *tls;			/* NULL: none */
	Resolver   *resolver;		/* NULL: the addresses are known */
	AddressList addresses;
	int			tried;			/* of them, by this connect */
	unsigned int attempt;		/* goes through them, over all connects until one succeeds: which is dead, only a deadline may tell */
	char		error[SOCKET_ERROR_SIZE];	/* why the last function failed */
} RedisSocket;

/* All zero is a closed socket but for the descriptor. */
extern void socket_init(RedisSocket *sock);

/* Starts to connect; false when that failed at once. */
extern bool socket_open(RedisSocket *sock, const SaRedisUrl *url);
extern void socket_close(RedisSocket *sock);

typedef enum SocketProgress
{
	SOCKET_DONE,
	SOCKET_WAIT,				/* for the server */
	SOCKET_FAILED				/* see error; only socket_close may follow */
} SocketProgress;

/* Goes on connecting. */
extern SocketProgress socket_connect(RedisSocket *sock);

/* Sends from *sent on and moves it. Not done: call again when the socket is writable. */
extern SocketProgress socket_send(RedisSocket *sock, const char *bytes, int len, int *sent);

/* Done: *len bytes, at least one, have arrived. */
extern SocketProgress socket_receive(RedisSocket *sock, char *out, size_t size, size_t *len);

/* Bytes of TLS itself wait for the socket to be writable. */
extern bool socket_has_output(const RedisSocket *sock);

/* What to wait for while connecting: WL_SOCKET_*, and when to go on although nothing has come. */
extern int	socket_connect_events(const RedisSocket *sock);
extern Instant socket_connect_next_event(const RedisSocket *sock);

#endif							/* SESSAUTH_WORKER_REDIS_SOCKET_H */

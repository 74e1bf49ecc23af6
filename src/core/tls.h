/*
 * tls.h
 *		The client's side of a TLS connection, as bytes in and bytes out.
 *
 * Who owns the socket feeds what it has received and sends what is there to be sent; nothing here blocks,
 * waits or knows a file descriptor. Worker and node move bytes in different ways and so share this one.
 *
 * The server's certificate must lead to a trusted CA and be made out to the host: its name, or its address
 * when the host is one. TLS 1.2 is the oldest version.
 */
#ifndef SESSAUTH_CORE_TLS_H
#define SESSAUTH_CORE_TLS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct SaTls SaTls;

typedef struct SaTlsOptions
{
	const char *host;
	const char *ca_file;		/* PEM; empty: the system's CAs */
	const char *cert_file;		/* PEM, the chain behind it; empty: none */
	const char *key_file;		/* PEM, unencrypted, not readable by others */
} SaTlsOptions;

typedef enum SaTlsStep
{
	SA_TLS_DONE,
	SA_TLS_WAIT,				/* for bytes from the server */
	SA_TLS_FAILED				/* sa_tls_error says why */
} SaTlsStep;

/* Reads the files, every time: new ones count from the next connection on. NULL when that fails; why is in error. */
extern SaTls *sa_tls_new(const SaTlsOptions *options, char *error, size_t size);
extern void sa_tls_free(SaTls *tls);	/* NULL is fine */

/* Bytes that the server has sent. False when out of memory. */
extern bool sa_tls_feed(SaTls *tls, const void *bytes, size_t len);

/* Goes as far as the bytes that were fed allow; once done, it is over. There may be bytes to send after any outcome. */
extern SaTlsStep sa_tls_handshake(SaTls *tls);

/* After the handshake. Reading fills *len when done; fed bytes may hold more than one reading takes. */
extern SaTlsStep sa_tls_read(SaTls *tls, void *out, size_t size, size_t *len);
extern bool sa_tls_write(SaTls *tls, const void *bytes, size_t len);

/* Bytes to send to the server, until the next call of any of these; say how many are gone. */
extern size_t sa_tls_output(SaTls *tls, const char **bytes);
extern void sa_tls_sent(SaTls *tls, size_t len);

/* Why the last step failed: one line without secrets. Lives as long as tls. */
extern const char *sa_tls_error(const SaTls *tls);

#endif							/* SESSAUTH_CORE_TLS_H */

/*
 * credentials.h
 *		Where the token is in a request.
 */
#ifndef SESSAUTH_GATE_CREDENTIALS_H
#define SESSAUTH_GATE_CREDENTIALS_H

#include <event2/http.h>
#include <stddef.h>

/*
 * The token of the Authorization header (RFC 6750, section 2.1), or else of the cookie of that name (NULL: none is looked
 * for). NULL with *problem NULL: there is no token; with *problem: it is not clear which. Points into the request.
 */
extern const char *credentials_token(struct evhttp_request *request, const char *cookie, size_t *len, const char **problem);

#endif							/* SESSAUTH_GATE_CREDENTIALS_H */

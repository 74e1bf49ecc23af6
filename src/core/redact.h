/*
 * redact.h
 *		Finding tokens in a text that somebody is about to log, and taking them out.
 *
 * What counts as a token:
 *	a refresh token: "sar_A" and so on (core/refresh.h), also when its end is cut off;
 *	a JWS in compact form: "eyJ", ".eyJ" and the rest, also when its signature is cut off.
 *
 * A refresh token that is cut short before REFRESH_MIN characters says no more than a part of its
 * session's id, and stays. The text may be of any encoding whose bytes below 128 are ASCII.
 */
#ifndef SESSAUTH_CORE_REDACT_H
#define SESSAUTH_CORE_REDACT_H

#include <stdbool.h>
#include <stddef.h>

#define SA_REDACTED		"[redacted]"	/* stands after what is left of a token, "sar_" or "eyJ" */

/* True when there is a token in it. Takes time in proportion to len, whatever the text. */
extern bool sa_has_token(const char *text, size_t len);

/* Replaces every token, in place: the text never grows. Returns its new length; writes no NUL, allocates nothing. */
extern size_t sa_redact(char *text, size_t len);

#endif							/* SESSAUTH_CORE_REDACT_H */

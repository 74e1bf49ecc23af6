/*
 * json.h
 *		The one way in which core parses JSON that somebody else wrote.
 *
 * Internal to core: callers outside see bytes, never jansson.
 */
#ifndef SESSAUTH_CORE_JSON_H
#define SESSAUTH_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#define SA_JSON_DEPTH_MAX	32	/* objects and arrays within each other */

/*
 * Parses one JSON object: no duplicate members, nothing after it, no NUL in a
 * string, at most SA_JSON_DEPTH_MAX deep. NULL otherwise, and then *no_memory
 * (unless NULL) says whether the text is to blame. The caller frees with json_decref.
 */
extern json_t *sa_json_object(const char *text, size_t len, bool *no_memory);

/* True when the text nests deeper than SA_JSON_DEPTH_MAX; the text need not be valid JSON. */
extern bool sa_json_too_deep(const char *text, size_t len);

/* The string that the member is, and its length; NULL when it is missing or no string. */
extern const char *sa_json_string(const json_t *object, const char *name, size_t *len);

/* The object as compact text in malloc'ed memory; NULL when there is none. */
extern char *sa_json_text(const json_t *object);

#endif							/* SESSAUTH_CORE_JSON_H */

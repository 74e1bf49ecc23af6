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

typedef enum SaJsonResult
{
	SA_JSON_OK,
	SA_JSON_INVALID,			/* or, rarely, jansson ran out of memory: see json.c */
	SA_JSON_NO_OBJECT,			/* but another value */
	SA_JSON_DUPLICATE,			/* two members of one object have the same name, however they are escaped */
	SA_JSON_NUMBER,				/* an integer beyond 64 bits, or a real beyond what a double can be */
	SA_JSON_TOO_DEEP,
	SA_JSON_NO_MEMORY			/* nothing is known about the text */
} SaJsonResult;

/*
 * Parses one JSON object with nothing after it and no NUL in it, written or escaped.
 * Sets *object, NULL unless SA_JSON_OK; the caller frees with json_decref.
 */
extern SaJsonResult sa_json_object(const char *text, size_t len, json_t **object);

/* The string that the member is, and its length; NULL when it is missing or no string. */
extern const char *sa_json_string(const json_t *object, const char *name, size_t *len);

/* True when the value is a string of exactly these characters; the value may be NULL. */
extern bool sa_json_equals(const json_t *value, const char *text);

/*
 * Writes the object as compact text without a NUL and returns its length; 0
 * when there is no object, no memory, or more than size bytes to write.
 */
extern size_t sa_json_dump(const json_t *object, size_t flags, char *out, size_t size);

/* The same in malloc'ed memory, with a NUL; NULL when there is no object or no memory. */
extern char *sa_json_text(const json_t *object);

#endif							/* SESSAUTH_CORE_JSON_H */

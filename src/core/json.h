/*
 * json.h
 *		A strict JSON reader over caller-owned bytes (RFC 8259), and a small writer. Internal to core.
 *
 * It allocates nothing, so that "no memory" can never look like "malformed"
 * and log somebody out, and it never converts a number that nobody asked for,
 * so that the caller's own claims keep every digit.
 */
#ifndef SESSAUTH_CORE_JSON_H
#define SESSAUTH_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SA_JSON_DEPTH_MAX	32	/* objects and arrays within each other */
#define SA_JSON_NAMES_MAX	512 /* members of all objects that are open at one place */

typedef enum SaJsonResult
{
	SA_JSON_OK,
	SA_JSON_INVALID,			/* grammar, UTF-8, half a surrogate, NUL in a string, something after the value */
	SA_JSON_DUPLICATE,			/* two members of one object have the same name, however they are escaped */
	SA_JSON_TOO_DEEP,
	SA_JSON_TOO_MANY			/* members */
} SaJsonResult;

/* The text of one value, without white space around it. Strings keep their quotes and escapes. */
typedef struct SaJson
{
	const char *at;
	size_t		len;
} SaJson;

/*
 * Checks a whole text, with at most names_max (up to SA_JSON_NAMES_MAX) members, and sets *value. Everything
 * below may be used on values that passed here, and only on them.
 */
extern SaJsonResult sa_json_check(const char *text, size_t len, size_t names_max, SaJson *value);

extern bool sa_json_is_object(SaJson value);
extern bool sa_json_is_array(SaJson value);
extern bool sa_json_is_string(SaJson value);

/*
 * Walks an object or array: start with *rest = the value, go on while true. For an array, name is not
 * set and may be NULL.
 */
extern bool sa_json_next(SaJson *rest, SaJson *name, SaJson *value);

/* The member of an object with this name; false also when it is no object. */
extern bool sa_json_member(SaJson object, const char *name, SaJson *value);

/* True when the value is a string of exactly these characters. */
extern bool sa_json_equals(SaJson value, const char *text);

/* True when two strings have the same characters, however they are escaped. */
extern bool sa_json_same(SaJson a, SaJson b);

/* Copies a string, unescaped, with a NUL after it; false when it is no string or does not fit in size bytes. */
extern bool sa_json_string(SaJson value, char *out, size_t size, size_t *len);

/* An integer as it stands: no fraction, no exponent, within int64. */
extern bool sa_json_integer(SaJson value, int64_t *out);

/* Writes into a buffer; once something did not fit, full is set and nothing more is written. */
typedef struct SaJsonWriter
{
	char	   *out;
	size_t		size;
	size_t		len;
	bool		full;
} SaJsonWriter;

extern void sa_json_begin(SaJsonWriter *writer, char *out, size_t size);
extern void sa_json_add_string(SaJsonWriter *writer, const char *name, const char *text);
extern void sa_json_add_integer(SaJsonWriter *writer, const char *name, int64_t number);

/* Closes the object. The length of the whole text, 0 when it did not fit. Writes no NUL. */
extern size_t sa_json_end(SaJsonWriter *writer);

#endif							/* SESSAUTH_CORE_JSON_H */

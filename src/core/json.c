/*
 * json.c
 *		The one way in which core parses JSON that somebody else wrote.
 *
 * The depth is checked before jansson sees the text: its own limit (2048) is
 * recursion on the stack of whoever called us, and a limit that differs
 * between library versions would let two nodes disagree on a token. NULs are
 * looked for as well, because jansson overlooks one after a number.
 *
 * jansson 2.14 does not always say that an allocation failed. Where it keeps
 * silent, or says "out of memory", we answer SA_JSON_NO_MEMORY. When its buffer
 * cannot grow once, it even drops a byte of a string and goes on, which would
 * make one tenant out of another. So what it made must give the text again when it is written, as it
 * does for all that we and other compact writers have made, or else be what a second reading makes.
 *
 * A known limit remains: when it gets no memory for a string it may
 * report a syntax error, and a good token then looks malformed for that one call.
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "wire_text.h"

#define WRITTEN_MAX		2048

static bool is_same_text(const json_t *json, const char *text, size_t len);
static bool is_plainly(const json_t *json, const char **at, const char *end);
static bool pass(const char **at, const char *end, const char *text, size_t len);
static bool pass_string(const char **at, const char *end, const char *text, size_t len);
static bool is_same_again(const json_t *json, const char *text, size_t len);
static SaJsonResult load(const char *text, size_t len, json_t **json);
static bool too_deep(const char *text, size_t len);

SaJsonResult
sa_json_object(const char *text, size_t len, json_t **object)
{
	SaJsonResult result;

	*object = NULL;
	if (len == 0 || memchr(text, '\0', len) != NULL)
		return SA_JSON_INVALID;
	if (too_deep(text, len))
		return SA_JSON_TOO_DEEP;

	result = load(text, len, object);
	if (result != SA_JSON_OK)
		return result;
	if (!is_same_text(*object, text, len) && !is_same_again(*object, text, len))
		result = SA_JSON_NO_MEMORY;
	else if (!json_is_object(*object))
		result = SA_JSON_NO_OBJECT;
	if (result != SA_JSON_OK)
	{
		json_decref(*object);
		*object = NULL;
	}
	return result;
}

static bool
is_same_text(const json_t *json, const char *text, size_t len)
{
	char		written[WRITTEN_MAX];
	const char *at = text;

	if (is_plainly(json, &at, text + len) && at == text + len)
		return true;
	return len <= sizeof(written) && json_dumpb(json, written, sizeof(written), JSON_COMPACT | JSON_ENCODE_ANY) == len &&
		memcmp(written, text, len) == 0;
}

/*
 * Whether it would be written as what is at *at, which then is behind it. False, too, when that is not plain to see, as for what has escapes. Writing it
 * was a fortieth of what a new token costs.
 */
static bool
is_plainly(const json_t *json, const char **at, const char *end)
{
	char		digits[SA_NUMBER_SIZE];

	switch (json_typeof(json))
	{
		case JSON_OBJECT:
			for (void *member = json_object_iter((json_t *) json), *first = member; member; member = json_object_iter_next((json_t *) json, member))
			{
				const char *name = json_object_iter_key(member);

				if (!pass(at, end, member == first ? "{" : ",", 1) || !pass_string(at, end, name, strlen(name)) || !pass(at, end, ":", 1) ||
					!is_plainly(json_object_iter_value(member), at, end))
					return false;
			}
			return json_object_size(json) > 0 && pass(at, end, "}", 1);
		case JSON_STRING:
			return pass_string(at, end, json_string_value(json), json_string_length(json));
		case JSON_INTEGER:
			return pass(at, end, digits, sa_number_write(json_integer_value(json), digits));
		default:
			return false;
	}
}

static bool
pass(const char **at, const char *end, const char *text, size_t len)
{
	if ((size_t) (end - *at) < len || memcmp(*at, text, len) != 0)
		return false;
	*at += len;
	return true;
}

/* One without escapes. */
static bool
pass_string(const char **at, const char *end, const char *text, size_t len)
{
	return memchr(text, '\\', len) == NULL && memchr(text, '"', len) == NULL &&
		pass(at, end, "\"", 1) && pass(at, end, text, len) && pass(at, end, "\"", 1);
}

static bool
is_same_again(const json_t *json, const char *text, size_t len)
{
	json_t	   *again;
	bool		same;

	(void) load(text, len, &again);
	same = again != NULL && json_equal(json, again);
	json_decref(again);
	return same;
}

/* JSON_DECODE_ANY only serves to tell what is no object from what is no JSON. */
static SaJsonResult
load(const char *text, size_t len, json_t **json)
{
	/* All zero is json_error_unknown: jansson leaves it at that when it fails without a word. */
	json_error_t error = {0};

	*json = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (*json != NULL)
		return SA_JSON_OK;
	switch (json_error_code(&error))
	{
		case json_error_unknown:
		case json_error_out_of_memory:
			return SA_JSON_NO_MEMORY;
		case json_error_duplicate_key:
			return SA_JSON_DUPLICATE;
		case json_error_numeric_overflow:
			return SA_JSON_NUMBER;
		default:
			return SA_JSON_INVALID;
	}
}

/* Counts brackets outside strings. The text need not be valid JSON: up to its first error this agrees with jansson. */
static bool
too_deep(const char *text, size_t len)
{
	int			depth = 0;
	bool		in_string = false;

	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (in_string)
		{
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		}
		else if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
		{
			if (++depth > SA_JSON_DEPTH_MAX)
				return true;
		}
		else if (c == '}' || c == ']')
			depth--;			/* below 0 only in what is no JSON */
	}
	return false;
}

const char *
sa_json_string(const json_t *object, const char *name, size_t *len)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_string(value))
		return NULL;
	*len = json_string_length(value);
	return json_string_value(value);
}

bool
sa_json_equals(const json_t *value, const char *text)
{
	return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

size_t
sa_json_dump(const json_t *object, size_t flags, char *out, size_t size)
{
	size_t		len = object ? json_dumpb(object, out, size, JSON_COMPACT | flags) : 0;

	return len <= size ? len : 0;
}

/* Not json_dumps: its memory belongs to whatever allocator the host program gave jansson. */
char *
sa_json_text(const json_t *object)
{
	size_t		size = object ? json_dumpb(object, NULL, 0, JSON_COMPACT) : 0;
	char	   *text = size > 0 ? malloc(size + 1) : NULL;

	if (text == NULL)
		return NULL;
	if (sa_json_dump(object, 0, text, size) != size)
	{
		free(text);
		return NULL;
	}
	text[size] = '\0';
	return text;
}

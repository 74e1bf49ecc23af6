/*
 * json.c
 *		The one way in which core parses JSON that somebody else wrote.
 *
 * The depth is checked before jansson sees the text: its own limit (2048) is
 * recursion on the stack of whoever called us, and a limit that differs
 * between library versions would let two nodes disagree on a token.
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"

json_t *
sa_json_object(const char *text, size_t len, bool *no_memory)
{
	json_error_t error;
	json_t	   *json;

	if (no_memory != NULL)
		*no_memory = false;
	if (sa_json_too_deep(text, len))
		return NULL;

	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (json == NULL)
	{
		if (no_memory != NULL)
			*no_memory = json_error_code(&error) == json_error_out_of_memory;
		return NULL;
	}
	if (!json_is_object(json))
	{
		json_decref(json);
		return NULL;
	}
	return json;
}

bool
sa_json_too_deep(const char *text, size_t len)
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

/* Not json_dumps: its memory belongs to whatever allocator the host program gave jansson. */
char *
sa_json_text(const json_t *object)
{
	size_t		size = json_dumpb(object, NULL, 0, JSON_COMPACT);
	char	   *text;

	if (size == 0)
		return NULL;
	text = malloc(size + 1);
	if (text == NULL)
		return NULL;
	if (json_dumpb(object, text, size, JSON_COMPACT) != size)
	{
		free(text);
		return NULL;
	}
	text[size] = '\0';
	return text;
}

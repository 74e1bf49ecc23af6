/*
 * json_write.c
 *		Writes one flat JSON object into a buffer.
 *
 * Its own little thing rather than a library for the reason of json.c: it
 * cannot run out of memory.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

static void put(SaJsonWriter *writer, const char *text, size_t len);
static void put_name(SaJsonWriter *writer, const char *name);
static void put_string(SaJsonWriter *writer, const char *text);

void
sa_json_begin(SaJsonWriter *writer, char *out, size_t size)
{
	writer->out = out;
	writer->size = size;
	writer->len = 0;
	writer->full = false;
	put(writer, "{", 1);
}

void
sa_json_add_string(SaJsonWriter *writer, const char *name, const char *text)
{
	put_name(writer, name);
	put_string(writer, text);
}

void
sa_json_add_integer(SaJsonWriter *writer, const char *name, int64_t number)
{
	char		text[24];
	int			len = snprintf(text, sizeof(text), "%" PRId64, number);

	put_name(writer, name);
	put(writer, text, (size_t) len);
}

size_t
sa_json_end(SaJsonWriter *writer)
{
	put(writer, "}", 1);
	return writer->full ? 0 : writer->len;
}

static void
put_name(SaJsonWriter *writer, const char *name)
{
	if (writer->len > 1)
		put(writer, ",", 1);
	put_string(writer, name);
	put(writer, ":", 1);
}

/* Whether it is UTF-8 is for the caller to know. */
static void
put_string(SaJsonWriter *writer, const char *text)
{
	put(writer, "\"", 1);
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c == '"' || c == '\\')
		{
			put(writer, "\\", 1);
			put(writer, text, 1);
		}
		else if (c < 0x20)
		{
			char		escape[8];

			(void) snprintf(escape, sizeof(escape), "\\u%04x", c);
			put(writer, escape, 6);
		}
		else
			put(writer, text, 1);
	}
	put(writer, "\"", 1);
}

static void
put(SaJsonWriter *writer, const char *text, size_t len)
{
	if (writer->full || writer->size - writer->len < len)
	{
		writer->full = true;
		return;
	}
	memcpy(writer->out + writer->len, text, len);
	writer->len += len;
}

/*
 * json.c
 *		Reading values out of JSON that was checked.
 *
 * Values are spans of the text, and walking them may take valid JSON for
 * granted: json_check.c has seen it. The writer is in json_write.c.
 */
#include <string.h>

#include "encoding.h"
#include "json.h"

/* Reads a string character by character, escapes resolved, as UTF-8. */
typedef struct Letters
{
	const char *p;
	const char *end;
	unsigned char bytes[4];
	int			nbytes;
	int			next;
} Letters;

static const char *skip_space(const char *p, const char *end);
static const char *skip_value(const char *p, const char *end);
static const char *skip_string(const char *p, const char *end);
static void letters_start(Letters *letters, SaJson string);
static int	letters_next(Letters *letters);
static unsigned letters_unit(const char *hex);
static int	letters_encode(Letters *letters, unsigned code);

bool
sa_json_is_object(SaJson value)
{
	return value.at[0] == '{';
}

bool
sa_json_is_array(SaJson value)
{
	return value.at[0] == '[';
}

bool
sa_json_is_string(SaJson value)
{
	return value.at[0] == '"';
}

/* rest starts at a bracket or comma, and ends with the closing bracket. */
bool
sa_json_next(SaJson *rest, SaJson *name, SaJson *value)
{
	const char *end = rest->at + rest->len;
	bool		object = end[-1] == '}';
	const char *p;

	if (rest->len < 2)
		return false;
	p = skip_space(rest->at + 1, end);
	if (p == end - 1)
		return false;
	if (object)
	{
		const char *start = p;

		p = skip_string(p, end);
		if (name != NULL)
		{
			name->at = start;
			name->len = (size_t) (p - start);
		}
		p = skip_space(skip_space(p, end) + 1, end);
	}
	value->at = p;
	p = skip_value(p, end);
	value->len = (size_t) (p - value->at);
	p = skip_space(p, end);
	rest->at = p;
	rest->len = (size_t) (end - p);
	return true;
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

static const char *
skip_value(const char *p, const char *end)
{
	int			depth = 0;

	while (p < end)
	{
		char		c = *p;

		if (c == '"')
			p = skip_string(p, end);
		else if (c == '{' || c == '[')
		{
			depth++;
			p++;
			continue;
		}
		else if (c == '}' || c == ']')
		{
			depth--;
			p++;
		}
		else if (c == ',' || c == ':' || skip_space(p, end) != p)
		{
			p++;
			continue;
		}
		else
		{
			/* A number or word. */
			while (p < end && strchr(",:]} \t\n\r", *p) == NULL)
				p++;
		}
		if (depth == 0)
			break;
	}
	return p;
}

static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
	{
		if (*p == '\\')
			p++;
	}
	return p < end ? p + 1 : end;
}

bool
sa_json_member(SaJson object, const char *name, SaJson *value)
{
	SaJson		rest = object;
	SaJson		found = {"", 0};

	if (!sa_json_is_object(object))
		return false;
	while (sa_json_next(&rest, &found, value))
	{
		if (sa_json_equals(found, name))
			return true;
	}
	return false;
}

bool
sa_json_equals(SaJson value, const char *text)
{
	Letters		letters;
	int			letter;

	if (!sa_json_is_string(value))
		return false;
	letters_start(&letters, value);
	while ((letter = letters_next(&letters)) >= 0)
	{
		/* No letter is NUL, so the end of text differs from every one. */
		if (letter != (unsigned char) *text)
			return false;
		text++;
	}
	return *text == '\0';
}

bool
sa_json_same(SaJson a, SaJson b)
{
	Letters		of_a;
	Letters		of_b;
	int			letter;

	letters_start(&of_a, a);
	letters_start(&of_b, b);
	do
	{
		letter = letters_next(&of_a);
		if (letter != letters_next(&of_b))
			return false;
	} while (letter >= 0);
	return true;
}

bool
sa_json_string(SaJson value, char *out, size_t size, size_t *len)
{
	Letters		letters;
	int			letter;
	size_t		n = 0;

	if (!sa_json_is_string(value))
		return false;
	letters_start(&letters, value);
	while ((letter = letters_next(&letters)) >= 0)
	{
		if (n + 1 >= size)
			return false;
		out[n++] = (char) letter;
	}
	if (n >= size)
		return false;
	out[n] = '\0';
	*len = n;
	return true;
}

static void
letters_start(Letters *letters, SaJson string)
{
	letters->p = string.at + 1;
	letters->end = string.at + string.len - 1;
	letters->nbytes = 0;
	letters->next = 0;
}

/* The next byte of the string, -1 at its end. */
static int
letters_next(Letters *letters)
{
	unsigned	unit;
	unsigned	low;
	char		c;

	if (letters->next < letters->nbytes)
		return letters->bytes[letters->next++];
	if (letters->p == letters->end)
		return -1;
	c = *letters->p++;
	if (c != '\\')
		return (unsigned char) c;

	c = *letters->p++;
	switch (c)
	{
		case 'b':
			return '\b';
		case 'f':
			return '\f';
		case 'n':
			return '\n';
		case 'r':
			return '\r';
		case 't':
			return '\t';
		case 'u':
			break;
		default:
			return (unsigned char) c;
	}
	unit = letters_unit(letters->p);
	letters->p += 4;
	if (unit >= 0xd800 && unit <= 0xdbff)
	{
		low = letters_unit(letters->p + 2);
		letters->p += 6;
		unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
	}
	return letters_encode(letters, unit);
}

static unsigned
letters_unit(const char *hex)
{
	unsigned char bytes[2] = {0, 0};

	(void) sa_hex_decode(hex, 4, bytes, sizeof(bytes));
	return (unsigned) bytes[0] << 8 | bytes[1];
}

/* Sets the UTF-8 bytes of a character and returns the first. */
static int
letters_encode(Letters *letters, unsigned code)
{
	unsigned char *b = letters->bytes;

	if (code < 0x80)
		return (int) code;
	if (code < 0x800)
	{
		letters->nbytes = 2;
		b[0] = (unsigned char) (0xc0 | code >> 6);
	}
	else if (code < 0x10000)
	{
		letters->nbytes = 3;
		b[0] = (unsigned char) (0xe0 | code >> 12);
		b[1] = (unsigned char) (0x80 | (code >> 6 & 0x3f));
	}
	else
	{
		letters->nbytes = 4;
		b[0] = (unsigned char) (0xf0 | code >> 18);
		b[1] = (unsigned char) (0x80 | (code >> 12 & 0x3f));
		b[2] = (unsigned char) (0x80 | (code >> 6 & 0x3f));
	}
	b[letters->nbytes - 1] = (unsigned char) (0x80 | (code & 0x3f));
	letters->next = 1;
	return b[0];
}

bool
sa_json_integer(SaJson value, int64_t *out)
{
	bool		negative = value.at[0] == '-';
	int64_t		number = 0;

	for (size_t i = negative ? 1 : 0; i < value.len; i++)
	{
		int			digit = value.at[i] - '0';

		if (digit < 0 || digit > 9)
			return false;
		/* Counted below zero, where there is room for one more. */
		if (number < (INT64_MIN + digit) / 10)
			return false;
		number = number * 10 - digit;
	}
	if (!negative && number == INT64_MIN)
		return false;
	*out = negative ? number : -number;
	return true;
}

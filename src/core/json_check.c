/*
 * json_check.c
 *		Whether a text is strict JSON.
 *
 * One pass checks it all (grammar, UTF-8, depth, duplicate names), so that
 * json.c may take valid JSON for granted. All bounds are small and fixed: a text
 * from a stranger costs at most a few hundred thousand byte comparisons.
 */
#include <string.h>

#include "encoding.h"
#include "json.h"

typedef struct Name
{
	SaJson		text;
	bool		escaped;
} Name;

typedef struct Check
{
	const char *p;
	const char *end;
	int			depth;
	size_t		nnames;			/* of all objects that are open; those of the innermost come last */
	size_t		names_max;
	Name		names[SA_JSON_NAMES_MAX];
} Check;

static SaJsonResult check_value(Check *check);
static SaJsonResult check_object(Check *check);
static SaJsonResult check_array(Check *check);
static SaJsonResult check_name(Check *check, size_t first);
static bool check_string(Check *check, bool *escaped);
static bool check_escape(Check *check);
static bool check_hex4(const char *p, const char *end, unsigned *unit);
static bool check_number(Check *check);
static bool check_digits(Check *check);
static bool check_word(Check *check, const char *word);
static void check_space(Check *check);

SaJsonResult
sa_json_check(const char *text, size_t len, size_t names_max, SaJson *value)
{
	Check		check;
	const char *start;
	const char *stop;
	SaJsonResult result;

	check.p = text;
	check.end = text + len;
	check.depth = 0;
	check.nnames = 0;
	check.names_max = names_max < SA_JSON_NAMES_MAX ? names_max : SA_JSON_NAMES_MAX;

	if (!sa_text_is_utf8(text, len))
		return SA_JSON_INVALID;
	check_space(&check);
	start = check.p;
	result = check_value(&check);
	if (result != SA_JSON_OK)
		return result;
	stop = check.p;
	check_space(&check);
	if (check.p != check.end)
		return SA_JSON_INVALID;
	value->at = start;
	value->len = (size_t) (stop - start);
	return SA_JSON_OK;
}

static SaJsonResult
check_value(Check *check)
{
	bool		escaped;
	bool		good;

	if (check->p == check->end)
		return SA_JSON_INVALID;
	switch (*check->p)
	{
		case '{':
			return check_object(check);
		case '[':
			return check_array(check);
		case '"':
			good = check_string(check, &escaped);
			break;
		case 't':
			good = check_word(check, "true");
			break;
		case 'f':
			good = check_word(check, "false");
			break;
		case 'n':
			good = check_word(check, "null");
			break;
		default:
			good = check_number(check);
			break;
	}
	return good ? SA_JSON_OK : SA_JSON_INVALID;
}

static SaJsonResult
check_object(Check *check)
{
	size_t		first = check->nnames;
	SaJsonResult result;

	if (++check->depth > SA_JSON_DEPTH_MAX)
		return SA_JSON_TOO_DEEP;
	check->p++;
	check_space(check);
	if (!check_word(check, "}"))
	{
		for (;;)
		{
			result = check_name(check, first);
			if (result != SA_JSON_OK)
				return result;
			check_space(check);
			if (!check_word(check, ":"))
				return SA_JSON_INVALID;
			check_space(check);
			result = check_value(check);
			if (result != SA_JSON_OK)
				return result;
			check_space(check);
			if (check_word(check, "}"))
				break;
			if (!check_word(check, ","))
				return SA_JSON_INVALID;
			check_space(check);
		}
	}
	check->nnames = first;
	check->depth--;
	return SA_JSON_OK;
}

static SaJsonResult
check_array(Check *check)
{
	SaJsonResult result;

	if (++check->depth > SA_JSON_DEPTH_MAX)
		return SA_JSON_TOO_DEEP;
	check->p++;
	check_space(check);
	if (!check_word(check, "]"))
	{
		for (;;)
		{
			result = check_value(check);
			if (result != SA_JSON_OK)
				return result;
			check_space(check);
			if (check_word(check, "]"))
				break;
			if (!check_word(check, ","))
				return SA_JSON_INVALID;
			check_space(check);
		}
	}
	check->depth--;
	return SA_JSON_OK;
}

/* A member's name, which must differ from those since first. */
static SaJsonResult
check_name(Check *check, size_t first)
{
	Name	   *name;

	if (check->p == check->end || *check->p != '"')
		return SA_JSON_INVALID;
	if (check->nnames == check->names_max)
		return SA_JSON_TOO_MANY;
	name = &check->names[check->nnames];
	name->text.at = check->p;
	if (!check_string(check, &name->escaped))
		return SA_JSON_INVALID;
	name->text.len = (size_t) (check->p - name->text.at);
	for (size_t i = first; i < check->nnames; i++)
	{
		const Name *other = &check->names[i];

		/* Most names have no escapes, and then bytes are enough. */
		if (name->escaped || other->escaped ? sa_json_same(name->text, other->text) :
			name->text.len == other->text.len && memcmp(name->text.at, other->text.at, name->text.len) == 0)
			return SA_JSON_DUPLICATE;
	}
	check->nnames++;
	return SA_JSON_OK;
}

static bool
check_string(Check *check, bool *escaped)
{
	*escaped = false;
	for (check->p++; check->p < check->end; check->p++)
	{
		if (*check->p == '"')
		{
			check->p++;
			return true;
		}
		if ((unsigned char) *check->p < 0x20)
			return false;
		if (*check->p == '\\')
		{
			*escaped = true;
			if (!check_escape(check))
				return false;
		}
	}
	return false;
}

/* Ends on the last character of the escape. U+0000 is refused: C strings would end there. */
static bool
check_escape(Check *check)
{
	unsigned	unit;
	unsigned	low;

	check->p++;
	if (check->p == check->end)
		return false;
	if (*check->p != 'u')
		return *check->p != '\0' && strchr("\"\\/bfnrt", *check->p) != NULL;

	if (!check_hex4(check->p + 1, check->end, &unit) || unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
		return false;
	check->p += 4;
	if (unit < 0xd800 || unit > 0xdbff)
		return true;

	/* The other half of the surrogate must follow. */
	if (check->end - check->p < 7 || check->p[1] != '\\' || check->p[2] != 'u' ||
		!check_hex4(check->p + 3, check->end, &low) || low < 0xdc00 || low > 0xdfff)
		return false;
	check->p += 6;
	return true;
}

static bool
check_hex4(const char *p, const char *end, unsigned *unit)
{
	unsigned char bytes[2];

	if (end - p < 4 || !sa_hex_decode(p, 4, bytes, 2))
		return false;
	*unit = (unsigned) bytes[0] << 8 | bytes[1];
	return true;
}

static bool
check_number(Check *check)
{
	(void) check_word(check, "-");
	if (!check_word(check, "0") && !check_digits(check))
		return false;
	if (check_word(check, ".") && !check_digits(check))
		return false;
	if (check_word(check, "e") || check_word(check, "E"))
	{
		if (!check_word(check, "+"))
			(void) check_word(check, "-");
		if (!check_digits(check))
			return false;
	}
	return true;
}

static bool
check_digits(Check *check)
{
	const char *start = check->p;

	while (check->p < check->end && *check->p >= '0' && *check->p <= '9')
		check->p++;
	return check->p > start;
}

/* Steps over the word if it is next. */
static bool
check_word(Check *check, const char *word)
{
	size_t		len = strlen(word);

	if ((size_t) (check->end - check->p) < len || memcmp(check->p, word, len) != 0)
		return false;
	check->p += len;
	return true;
}

static void
check_space(Check *check)
{
	while (check->p < check->end &&
		   (*check->p == ' ' || *check->p == '\t' || *check->p == '\n' || *check->p == '\r'))
		check->p++;
}

/*
 * token_header.c
 *		The header of a token: the strict reader, and the writer.
 *
 * Nearly every header that comes was written here, so those are known by their bytes. That saves
 * a request with a new token a good part of what is not the signature itself.
 */
#include "token_header.h"

#include <string.h>
#include <strings.h>

#include "encoding.h"
#include "json.h"

static bool is_as_written(const char *text, size_t len, SaAlg *alg, char *kid, size_t kidsize);
static bool is_b64url(char c);
static const char *behind(const char *text, const char *end, const char *expected);
static bool is_at_jwt(const json_t *header);

SaTokenResult
sa_token_header_read(const char *text, size_t len, SaAlg *alg, char *kid, size_t kidsize)
{
	json_t	   *header;
	const char *value;
	bool		ok;

	if (is_as_written(text, len, alg, kid, kidsize))
		return SA_TOKEN_OK;
	switch (sa_json_object(text, len, &header))
	{
		case SA_JSON_OK:
			break;
		case SA_JSON_NO_MEMORY:
			return SA_TOKEN_ERROR;
		default:
			return SA_TOKEN_MALFORMED;
	}
	value = sa_json_string(header, "alg", &len);
	ok = value != NULL && sa_alg_parse(value, len, alg) &&
		json_object_get(header, "crit") == NULL &&
		is_at_jwt(header);
	if (ok)
	{
		value = sa_json_string(header, "kid", &len);
		ok = value != NULL && len > 0 && len < kidsize && sa_text_is_clean(value, len);
		if (ok)
			memcpy(kid, value, len + 1);
	}
	json_decref(header);
	return ok ? SA_TOKEN_OK : SA_TOKEN_MALFORMED;
}

/* Byte for byte, with a kid in which nothing could mean anything else. */
static bool
is_as_written(const char *text, size_t len, SaAlg *alg, char *kid, size_t kidsize)
{
	static const SaAlg algs[] = {SA_ALG_ES256, SA_ALG_EDDSA, SA_ALG_RS256};
	const char *end = text + len;

	for (size_t i = 0; i < sizeof(algs) / sizeof(algs[0]); i++)
	{
		const char *name = behind(text, end, "{\"alg\":\"");
		const char *first = behind(behind(name, end, sa_alg_name(algs[i])), end, "\",\"typ\":\"at+jwt\",\"kid\":\"");
		const char *last = first;

		while (last && last < end && is_b64url(*last))
			last++;
		if (last == first || (size_t) (last - first) >= kidsize || behind(last, end, "\"}") != end)
			continue;
		memcpy(kid, first, (size_t) (last - first));
		kid[last - first] = '\0';
		*alg = algs[i];
		return true;
	}
	return false;
}

static bool
is_b64url(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* What comes behind that, or NULL. */
static const char *
behind(const char *text, const char *end, const char *expected)
{
	size_t		len = strlen(expected);

	return text && (size_t) (end - text) >= len && memcmp(text, expected, len) == 0 ? text + len : NULL;
}

static bool
is_at_jwt(const json_t *header)
{
	size_t		len;
	const char *typ = sa_json_string(header, "typ", &len);

	return typ != NULL && (strcasecmp(typ, "at+jwt") == 0 || strcasecmp(typ, "application/at+jwt") == 0);
}

size_t
sa_token_header_write(SaAlg alg, const char *kid, char *out, size_t outsize)
{
	json_t	   *header = json_pack("{s:s, s:s, s:s}",
								   "alg", sa_alg_name(alg),
								   "typ", "at+jwt",
								   "kid", kid);
	size_t		len = sa_json_dump(header, 0, out, outsize);

	json_decref(header);
	return len;
}

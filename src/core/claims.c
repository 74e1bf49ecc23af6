/*
 * claims.c
 *		The caller's own claims inside a token's payload.
 *
 * One list of reserved names decides both what a caller may add and what a
 * reader hands back, so that a claim never comes out under another meaning than it went in.
 * The text is cut and joined by hand, but only after jansson has accepted it: the little
 * scanner below may take valid JSON for granted.
 */
#include <stdlib.h>
#include <string.h>

#include "claims.h"
#include "json.h"
#include "token.h"

/*
 * Registered claims (RFC 7519, RFC 9068), our own, header parameters that a
 * careless reader could take from the payload, and the members of an
 * introspection answer (RFC 7662) that say whether a token is good.
 */
static const char *const reserved[] = {
	"iss", "aud", "sub", "client_id", "jti", "iat", "exp", "nbf",
	"tid", "uid", "sid", "epoch", "tepoch",
	"typ", "cty", "alg", "kid", "crit",
	"active", "token_type"
};

static bool is_reserved(const char *name);
static const char *skip_space(const char *p, const char *end);
static const char *skip_value(const char *p, const char *end);
static const char *skip_string(const char *p, const char *end);

const char *
sa_claims_check(const char *json, size_t len)
{
	json_t	   *claims;
	json_error_t error;
	const char *problem = NULL;
	void	   *iter;

	if (len > SA_CLAIMS_MAX)
		return "claims are too long";
	if (sa_json_too_deep(json, len))
		return "claims are nested too deeply";
	claims = json_loadb(json, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (claims == NULL)
	{
		if (json_error_code(&error) == json_error_duplicate_key)
			return "claims have a duplicate member";
		if (json_error_code(&error) == json_error_numeric_overflow)
			return "claims have a number that is too large";
		return "claims are not valid JSON";
	}
	if (!json_is_object(claims))
		problem = "claims are not a JSON object";
	for (iter = json_object_iter(claims); iter != NULL && problem == NULL; iter = json_object_iter_next(claims, iter))
	{
		if (is_reserved(json_object_iter_key(iter)))
			problem = "claims have a member with a reserved name";
	}
	json_decref(claims);
	return problem;
}

static bool
is_reserved(const char *name)
{
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
	{
		if (strcmp(reserved[i], name) == 0)
			return true;
	}
	return false;
}

size_t
sa_claims_append(const char *claims, size_t claimslen, char *out, size_t len, size_t outsize)
{
	const char *end = claims + claimslen;
	const char *start = skip_space(claims, end) + 1;
	size_t		size;

	start = skip_space(start, end);
	if (*start == '}')
		return len;

	/* The object's own closing brace becomes that of the claims. */
	size = (size_t) (end - start);
	if (len + size > outsize)
		return 0;
	out[len - 1] = ',';
	memcpy(out + len, start, size);
	return len + size;
}

/*
 * Walks the text and the parsed object side by side: jansson keeps members in
 * the order of the text, so the names need not be unescaped again.
 */
bool
sa_claims_extract(const json_t *payload, const char *text, size_t len, char **claims)
{
	const char *end = text + len;
	const char *p = skip_space(text, end) + 1;
	char	   *out = malloc(len + 1);
	size_t		n = 0;

	*claims = NULL;
	if (out == NULL)
		return false;

	/* The cast only drops const: iterating does not change the object. */
	for (void *iter = json_object_iter((json_t *) payload); iter != NULL;
		 iter = json_object_iter_next((json_t *) payload, iter))
	{
		const char *start = skip_space(p, end);
		const char *after;

		after = skip_space(skip_string(start, end), end);
		after = skip_value(skip_space(after + 1, end), end);
		if (!is_reserved(json_object_iter_key(iter)))
		{
			out[n] = n == 0 ? '{' : ',';
			n++;
			memcpy(out + n, start, (size_t) (after - start));
			n += (size_t) (after - start);
		}
		p = skip_space(after, end) + 1;
	}
	if (n == 0)
	{
		free(out);
		return true;
	}
	out[n++] = '}';
	out[n] = '\0';
	*claims = out;
	return true;
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* Past the value that starts at p: up to the comma, brace or bracket that follows it, or white space before that. */
static const char *
skip_value(const char *p, const char *end)
{
	int			depth = 0;

	while (p < end)
	{
		if (*p == '"')
		{
			p = skip_string(p, end);
			if (depth == 0)
				return p;
			continue;
		}
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
		{
			if (depth == 0)
				return p;
			if (--depth == 0)
				return p + 1;
		}
		else if (depth == 0 && (*p == ',' || skip_space(p, end) != p))
			return p;
		p++;
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

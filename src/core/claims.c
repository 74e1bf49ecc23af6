/*
 * claims.c
 *		The caller's own claims inside a token's payload.
 *
 * One list of reserved names decides both what a caller may add and what a
 * reader hands back, so that a claim never comes out under another meaning than it went in.
 * The text is cut and joined as it is.
 */
#include <stdlib.h>
#include <string.h>

#include "claims.h"
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

static bool is_reserved(SaJson name);

const char *
sa_claims_check(const char *json, size_t len)
{
	SaJson		rest;
	SaJson		name;
	SaJson		value;

	if (len > SA_CLAIMS_MAX)
		return "claims are too long";
	switch (sa_json_check(json, len, SA_CLAIMS_NAMES_MAX, &rest))
	{
		case SA_JSON_OK:
			break;
		case SA_JSON_INVALID:
			return "claims are not valid JSON";
		case SA_JSON_DUPLICATE:
			return "claims have a duplicate member";
		case SA_JSON_TOO_DEEP:
			return "claims are nested too deeply";
		case SA_JSON_TOO_MANY:
			return "claims have too many members";
	}
	if (!sa_json_is_object(rest))
		return "claims are not a JSON object";
	while (sa_json_next(&rest, &name, &value))
	{
		if (is_reserved(name))
			return "claims have a member with a reserved name";
	}
	return NULL;
}

static bool
is_reserved(SaJson name)
{
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
	{
		if (sa_json_equals(name, reserved[i]))
			return true;
	}
	return false;
}

size_t
sa_claims_append(const char *claims, size_t claimslen, char *out, size_t len, size_t outsize)
{
	SaJson		object;
	SaJson		rest;
	SaJson		name;
	SaJson		value;
	size_t		size;

	if (sa_json_check(claims, claimslen, SA_CLAIMS_NAMES_MAX, &object) != SA_JSON_OK)
		return 0;
	rest = object;
	if (!sa_json_next(&rest, &name, &value))
		return len;

	/* From the first name on; the object's own closing brace becomes that of the claims. */
	size = (size_t) (object.at + object.len - name.at);
	if (outsize - len < size)
		return 0;
	out[len - 1] = ',';
	memcpy(out + len, name.at, size);
	return len + size;
}

bool
sa_claims_extract(SaJson payload, char **claims)
{
	SaJson		rest = payload;
	SaJson		name;
	SaJson		value;
	char	   *out = malloc(payload.len + 1);
	size_t		n = 0;

	*claims = NULL;
	if (out == NULL)
		return false;
	while (sa_json_next(&rest, &name, &value))
	{
		if (!is_reserved(name))
		{
			size_t		size = (size_t) (value.at + value.len - name.at);

			out[n] = n == 0 ? '{' : ',';
			memcpy(out + n + 1, name.at, size);
			n += 1 + size;
		}
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

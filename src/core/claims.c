/*
 * claims.c
 *		The caller's own claims inside a token's payload.
 *
 * One list of reserved names decides both what a caller may add and what a
 * reader hands back, so that a claim never comes out under another meaning than it went in.
 */
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

#define RESERVED_COUNT	(sizeof(reserved) / sizeof(reserved[0]))

static const char no_memory[] = "no memory to check the claims";

static const char *check_members(json_t *claims);

const char *
sa_claims_check(const char *json, size_t len)
{
	json_t	   *claims;
	const char *problem;

	if (len > SA_CLAIMS_MAX)
		return "claims are too long";
	switch (sa_json_object(json, len, &claims))
	{
		case SA_JSON_OK:
			break;
		case SA_JSON_INVALID:
			return "claims are not valid JSON";
		case SA_JSON_NO_OBJECT:
			return "claims are not a JSON object";
		case SA_JSON_DUPLICATE:
			return "claims have a duplicate member";
		case SA_JSON_NUMBER:
			return "claims have a number that is too large";
		case SA_JSON_TOO_DEEP:
			return "claims are nested too deeply";
		case SA_JSON_NO_MEMORY:
			return no_memory;
	}
	problem = check_members(claims);
	json_decref(claims);
	return problem;
}

/* The length counts once more as it will be in the token, where 0.1 takes 19 bytes. */
static const char *
check_members(json_t *claims)
{
	size_t		len;

	for (size_t i = 0; i < RESERVED_COUNT; i++)
	{
		if (json_object_get(claims, reserved[i]) != NULL)
			return "claims have a member with a reserved name";
	}
	len = json_dumpb(claims, NULL, 0, JSON_COMPACT);
	if (len == 0)
		return no_memory;
	return len > SA_CLAIMS_MAX ? "claims are too long" : NULL;
}

bool
sa_claims_add(json_t *payload, const char *claims)
{
	json_t	   *object;
	json_t	   *value;
	const char *name;
	bool		ok = true;

	if (sa_json_object(claims, strlen(claims), &object) != SA_JSON_OK)
		return false;

	/* Not json_object_update_missing: it does not say when memory was short. */
	json_object_foreach(object, name, value)
	{
		if (json_object_get(payload, name) == NULL && json_object_set(payload, name, value) != 0)
			ok = false;
	}
	json_decref(object);
	return ok;
}

bool
sa_claims_extract(json_t *payload, char **claims)
{
	*claims = NULL;
	for (size_t i = 0; i < RESERVED_COUNT; i++)
		(void) json_object_del(payload, reserved[i]);
	if (json_object_size(payload) == 0)
		return true;
	*claims = sa_json_text(payload);
	return *claims != NULL;
}

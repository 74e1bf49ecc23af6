/*
 * keyset.c
 *		A set of public keys by kid (RFC 7517, section 5).
 *
 * A plain array in the order of the text: a ledger has a handful of keys, and comparing a
 * few lengths is cheaper than hashing the kid would be.
 */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "key.h"
#include "key_internal.h"

#define KEYS_MAX		256
#define TEXT_MAX		((size_t) 256 * 1024)

typedef struct Member
{
	char	   *kid;
	size_t		kidlen;
	SaKey	   *key;
} Member;

struct SaKeySet
{
	size_t		count;
	Member		members[KEYS_MAX];
};

static bool keyset_add(SaKeySet *set, const json_t *jwk);

SaKeySet *
sa_keyset_parse(const char *json, size_t len)
{
	json_t	   *text;
	const json_t *keys;
	SaKeySet   *set = NULL;

	if (len > TEXT_MAX || sa_json_object(json, len, &text) != SA_JSON_OK)
		return NULL;

	keys = json_object_get(text, "keys");
	if (json_is_array(keys) && json_array_size(keys) <= KEYS_MAX)
		set = calloc(1, sizeof(*set));
	for (size_t i = 0; set != NULL && i < json_array_size(keys); i++)
	{
		if (!keyset_add(set, json_array_get(keys, i)))
		{
			sa_keyset_free(set);
			set = NULL;
		}
	}
	json_decref(text);
	return set;
}

/* False when the whole set must be refused; a member that is not for us is only skipped. */
static bool
keyset_add(SaKeySet *set, const json_t *jwk)
{
	Member	   *member = &set->members[set->count];
	const char *kid;
	size_t		kidlen;
	bool		skip;

	if (!json_is_object(jwk))
		return false;
	kid = sa_json_string(jwk, "kid", &kidlen);
	if (kid == NULL || kidlen == 0)
		return true;
	member->key = sa_key_from_jwk_object(jwk, &skip);
	if (member->key == NULL)
		return skip;

	member->kid = malloc(kidlen);
	if (member->kid == NULL || sa_keyset_find(set, kid, kidlen) != NULL)
	{
		free(member->kid);
		sa_key_free(member->key);
		memset(member, 0, sizeof(*member));
		return false;
	}
	memcpy(member->kid, kid, kidlen);
	member->kidlen = kidlen;
	set->count++;
	return true;
}

const SaKey *
sa_keyset_find(const SaKeySet *set, const char *kid, size_t kidlen)
{
	for (size_t i = 0; i < set->count; i++)
	{
		const Member *member = &set->members[i];

		if (member->kidlen == kidlen && memcmp(member->kid, kid, kidlen) == 0)
			return member->key;
	}
	return NULL;
}

size_t
sa_keyset_count(const SaKeySet *set)
{
	return set->count;
}

const char *
sa_keyset_kid(const SaKeySet *set, size_t i, size_t *len)
{
	*len = set->members[i].kidlen;
	return set->members[i].kid;
}

void
sa_keyset_free(SaKeySet *set)
{
	if (set == NULL)
		return;
	for (size_t i = 0; i < set->count; i++)
	{
		free(set->members[i].kid);
		sa_key_free(set->members[i].key);
	}
	free(set);
}

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

static bool keyset_add(SaKeySet *set, SaJson jwk);

SaKeySet *
sa_keyset_parse(const char *json, size_t len)
{
	SaJson		text;
	SaJson		keys;
	SaJson		jwk;
	SaKeySet   *set;
	size_t		seen = 0;

	if (len > TEXT_MAX ||
		sa_json_check(json, len, SA_JSON_NAMES_MAX, &text) != SA_JSON_OK ||
		!sa_json_is_object(text) ||
		!sa_json_member(text, "keys", &keys) ||
		!sa_json_is_array(keys))
		return NULL;

	set = calloc(1, sizeof(*set));
	while (set != NULL && sa_json_next(&keys, NULL, &jwk))
	{
		if (++seen > KEYS_MAX || !keyset_add(set, jwk))
		{
			sa_keyset_free(set);
			set = NULL;
		}
	}
	return set;
}

/* False when the whole set must be refused; a member that is not for us is only skipped. */
static bool
keyset_add(SaKeySet *set, SaJson jwk)
{
	Member	   *member = &set->members[set->count];
	SaJson		kid;
	bool		skip;

	if (!sa_json_is_object(jwk))
		return false;
	if (!sa_json_member(jwk, "kid", &kid) || !sa_json_is_string(kid) || sa_json_equals(kid, ""))
		return true;
	member->key = sa_key_from_jwk_object(jwk, &skip);
	if (member->key == NULL)
		return skip;

	/* Unescaped, the kid is never longer than its text in the JWK. */
	member->kid = malloc(kid.len);
	if (member->kid == NULL ||
		!sa_json_string(kid, member->kid, kid.len, &member->kidlen) ||
		sa_keyset_find(set, member->kid, member->kidlen) != NULL)
	{
		free(member->kid);
		sa_key_free(member->key);
		memset(member, 0, sizeof(*member));
		return false;
	}
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

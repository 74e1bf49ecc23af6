/*
 * found_keys.c
 *		What SCAN, HGETALL and PEXPIRETIME have brought, as keys of ours.
 *
 * Anybody may have written it: a name counts only if it is exactly what we would have written, a value only with its MAC.
 */
#include "postgres.h"

#include "worker/worker.h"

#define FIELDS_MAX	14			/* names and values of a session's key */

static bool read_name(const char *prefix, const char *name, size_t len, FoundKey *out);
static bool decode(const char *text, size_t len, char *out, size_t size);

int
found_names(const char *prefix, const redisReply *names, FoundKey *out)
{
	int			count = 0;

	for (size_t i = 0; i < names->elements; i++)
		if (names->element[i]->type == REDIS_REPLY_STRING &&
			read_name(prefix, names->element[i]->str, names->element[i]->len, &out[count]))
			count++;
	return count;
}

/* False for what is not exactly a name that we would give: it may be anybody's. */
static bool
read_name(const char *prefix, const char *name, size_t len, FoundKey *out)
{
	static const struct
	{
		const char *head;
		KeyItemKind kind;
	}			kinds[] = {{"session:{", KEY_ITEM_SESSION}, {"user_epoch:{", KEY_ITEM_USER}, {"tenant_epoch:{", KEY_ITEM_TENANT}};
	size_t		prefixlen = strlen(prefix);
	char		tid[SA_TENANT_ID_MAX + 1];
	char		uid[SA_USER_ID_MAX + 1] = "";
	char		again[SA_REDIS_KEY_SIZE];

	memset(out, 0, sizeof(*out));
	if (len < prefixlen || memcmp(name, prefix, prefixlen) != 0 || memchr(name, '\0', len) != NULL)
		return false;
	for (int i = 0; i < lengthof(kinds); i++)
	{
		const char *rest = name + prefixlen;
		const char *close;

		if (strncmp(rest, kinds[i].head, strlen(kinds[i].head)) != 0)
			continue;
		out->kind = kinds[i].kind;
		rest += strlen(kinds[i].head);
		close = strchr(rest, '}');
		if (close == NULL || !decode(rest, close - rest, tid, sizeof(tid)))
			return false;
		rest = close + 1 + (close[1] == ':' ? 1 : 0);
		if (out->kind == KEY_ITEM_USER)
		{
			if (!decode(rest, strlen(rest), uid, sizeof(uid)))
				return false;
			sa_name_user_epoch(prefix, tid, strlen(tid), uid, strlen(uid), again);
		}
		else if (out->kind == KEY_ITEM_SESSION)
		{
			strlcpy(out->sid, rest, sizeof(out->sid));
			sa_name_session(prefix, tid, strlen(tid), out->sid, again);
		}
		else
			sa_name_tenant_epoch(prefix, tid, strlen(tid), again);
		if (strcmp(again, name) != 0)
			return false;
		out->name = pstrdup(name);
		out->tid = pstrdup(tid);
		out->uid = out->kind == KEY_ITEM_USER ? pstrdup(uid) : NULL;
		return true;
	}
	return false;
}

/* Percent-encoded text that the ledger could hold. */
static bool
decode(const char *text, size_t len, char *out, size_t size)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (c == '%')
		{
			if (len - i < 3 || !sa_hex_decode(text + i + 1, 2, &c, 1))
				return false;
			i += 2;
		}
		if (n + 1 >= size)
			return false;
		out[n++] = c;
	}
	out[n] = '\0';
	return n > 0 && sa_text_is_clean(out, n);
}

void
found_value(FoundKey *key, const redisReply *reply)
{
	SaField		fields[FIELDS_MAX];
	SaSessionValue session;

	if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "WRONGTYPE", 9) == 0)
	{
		key->exists = true;
		key->maclen = strlen("type");
		memcpy(key->mac, "type", key->maclen);
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return;
	key->exists = true;
	for (size_t i = 0; i < reply->elements; i++)
	{
		const redisReply *element = reply->element[i];

		if (element->type != REDIS_REPLY_STRING)
			return;
		if (i < FIELDS_MAX)
			fields[i] = SA_FIELD(element->str, element->len);
		if (i % 2 == 1 && strcmp(reply->element[i - 1]->str, "m") == 0)
		{
			key->maclen = Min(element->len, sizeof(key->mac));
			memcpy(key->mac, element->str, key->maclen);
		}
	}
	if (reply->elements > FIELDS_MAX)
		return;
	if (key->kind != KEY_ITEM_SESSION)
		key->genuine = sa_epoch_read(mirror_link_key, key->name, fields, reply->elements, &key->epoch);
	else if (sa_session_read(mirror_link_key, key->name, fields, reply->elements, &session))
	{
		key->genuine = true;
		key->version = session.version;
		key->exp = session.exp;
		key->live = session.live;
	}
}

/* -2: it has gone since. An error: a user without the right to ask. */
void
found_expiry(FoundKey *key, const redisReply *reply)
{
	key->timed = reply->type == REDIS_REPLY_INTEGER && reply->integer >= -1;
	key->expires_at = key->timed ? reply->integer : 0;
}

/*
 * wire_keys.c
 *		The mirror protocol: reading the values of keys, as HGETALL gives them.
 */
#include <string.h>

#include "wire.h"
#include "wire_text.h"

static bool take(const SaField *args, size_t nargs, const char *const *names, size_t count, SaField *values);
static bool is_mac(const SaField *value, const char *right);

bool
sa_epoch_read(const unsigned char link[SA_KEY_LEN], const char *key, const SaField *args, size_t nargs, int64_t *epoch)
{
	static const char *const names[] = {"epoch", "m"};
	SaField		values[2];
	char		right[SA_MAC_TEXT_LEN + 1];

	return take(args, nargs, names, 2, values) &&
		sa_number_parse(values[0].data, values[0].len, epoch) &&
		sa_epoch_mac(link, key, *epoch, right) && is_mac(&values[1], right);
}

bool
sa_session_read(const unsigned char link[SA_KEY_LEN], const char *key, const SaField *args, size_t nargs, SaSessionValue *out)
{
	static const char *const names[] = {"uid", "epoch", "tepoch", "exp", "state", "v", "m"};
	SaField		values[7];
	char		right[SA_MAC_TEXT_LEN + 1];

	if (!take(args, nargs, names, 7, values) || values[0].len > SA_USER_ID_MAX ||
		!sa_number_parse(values[1].data, values[1].len, &out->epoch) || !sa_number_parse(values[2].data, values[2].len, &out->tepoch) ||
		!sa_number_parse(values[3].data, values[3].len, &out->exp) || !sa_number_parse(values[5].data, values[5].len, &out->version))
		return false;
	out->live = values[4].len == strlen("active") && memcmp(values[4].data, "active", values[4].len) == 0;
	if (!out->live && (values[4].len != strlen("revoked") || memcmp(values[4].data, "revoked", values[4].len) != 0))
		return false;
	memcpy(out->uid, values[0].data, values[0].len);
	out->uid[values[0].len] = '\0';
	return sa_session_mac(link, key, values[0].data, values[0].len, out->epoch, out->tepoch, out->exp, out->live ? "active" : "revoked",
						  out->version, right) && is_mac(&values[6], right);
}

/* Each of the names once, in any order, and nothing else. */
static bool
take(const SaField *args, size_t nargs, const char *const *names, size_t count, SaField *values)
{
	if (nargs != count * 2)
		return false;
	memset(values, 0, sizeof(SaField) * count);
	for (size_t i = 0; i < nargs; i += 2)
	{
		size_t		at = 0;

		while (at < count && (strlen(names[at]) != args[i].len || memcmp(names[at], args[i].data, args[i].len) != 0))
			at++;
		if (at == count || values[at].data != NULL || args[i + 1].data == NULL)
			return false;
		values[at] = args[i + 1];
	}
	return true;
}

static bool
is_mac(const SaField *value, const char *right)
{
	return value->len == SA_MAC_TEXT_LEN && sa_equal(value->data, right, SA_MAC_TEXT_LEN);
}

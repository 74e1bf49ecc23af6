/*
 * wire.c
 *		The mirror protocol: key names, the MACs of key values, numbers.
 *
 * Stream entries are in wire_stream.c, pages of them in wire_page.c, nonces and answers in wire_lease.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "wire.h"
#include "wire_text.h"

#define COUNT(a)	(sizeof(a) / sizeof((a)[0]))

static size_t name_start(const char *prefix, const char *rest, char *out);
static bool id_fits(const char *id, size_t len, size_t max);

size_t
sa_name_user_epoch(const char *prefix, const char *tid, size_t tidlen,
				   const char *uid, size_t uidlen, char *out)
{
	size_t		n = name_start(prefix, "user_epoch:{", out);

	if (n == 0 || !id_fits(tid, tidlen, SA_TENANT_ID_MAX) || !id_fits(uid, uidlen, SA_USER_ID_MAX))
	{
		out[0] = '\0';
		return 0;
	}
	n += sa_pct_encode(tid, tidlen, out + n);
	out[n++] = '}';
	out[n++] = ':';
	return n + sa_pct_encode(uid, uidlen, out + n);
}

size_t
sa_name_tenant_epoch(const char *prefix, const char *tid, size_t tidlen, char *out)
{
	size_t		n = name_start(prefix, "tenant_epoch:{", out);

	if (n == 0 || !id_fits(tid, tidlen, SA_TENANT_ID_MAX))
	{
		out[0] = '\0';
		return 0;
	}
	n += sa_pct_encode(tid, tidlen, out + n);
	out[n++] = '}';
	out[n] = '\0';
	return n;
}

size_t
sa_name_session(const char *prefix, const char *tid, size_t tidlen, const char *sid, char *out)
{
	size_t		n = name_start(prefix, "session:{", out);
	size_t		sidlen = strlen(sid);

	if (n == 0 || !id_fits(tid, tidlen, SA_TENANT_ID_MAX) || !sa_uuid_valid(sid, sidlen))
	{
		out[0] = '\0';
		return 0;
	}
	n += sa_pct_encode(tid, tidlen, out + n);
	out[n++] = '}';
	out[n++] = ':';
	memcpy(out + n, sid, sidlen + 1);
	return n + sidlen;
}

size_t
sa_name_stream(const char *prefix, char *out)
{
	return name_start(prefix, "sessauth:revocations", out);
}

size_t
sa_name_page(const char *prefix, const char *g, int64_t first, char *out)
{
	size_t		n = name_start(prefix, "sessauth:page:", out);

	if (n == 0 || !sa_uuid_valid(g, strlen(g)) || first < 1 || first != SA_PAGE_FIRST(first))
	{
		out[0] = '\0';
		return 0;
	}
	return n + (size_t) snprintf(out + n, SA_REDIS_KEY_SIZE - n, "%s:%" PRId64, g, first);
}

size_t
sa_name_mirror(const char *prefix, char *out)
{
	return name_start(prefix, "sessauth:mirror", out);
}

size_t
sa_name_nodes(const char *prefix, char *out)
{
	return name_start(prefix, "sessauth:nodes", out);
}

size_t
sa_name_answers(const char *prefix, char *out)
{
	return name_start(prefix, "sessauth:answers", out);
}

/* An invalid prefix gives no name rather than a longer one than out can hold. */
static size_t
name_start(const char *prefix, const char *rest, char *out)
{
	size_t		prefixlen;
	size_t		restlen = strlen(rest);

	out[0] = '\0';
	if (!sa_prefix_valid(prefix))
		return 0;
	prefixlen = strlen(prefix);
	memcpy(out, prefix, prefixlen);
	memcpy(out + prefixlen, rest, restlen + 1);
	return prefixlen + restlen;
}

/* Only the length: the ledger sees to it that ids are clean, and any bytes at all have a safe name. */
static bool
id_fits(const char *id, size_t len, size_t max)
{
	return id != NULL && len > 0 && len <= max;
}

/* A brace in a prefix would move every key to one cluster slot, and let names of two prefixes meet. */
bool
sa_prefix_valid(const char *prefix)
{
	size_t		len = 0;

	for (; prefix[len] != '\0'; len++)
	{
		if (len == SA_PREFIX_MAX || prefix[len] <= ' ' || prefix[len] > '~' ||
			prefix[len] == '{' || prefix[len] == '}')
			return false;
	}
	return true;
}

bool
sa_node_name_valid(const char *name, size_t len)
{
	if (len == 0 || len > SA_NODE_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		char		c = name[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			  c == '-' || c == '.' || c == '_' || c == ':' || c == '@'))
			return false;
	}
	return true;
}

bool
sa_epoch_mac(const unsigned char link[SA_KEY_LEN], const char *key, int64_t epoch,
			 char out[SA_MAC_TEXT_LEN + 1])
{
	char		number[SA_NUMBER_SIZE];
	SaField		fields[3];

	out[0] = '\0';
	if (epoch < 0)
		return false;
	fields[0] = SA_FIELD_STR("sessauth/1/epoch");
	fields[1] = SA_FIELD_STR(key);
	fields[2] = SA_FIELD(number, sa_number_write(epoch, number));
	return sa_mac_text(link, fields, COUNT(fields), out);
}

bool
sa_session_mac(const unsigned char link[SA_KEY_LEN], const char *key, const char *uid, size_t uidlen,
			   int64_t epoch, int64_t tepoch, int64_t exp, const char *state, int64_t version,
			   char out[SA_MAC_TEXT_LEN + 1])
{
	char		numbers[4][SA_NUMBER_SIZE];
	SaField		fields[8];

	out[0] = '\0';
	if (epoch < 0 || tepoch < 0 || exp < 0 || version < 0)
		return false;
	fields[0] = SA_FIELD_STR("sessauth/1/session");
	fields[1] = SA_FIELD_STR(key);
	fields[2] = SA_FIELD(uid, uidlen);
	fields[3] = SA_FIELD(numbers[0], sa_number_write(epoch, numbers[0]));
	fields[4] = SA_FIELD(numbers[1], sa_number_write(tepoch, numbers[1]));
	fields[5] = SA_FIELD(numbers[2], sa_number_write(exp, numbers[2]));
	fields[6] = SA_FIELD_STR(state);
	fields[7] = SA_FIELD(numbers[3], sa_number_write(version, numbers[3]));
	return sa_mac_text(link, fields, COUNT(fields), out);
}

bool
sa_number_parse(const char *text, size_t len, int64_t *out)
{
	int64_t		number = 0;

	if (len == 0 || (text[0] == '0' && len > 1))
		return false;
	for (size_t i = 0; i < len; i++)
	{
		int			digit = text[i] - '0';

		if (digit < 0 || digit > 9 || number > (INT64_MAX - digit) / 10)
			return false;
		number = number * 10 + digit;
	}
	*out = number;
	return true;
}

/* --- internal: wire_text.h --- */

size_t
sa_number_write(int64_t number, char out[SA_NUMBER_SIZE])
{
	char		digits[SA_NUMBER_SIZE];
	uint64_t	left = number < 0 ? -(uint64_t) number : (uint64_t) number;
	size_t		first = sizeof(digits);
	size_t		len;

	/* By hand, because snprintf was a quarter of what it costs to write a page. */
	do
	{
		digits[--first] = (char) ('0' + left % 10);
		left /= 10;
	} while (left > 0);
	if (number < 0)
		digits[--first] = '-';
	len = sizeof(digits) - first;
	memcpy(out, digits + first, len);
	out[len] = '\0';
	return len;
}

bool
sa_uuid_valid(const char *text, size_t len)
{
	unsigned char uuid[16];

	return sa_uuid_decode(text, len, uuid);
}

bool
sa_text_copy(const SaField *value, char *out, size_t outsize)
{
	if (value->len >= outsize || memchr(value->data, '\0', value->len) != NULL)
		return false;
	memcpy(out, value->data, value->len);
	out[value->len] = '\0';
	return true;
}

bool
sa_hex_valid(const char *text, size_t len, size_t count)
{
	if (len != count * 2)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	}
	return true;
}

bool
sa_mac_matches(const unsigned char link[SA_KEY_LEN], const SaField *fields, size_t nfields,
			   const char *text, size_t len)
{
	char		mac[SA_MAC_TEXT_LEN + 1];

	return len == SA_MAC_TEXT_LEN &&
		sa_mac_text(link, fields, nfields, mac) &&
		sa_equal(mac, text, SA_MAC_TEXT_LEN);
}

/*
 * refresh.c
 *		Refresh tokens: opaque, authenticated, chained.
 *
 * The binary form has one fixed length, so reading is a decode, one MAC and
 * three copies; there is no length or type inside it that could lie.
 */
#include <string.h>

#include "encoding.h"
#include "refresh.h"

#define REFRESH_VERSION		0x01
#define PREFIX_LEN			(sizeof(SA_REFRESH_PREFIX) - 1)

/* Where the parts are in the binary form. */
#define AT_SID				1
#define AT_COUNTER			17
#define AT_SECRET			25
#define AT_MAC				57
#define REFRESH_BYTES		89

#define COUNTER_LEN			8
#define SECRET_LEN			32

/* The ledger keeps the counter as a bigint. */
#define COUNTER_MAX			((uint64_t) INT64_MAX)

static bool refresh_mac(const unsigned char key[SA_KEY_LEN], const unsigned char *token,
						unsigned char out[SA_DIGEST_LEN]);
static void counter_write(uint64_t counter, unsigned char out[COUNTER_LEN]);
static uint64_t counter_read(const unsigned char in[COUNTER_LEN]);

bool
sa_refresh_first(const unsigned char sid[16], SaRefresh *out)
{
	memcpy(out->sid, sid, sizeof(out->sid));
	out->counter = 1;
	if (sa_random(out->secret, sizeof(out->secret)))
		return true;
	sa_wipe(out, sizeof(*out));
	return false;
}

bool
sa_refresh_next(const unsigned char key[SA_KEY_LEN], const SaRefresh *token,
				const unsigned char salt[SA_SALT_LEN], SaRefresh *out)
{
	unsigned char counter[COUNTER_LEN];
	SaRefresh	next;
	const SaField fields[] = {
		SA_FIELD_STR("sessauth/1/successor"),
		SA_FIELD(token->sid, sizeof(token->sid)),
		SA_FIELD(counter, sizeof(counter)),
		SA_FIELD(token->secret, sizeof(token->secret)),
		SA_FIELD(salt, SA_SALT_LEN)
	};
	bool		ok;

	if (token->counter < 1 || token->counter >= COUNTER_MAX)
		return false;
	counter_write(token->counter, counter);

	memcpy(next.sid, token->sid, sizeof(next.sid));
	next.counter = token->counter + 1;
	ok = sa_mac(key, fields, sizeof(fields) / sizeof(fields[0]), next.secret);
	if (ok)
		*out = next;
	sa_wipe(&next, sizeof(next));
	return ok;
}

bool
sa_refresh_encode(const unsigned char key[SA_KEY_LEN], const SaRefresh *token,
				  char out[SA_REFRESH_TEXT_LEN + 1])
{
	unsigned char bytes[REFRESH_BYTES];
	bool		ok;

	out[0] = '\0';
	if (token->counter < 1 || token->counter > COUNTER_MAX)
		return false;

	bytes[0] = REFRESH_VERSION;
	memcpy(bytes + AT_SID, token->sid, sizeof(token->sid));
	counter_write(token->counter, bytes + AT_COUNTER);
	memcpy(bytes + AT_SECRET, token->secret, sizeof(token->secret));
	ok = refresh_mac(key, bytes, bytes + AT_MAC);
	if (ok)
	{
		memcpy(out, SA_REFRESH_PREFIX, PREFIX_LEN);
		(void) sa_b64url_encode(bytes, sizeof(bytes), out + PREFIX_LEN);
	}
	sa_wipe(bytes, sizeof(bytes));
	return ok;
}

bool
sa_refresh_decode(const unsigned char key[SA_KEY_LEN], const char *text, size_t len, SaRefresh *out)
{
	unsigned char bytes[REFRESH_BYTES];
	unsigned char mac[SA_DIGEST_LEN];
	size_t		n;
	bool		ok;

	if (len != SA_REFRESH_TEXT_LEN || !sa_refresh_looks_like(text, len))
		return false;

	ok = sa_b64url_decode(text + PREFIX_LEN, len - PREFIX_LEN, bytes, sizeof(bytes), &n) &&
		n == sizeof(bytes) &&
		bytes[0] == REFRESH_VERSION &&
		refresh_mac(key, bytes, mac) &&
		sa_equal(mac, bytes + AT_MAC, sizeof(mac));
	if (ok)
	{
		uint64_t	counter = counter_read(bytes + AT_COUNTER);

		ok = counter >= 1 && counter <= COUNTER_MAX;
		if (ok)
		{
			memcpy(out->sid, bytes + AT_SID, sizeof(out->sid));
			out->counter = counter;
			memcpy(out->secret, bytes + AT_SECRET, sizeof(out->secret));
		}
	}
	sa_wipe(bytes, sizeof(bytes));
	sa_wipe(mac, sizeof(mac));
	return ok;
}

bool
sa_refresh_looks_like(const char *text, size_t len)
{
	return len >= PREFIX_LEN && memcmp(text, SA_REFRESH_PREFIX, PREFIX_LEN) == 0;
}

/* The MAC over the parts of a token in its binary form. */
static bool
refresh_mac(const unsigned char key[SA_KEY_LEN], const unsigned char *token,
			unsigned char out[SA_DIGEST_LEN])
{
	const SaField fields[] = {
		SA_FIELD_STR("sessauth/1/refresh"),
		SA_FIELD(token + AT_SID, AT_COUNTER - AT_SID),
		SA_FIELD(token + AT_COUNTER, COUNTER_LEN),
		SA_FIELD(token + AT_SECRET, SECRET_LEN)
	};

	return sa_mac(key, fields, sizeof(fields) / sizeof(fields[0]), out);
}

static void
counter_write(uint64_t counter, unsigned char out[COUNTER_LEN])
{
	for (int i = COUNTER_LEN - 1; i >= 0; i--)
	{
		out[i] = (unsigned char) (counter & 0xff);
		counter >>= 8;
	}
}

static uint64_t
counter_read(const unsigned char in[COUNTER_LEN])
{
	uint64_t	counter = 0;

	for (int i = 0; i < COUNTER_LEN; i++)
		counter = counter << 8 | in[i];
	return counter;
}

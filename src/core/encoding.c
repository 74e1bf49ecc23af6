/*
 * encoding.c
 *		Text forms of bytes: base64url, hex, percent-encoding, UUID.
 *
 * Decoders accept exactly what the encoders write (hex in a key file excepted),
 * so that two texts never stand for the same bytes: texts are compared, hashed
 * and MACed all over the place.
 */
#include <stdint.h>
#include <string.h>

#include "encoding.h"

static const char b64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char hex_lower[] = "0123456789abcdef";
static const char hex_upper[] = "0123456789ABCDEF";

static int	hex_value(unsigned char c);
static bool pct_is_plain(unsigned char c);
static size_t utf8_length(const unsigned char *p, size_t left);

size_t
sa_b64url_encode(const void *in, size_t len, char *out)
{
	const unsigned char *p = in;
	char	   *o = out;

	for (; len >= 3; p += 3, len -= 3)
	{
		*o++ = b64url_digits[p[0] >> 2];
		*o++ = b64url_digits[(p[0] & 0x03) << 4 | p[1] >> 4];
		*o++ = b64url_digits[(p[1] & 0x0f) << 2 | p[2] >> 6];
		*o++ = b64url_digits[p[2] & 0x3f];
	}
	if (len > 0)
	{
		unsigned char second = len == 2 ? p[1] : 0;

		*o++ = b64url_digits[p[0] >> 2];
		*o++ = b64url_digits[(p[0] & 0x03) << 4 | second >> 4];
		if (len == 2)
			*o++ = b64url_digits[(second & 0x0f) << 2];
	}
	*o = '\0';
	return (size_t) (o - out);
}

/* One more than its value for each character of the alphabet, 0 for all others. */
static const unsigned char b64url_place[256] = {
	['A'] = 1, ['B'] = 2, ['C'] = 3, ['D'] = 4, ['E'] = 5, ['F'] = 6, ['G'] = 7, ['H'] = 8,
	['I'] = 9, ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
	['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
	['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
	['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
	['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
	['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
	['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['-'] = 63, ['_'] = 64,
};

bool
sa_b64url_decode(const char *in, size_t len, void *out, size_t outsize, size_t *outlen)
{
	const unsigned char *p = (const unsigned char *) in;
	unsigned char *o = out;
	uint32_t	bits = 0;
	unsigned	nbits = 0;
	size_t		n = 0;
	size_t		i = 0;

	*outlen = 0;
	if (len % 4 == 1 || len / 4 * 3 + (len % 4) * 3 / 4 > outsize)
		return false;

	/* Four at a time, because a question about each is guessed wrong by the processor half of the time. */
	for (; len - i >= 4; i += 4)
	{
		uint32_t	a = b64url_place[p[i]];
		uint32_t	b = b64url_place[p[i + 1]];
		uint32_t	c = b64url_place[p[i + 2]];
		uint32_t	d = b64url_place[p[i + 3]];

		if (!a || !b || !c || !d)
			return false;
		bits = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
		o[n++] = (unsigned char) (bits >> 16);
		o[n++] = (unsigned char) (bits >> 8);
		o[n++] = (unsigned char) bits;
	}
	for (bits = 0; i < len; i++)
	{
		uint32_t	place = b64url_place[p[i]];

		if (!place)
			return false;
		bits = (bits << 6 | (place - 1)) & 0xfff;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			o[n++] = (unsigned char) (bits >> nbits);
		}
	}

	/* Unused bits that are not zero would be a second text for the same bytes. */
	if ((bits & ((1u << nbits) - 1)) != 0)
		return false;
	*outlen = n;
	return true;
}

size_t
sa_hex_encode(const void *in, size_t len, char *out)
{
	const unsigned char *p = in;

	for (size_t i = 0; i < len; i++)
	{
		out[i * 2] = hex_lower[p[i] >> 4];
		out[i * 2 + 1] = hex_lower[p[i] & 0x0f];
	}
	out[len * 2] = '\0';
	return len * 2;
}

bool
sa_hex_decode(const char *in, size_t len, void *out, size_t outlen)
{
	unsigned char *o = out;

	if (len % 2 != 0 || len / 2 != outlen)
		return false;
	for (size_t i = 0; i < outlen; i++)
	{
		int			high = hex_value((unsigned char) in[i * 2]);
		int			low = hex_value((unsigned char) in[i * 2 + 1]);

		if (high < 0 || low < 0)
			return false;
		o[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

static int
hex_value(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

size_t
sa_pct_encode(const void *in, size_t len, char *out)
{
	const unsigned char *p = in;
	char	   *o = out;

	for (size_t i = 0; i < len; i++)
	{
		if (pct_is_plain(p[i]))
			*o++ = (char) p[i];
		else
		{
			*o++ = '%';
			*o++ = hex_upper[p[i] >> 4];
			*o++ = hex_upper[p[i] & 0x0f];
		}
	}
	*o = '\0';
	return (size_t) (o - out);
}

/* Not isalnum: that one depends on the locale. */
static bool
pct_is_plain(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '.' || c == '_' || c == '~' || c == '@' || c == '+';
}

void
sa_uuid_encode(const unsigned char *uuid, char *out)
{
	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex_lower[uuid[i] >> 4];
		*out++ = hex_lower[uuid[i] & 0x0f];
	}
	*out = '\0';
}

bool
sa_uuid_decode(const char *in, size_t len, unsigned char *uuid)
{
	unsigned char bytes[16];
	size_t		pos = 0;

	if (len != SA_UUID_SIZE - 1)
		return false;
	for (int i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && in[pos++] != '-')
			return false;
		high = hex_value((unsigned char) in[pos]);
		low = hex_value((unsigned char) in[pos + 1]);
		if (high < 0 || low < 0)
			return false;
		/* Upper case would be a second name of the same session. */
		if ((in[pos] >= 'A' && in[pos] <= 'F') || (in[pos + 1] >= 'A' && in[pos + 1] <= 'F'))
			return false;
		bytes[i] = (unsigned char) (high << 4 | low);
		pos += 2;
	}
	memcpy(uuid, bytes, sizeof(bytes));
	return true;
}

bool
sa_text_is_clean(const void *in, size_t len)
{
	const unsigned char *p = in;

	while (len > 0)
	{
		size_t		n = utf8_length(p, len);

		if (n == 0)
			return false;
		if (n == 1 && (p[0] < 0x20 || p[0] == 0x7f))
			return false;
		if (n == 2 && p[0] == 0xc2 && p[1] <= 0x9f)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

/*
 * Bytes of the character at p, 0 when it is not one. The bounds of the second byte
 * (RFC 3629, section 4) keep out overlong forms, surrogates and what is above U+10FFFF.
 */
static size_t
utf8_length(const unsigned char *p, size_t left)
{
	unsigned char low = 0x80;
	unsigned char high = 0xbf;
	size_t		n;

	if (p[0] <= 0x7f)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
	{
		n = 3;
		if (p[0] == 0xe0)
			low = 0xa0;
		else if (p[0] == 0xed)
			high = 0x9f;
	}
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
	{
		n = 4;
		if (p[0] == 0xf0)
			low = 0x90;
		else if (p[0] == 0xf4)
			high = 0x8f;
	}
	else
		return 0;

	if (left < n || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
	{
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return n;
}

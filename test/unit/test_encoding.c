/*
 * test_encoding.c
 *		Text forms of bytes: RFC 4648 vectors, one text per value, strict UTF-8.
 */
#include "core/encoding.h"
#include "tap.h"

static bool
decodes(const char *text, const char *want)
{
	char		out[64];
	size_t		n;

	return sa_b64url_decode(text, strlen(text), out, sizeof(out), &n) && n == strlen(want) && memcmp(out, want, n) == 0;
}

static bool
refused(const char *text, size_t len)
{
	char		out[64];
	size_t		n;

	return !sa_b64url_decode(text, len, out, sizeof(out), &n);
}

static void
test_base64url(void)
{
	static const char *const vectors[][2] = {
		{"", ""}, {"f", "Zg"}, {"fo", "Zm8"}, {"foo", "Zm9v"}, {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy"}
	};
	char		text[SA_B64URL_SIZE(256)];
	unsigned char bytes[256];
	unsigned char back[256];
	char		last[] = "Zg";
	int			accepted = 0;
	size_t		n;
	bool		good = true;

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
	{
		n = sa_b64url_encode(vectors[i][0], strlen(vectors[i][0]), text);
		is_text(text, vectors[i][1], "RFC 4648 encodes '%s'", vectors[i][0]);
		ok(n == strlen(vectors[i][1]) && decodes(vectors[i][1], vectors[i][0]), "and decodes it");
	}
	for (int i = 0; i < 256; i++)
		bytes[i] = (unsigned char) (i * 7);
	for (size_t len = 0; len <= 256; len++)
	{
		size_t		m = sa_b64url_encode(bytes, len, text);

		good = good && m + 1 == SA_B64URL_SIZE(len) && text[m] == '\0' &&
			sa_b64url_decode(text, m, back, len, &n) && n == len && memcmp(back, bytes, len) == 0 &&
			(len == 0 || !sa_b64url_decode(text, m, back, len - 1, &n));
	}
	ok(good, "every length comes back, needs exactly its size, and fits in nothing smaller");
	(void) sa_b64url_encode("\xfb\xff\xfe", 3, text);
	is_text(text, "-__-", "the alphabet is that of URLs");

	ok(refused("Zg==", 4) && refused("Zm8=", 4), "padding is refused");
	ok(refused("Zm 9v", 5) && refused("Zm9v\n", 5) && refused("Zm9v\0", 5), "white space and NUL are refused");
	ok(refused("+/+/", 4), "the other alphabet is refused");
	ok(refused("Z", 1) && refused("Zm9vZ", 5), "a length of 1 modulo 4 is refused");
	for (int c = 0; c < 256; c++)
	{
		last[1] = (char) c;
		accepted += !refused(last, 2);
	}
	ok(accepted == 4, "a last character is accepted only with its unused bits zero");
	ok(!refused("Zm8", 3) && refused("Zm9", 3) && refused("Zm-", 3), "of three characters, too");
}

static void
test_hex(void)
{
	char		text[SA_HEX_SIZE(3)];
	unsigned char out[3];

	sa_hex_encode("\x00\xaf\x10", 3, text);
	is_text(text, "00af10", "hex is lower case");
	ok(sa_hex_decode("00AF10", 6, out, 3) && memcmp(out, "\x00\xaf\x10", 3) == 0, "hex of either case is read");
	ok(!sa_hex_decode("00af1", 5, out, 3) && !sa_hex_decode("00af1000", 8, out, 3) && !sa_hex_decode("00ag10", 6, out, 3) &&
	   !sa_hex_decode("0x0010", 6, out, 3), "hex of another length or with other characters is refused");
}

static void
test_pct(void)
{
	char		text[SA_PCT_SIZE(256)];
	unsigned char all[256];
	size_t		n;
	int			plain = 0;

	sa_pct_encode("a:b}{", 5, text);
	is_text(text, "a%3Ab%7D%7B", "a tenant a:b}{ cannot break out of the braces");
	sa_pct_encode("%", 1, text);
	is_text(text, "%25", "a user %% is not an escape");
	sa_pct_encode("AZaz09-._~@+", 12, text);
	is_text(text, "AZaz09-._~@+", "plain characters stay");
	sa_pct_encode("\xc3\xa9 /", 4, text);
	is_text(text, "%C3%A9%20%2F", "UTF-8, space and slash do not");
	for (int i = 0; i < 256; i++)
		all[i] = (unsigned char) i;
	n = sa_pct_encode(all, 256, text);
	for (size_t i = 0; i < n; i++)
	{
		if (text[i] == '%')
			i += 2;
		else
			plain++;
	}
	ok(plain == 68, "68 characters are plain, no more");
}

static void
test_uuid(void)
{
	static const unsigned char uuid[16] = {
		0x0b, 0x0e, 0x7c, 0x3a, 0x8d, 0x7f, 0x4a, 0x51, 0x9f, 0x43, 0x0d, 0x8f, 0x8f, 0x7a, 0x7a, 0x01
	};
	static const char text[] = "0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01";
	char		out[SA_UUID_SIZE];
	unsigned char back[16];
	int			accepted = 0;

	sa_uuid_encode(uuid, out);
	is_text(out, text, "a UUID is written in lower case with hyphens");
	ok(sa_uuid_decode(text, 36, back) && memcmp(back, uuid, 16) == 0, "and read back");
	ok(!sa_uuid_decode("0B0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01", 36, back), "upper case is refused");
	ok(!sa_uuid_decode("{0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01}", 38, back) &&
	   !sa_uuid_decode("0b0e7c3a8d7f4a519f430d8f8f7a7a01", 32, back) &&
	   !sa_uuid_decode(text, 35, back), "and so is every other form");
	for (size_t i = 0; i < 36; i++)
	{
		char		bent[SA_UUID_SIZE];

		memcpy(bent, text, sizeof(text));
		bent[i] = bent[i] == '-' ? '0' : '-';
		accepted += sa_uuid_decode(bent, 36, back);
	}
	ok(accepted == 0, "hyphens are where they belong and nowhere else");
}

static bool
clean(const char *text)
{
	return sa_text_is_clean(text, strlen(text));
}

static void
test_clean(void)
{
	int			good = 0;

	ok(clean("") && clean("alice") && clean("a:b}{") && clean("%"), "ASCII is clean");
	ok(clean("J\xc3\xbcrgen \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"), "two, three and four bytes are clean");
	for (int c = 0; c < 0x80; c++)
	{
		char		one = (char) c;

		good += sa_text_is_clean(&one, 1);
	}
	ok(good == 95, "control characters are not");
	ok(!clean("\xc2\x80") && !clean("\xc2\x9f") && clean("\xc2\xa0"), "nor are those of Latin-1");
	ok(!clean("\xc0\x80") && !clean("\xc1\xbf") && !clean("\xe0\x9f\xbf") && !clean("\xf0\x8f\xbf\xbf"), "overlong forms are refused");
	ok(!clean("\xed\xa0\x80") && !clean("\xed\xbf\xbf") && clean("\xed\x9f\xbf"), "surrogates are refused");
	ok(!clean("\xf4\x90\x80\x80") && !clean("\xf5\x80\x80\x80") && !clean("\xff"), "what is above U+10FFFF is refused");
	ok(!clean("a\xc3") && !clean("\xe2\x82") && !clean("\xf0\x9f\x98") && !clean("\xc3" "a") && !clean("\xe2\x82" "a") && !clean("\x80"),
	   "cut and stray bytes are refused");
	ok(!sa_text_is_clean("a\0b", 3), "NUL is refused");
}

int
main(void)
{
	test_base64url();
	test_hex();
	test_pct();
	test_uuid();
	test_clean();
	return tap_done();
}

/*
 * test_digest.c
 *		Hashes and MACs: known values, injective framing.
 */
#include "core/digest.h"
#include "core/encoding.h"
#include "tap.h"

static unsigned char key[SA_KEY_LEN];

static void
test_sha256(void)
{
	unsigned char out[SA_DIGEST_LEN];
	char		text[SA_HEX_SIZE(SA_DIGEST_LEN)];

	ok(sa_sha256("abc", 3, out), "hashing works");
	sa_hex_encode(out, sizeof(out), text);
	is_text(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256 of abc");
	ok(sa_sha256(NULL, 0, out), "hashing nothing works");
	sa_hex_encode(out, sizeof(out), text);
	is_text(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "SHA-256 of nothing");
}

static void
test_hasher(void)
{
	static const size_t lengths[] = {0, 1, 55, 56, 63, 64, 65, 700, 4096};
	unsigned char data[4096];
	unsigned char once[SA_DIGEST_LEN];
	unsigned char kept[SA_DIGEST_LEN];
	SaHasher   *hasher = sa_hasher_new();

	ok(hasher != NULL, "a hasher is made");
	memset(data, 'x', sizeof(data));
	for (int turn = 0; turn < 2; turn++)
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		{
			data[0] = (unsigned char) (turn + (int) i);
			ok(sa_hasher_sha256(hasher, data, lengths[i], kept) && sa_sha256(data, lengths[i], once) &&
			   memcmp(kept, once, sizeof(once)) == 0, "it hashes %zu bytes as sa_sha256 does, turn %d", lengths[i], turn + 1);
		}
	sa_hasher_free(hasher);
	sa_hasher_free(NULL);
}

/* The expected values were computed with Python's hmac module. */
static void
test_vectors(void)
{
	char		text[SA_MAC_TEXT_LEN + 1];
	char		large[3000];
	SaField		fields[3];

	fields[0] = SA_FIELD_STR("sessauth/1/epoch");
	fields[1] = SA_FIELD_STR("user_epoch:{a%3Ab%7D%7B}:%25");
	fields[2] = SA_FIELD_STR("42");
	ok(sa_mac_text(key, fields, 3, text), "a MAC is made");
	is_text(text, "P-Zi5R4rlx4X3OLo6Nxb9HNz4rPXtN6Ca6WeGwdt_x8", "its value is that of the protocol page");

	memset(large, 'y', sizeof(large));
	fields[0] = SA_FIELD_STR("x");
	fields[1] = SA_FIELD(large, sizeof(large));
	ok(sa_mac_text(key, fields, 2, text), "a MAC of more than the stack buffer is made");
	is_text(text, "UpHdaJhh9Q7GnnwFWOK_nMsJ6AcEB0Ot1b0qN0KMHzo", "and right");

	ok(sa_mac_text(key, fields, 0, text), "a MAC of nothing is made");
	is_text(text, "04tCCW2A9F-Ca0Sp1WB95ySWpBXT9KGoyI47udqNwcs", "and right");

	fields[0] = SA_FIELD(NULL, 0);
	fields[1] = SA_FIELD_STR("a");
	ok(sa_mac_text(key, fields, 2, text), "a missing field is an empty one");

	fields[1].len = (size_t) 1 << 32;
	ok(!sa_mac_text(key, fields, 2, text) && text[0] == '\0', "a length that its frame cannot hold is refused");
}

/* Every way to cut the same bytes into fields gives another MAC. */
static void
test_framing(void)
{
	static const char bytes[] = "\0\0\0\1abc\0\0\0";
	enum
	{
		N = sizeof(bytes) - 1, CUTS = 1 << (N - 1)
	};
	static unsigned char macs[CUTS * 3][SA_DIGEST_LEN];
	int			count = 0;
	int			equal = 0;
	bool		made = true;

	for (int cuts = 0; cuts < CUTS; cuts++)
	{
		SaField		fields[N + 2];
		size_t		n = 0;
		size_t		start = 0;

		for (size_t i = 1; i <= N; i++)
		{
			if (i == N || (cuts >> (i - 1) & 1))
			{
				fields[n++] = SA_FIELD(bytes + start, i - start);
				start = i;
			}
		}
		made = made && sa_mac(key, fields, n, macs[count++]);
		/* And with an empty field at the end, and another. */
		fields[n++] = SA_FIELD("", 0);
		made = made && sa_mac(key, fields, n, macs[count++]);
		fields[n++] = SA_FIELD("", 0);
		made = made && sa_mac(key, fields, n, macs[count++]);
	}
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < i; j++)
			equal += memcmp(macs[i], macs[j], SA_DIGEST_LEN) == 0;
	}
	ok(made && equal == 0, "%d ways to cut %d bytes into fields have %d different MACs", count, (int) N, count);
}

/* A prepared key makes the same MACs as the key, one after another, whatever came before. */
static void
test_mac_key(void)
{
	SaMacKey   *prepared = sa_mac_key_new(key);
	char		bytes[3000];
	char		once[SA_MAC_TEXT_LEN + 1];
	char		again[SA_MAC_TEXT_LEN + 1];
	int			same = 0;
	int			count = 0;

	memset(bytes, 'x', sizeof(bytes));
	for (size_t len = 0; prepared && len < sizeof(bytes); len += 37, count++)
	{
		SaField		fields[2] = {SA_FIELD("label", 5), SA_FIELD(bytes, len)};

		same += sa_mac_text(key, fields, 2, once) && sa_mac_key_text(prepared, fields, 2, again) && strcmp(once, again) == 0;
	}
	ok(count > 0 && same == count, "a prepared key makes the same %d MACs", count);
	sa_mac_key_free(prepared);
	sa_mac_key_free(NULL);
}

static void
test_small(void)
{
	unsigned char a[32];
	unsigned char b[32];
	unsigned char zero[32] = {0};

	ok(sa_random(a, sizeof(a)) && sa_random(b, sizeof(b)) && memcmp(a, b, sizeof(a)) != 0, "random bytes differ");
	ok(sa_equal(a, a, sizeof(a)) && !sa_equal(a, b, sizeof(a)) && sa_equal(a, b, 0), "comparison compares");
	memcpy(b, a, sizeof(b));
	b[31] ^= 1;
	ok(!sa_equal(a, b, sizeof(a)), "also the last bit");
	sa_wipe(a, sizeof(a));
	ok(sa_equal(a, zero, sizeof(a)), "wiping wipes");
	sa_wipe(NULL, 0);
}

int
main(void)
{
	for (int i = 0; i < SA_KEY_LEN; i++)
		key[i] = (unsigned char) i;
	test_sha256();
	test_hasher();
	test_vectors();
	test_framing();
	test_mac_key();
	test_small();
	return tap_done();
}

/*
 * test_seal.c
 *		Sealed secrets: only the right key and label open them, unchanged; key files.
 */
#include <stdlib.h>
#include <openssl/err.h>

#include "core/seal.h"
#include "tap.h"

static unsigned char master[SA_KEY_LEN];

static void
test_seal(void)
{
	static const char secret[] = "a private key";
	static const size_t n = sizeof(secret);
	unsigned char sealed[sizeof(secret) + SA_SEAL_OVERHEAD + 1];
	unsigned char second[sizeof(secret) + SA_SEAL_OVERHEAD];
	unsigned char out[sizeof(secret) + 1];
	unsigned char zero[sizeof(secret)] = {0};
	int			opened = 0;
	int			left = 0;

	ok(sa_seal(master, "key:1", secret, n, sealed), "a secret is sealed");
	ok(sa_unseal(master, "key:1", sealed, n + SA_SEAL_OVERHEAD, out) && memcmp(out, secret, n) == 0, "and opened");
	ok(sealed[0] == 1 && memcmp(sealed + 13, secret, n) != 0, "it cannot be seen");
	ok(sa_seal(master, "key:1", secret, n, second) && memcmp(sealed + 1, second + 1, n) != 0, "sealed twice it looks different");

	for (size_t i = 0; i < n + SA_SEAL_OVERHEAD; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			sealed[i] ^= (unsigned char) (1 << bit);
			memset(out, 0x77, sizeof(out));
			opened += sa_unseal(master, "key:1", sealed, n + SA_SEAL_OVERHEAD, out);
			left += memcmp(out, zero, n) != 0;
			sealed[i] ^= (unsigned char) (1 << bit);
		}
	}
	ok(opened == 0, "no bit can be changed");
	ok(left == 0, "and nothing that was not authenticated is left behind");
	for (size_t i = 0; i < n + SA_SEAL_OVERHEAD; i++)
		opened += sa_unseal(master, "key:1", sealed, i, out);
	sealed[n + SA_SEAL_OVERHEAD] = 0;
	opened += sa_unseal(master, "key:1", sealed, n + SA_SEAL_OVERHEAD + 1, out);
	ok(opened == 0, "nor cut off or added");
	ok(!sa_unseal(master, "key:2", sealed, n + SA_SEAL_OVERHEAD, out) && !sa_unseal(master, "", sealed, n + SA_SEAL_OVERHEAD, out) &&
	   !sa_unseal(master, "key:1 ", sealed, n + SA_SEAL_OVERHEAD, out), "another label does not open it");
	master[31] ^= 0x80;
	ok(!sa_unseal(master, "key:1", sealed, n + SA_SEAL_OVERHEAD, out), "another master key does not open it");
	master[31] ^= 0x80;
	ok(sa_unseal(master, "key:1", sealed, n + SA_SEAL_OVERHEAD, out), "the right ones still do");
	ok(sa_seal(master, "", "", 0, sealed) && sa_unseal(master, "", sealed, SA_SEAL_OVERHEAD, out), "an empty secret can be sealed");
	ok(ERR_peek_error() == 0, "OpenSSL's error queue is empty");
}

static bool
parses(const char *text)
{
	unsigned char key[SA_KEY_LEN];

	return sa_key_text_parse(text, strlen(text), key) && key[0] == 0xfb && key[1] == 0xff && key[31] == 0x01;
}

static void
test_key_text(void)
{
	unsigned char key[SA_KEY_LEN];
	char		text[128];

	ok(parses("fbff000000000000000000000000000000000000000000000000000000000001"), "64 hex digits are a key");
	ok(parses("FBFF000000000000000000000000000000000000000000000000000000000001"), "in either case");
	ok(parses("-_8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"), "43 characters of base64url are a key");
	ok(parses("+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="), "44 of base64, as openssl rand -base64 32 prints them, are a key");
	ok(parses("-_8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=") && parses("+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"),
	   "padding is optional in both");
	ok(parses(" \t\r\n+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\r\n\n"), "white space around it does not matter");
	ok(!parses(" ") && !parses("") && !parses("+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE== ") &&
	   !parses("+/8AAAAAAAAAAAAAAAAAAAAA AAAAAAAAAAAAAAAAAAE") && !parses("+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAF="),
	   "everything else is refused");
	ok(!parses("fbff00000000000000000000000000000000000000000000000000000000001") &&
	   !parses("fbff00000000000000000000000000000000000000000000000000000000000x"), "also broken hex");
	memcpy(text, "+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\0", 45);
	ok(!sa_key_text_parse(text, 45, key), "also a NUL at the end");
}

int
main(void)
{
	for (int i = 0; i < SA_KEY_LEN; i++)
		master[i] = (unsigned char) (i * 3);
	test_seal();
	test_key_text();
	return tap_done();
}

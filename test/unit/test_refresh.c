/*
 * test_refresh.c
 *		Refresh tokens: known values, the chain, and that nothing forged is read.
 */
#include "core/encoding.h"
#include "core/refresh.h"
#include "tap.h"

static unsigned char key[SA_KEY_LEN];
static unsigned char salt[SA_SALT_LEN];

/* Computed with Python's hmac module: session 10..1f, counter 7, secret 40..5f, salt aa.. */
static const char known[] = "sar_ARAREhMUFRYXGBkaGxwdHh8AAAAAAAAAB0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fn0BSaMx4l1sHttp5YT5Lqt96lIoKlkhTBXDO6TlbY5s";
static const char known_next[] = "sar_ARAREhMUFRYXGBkaGxwdHh8AAAAAAAAACIH7v9NZHeiWVtkCtCsMrcCXHAxaGxWlO9HCXFxaWkbKCU_nKht_6H2zgZy0iM4SUdrmzFRddyKxizVp-s6wTos";

static void
test_known(void)
{
	SaRefresh	token;
	SaRefresh	next;
	SaRefresh	again;
	char		text[SA_REFRESH_TEXT_LEN + 1];

	ok(strlen(known) == SA_REFRESH_TEXT_LEN && sa_refresh_decode(key, known, strlen(known), &token), "a token of another implementation is read");
	ok(token.counter == 7 && token.sid[0] == 0x10 && token.sid[15] == 0x1f && token.secret[0] == 0x40 && token.secret[31] == 0x5f,
	   "session, counter and secret are in it");
	ok(sa_refresh_encode(key, &token, text), "it is written");
	is_text(text, known, "as it was");
	ok(sa_refresh_next(key, &token, salt, &next) && next.counter == 8 && memcmp(next.sid, token.sid, 16) == 0, "its successor counts on");
	ok(sa_refresh_encode(key, &next, text), "is written");
	is_text(text, known_next, "as another implementation would");
	ok(sa_refresh_next(key, &token, salt, &again) && memcmp(&again, &next, sizeof(next)) == 0, "and is the same when asked again");
	salt[0] ^= 1;
	ok(sa_refresh_next(key, &token, salt, &again) && memcmp(again.secret, next.secret, 32) != 0, "another salt makes another successor");
	salt[0] ^= 1;
	ok(sa_refresh_next(key, &token, salt, &token) && memcmp(&token, &next, sizeof(next)) == 0, "the successor may take the token's place");
}

static void
test_first(void)
{
	unsigned char sid[16] = {1, 2, 3};
	SaRefresh	a;
	SaRefresh	b;
	SaRefresh	read;
	char		text[SA_REFRESH_TEXT_LEN + 1];

	ok(sa_refresh_first(sid, &a) && sa_refresh_first(sid, &b) && a.counter == 1 && memcmp(a.secret, b.secret, 32) != 0,
	   "first tokens of one session differ");
	ok(sa_refresh_encode(key, &a, text) && sa_refresh_decode(key, text, strlen(text), &read) &&
	   memcmp(&read, &a, sizeof(a)) == 0, "a first token comes back");

	a.counter = 0;
	ok(!sa_refresh_encode(key, &a, text) && !sa_refresh_next(key, &a, salt, &b), "there is no token 0");
	a.counter = INT64_MAX;
	ok(sa_refresh_encode(key, &a, text) && sa_refresh_decode(key, text, strlen(text), &read) && !sa_refresh_next(key, &a, salt, &b),
	   "the last counter that the ledger can store has no successor");
	a.counter = (uint64_t) INT64_MAX + 1;
	ok(!sa_refresh_encode(key, &a, text) && text[0] == '\0', "and there is none after it");
}

static void
test_forged(void)
{
	SaRefresh	token;
	SaRefresh	untouched;
	char		bent[SA_REFRESH_TEXT_LEN + 3];
	int			accepted = 0;

	memset(&token, 0x55, sizeof(token));
	untouched = token;
	for (size_t i = 0; i < SA_REFRESH_TEXT_LEN; i++)
	{
		for (int c = 0; c < 256; c++)
		{
			memcpy(bent, known, sizeof(known));
			if (bent[i] == (char) c)
				continue;
			bent[i] = (char) c;
			accepted += sa_refresh_decode(key, bent, SA_REFRESH_TEXT_LEN, &token);
		}
		accepted += sa_refresh_decode(key, known, i, &token);
	}
	ok(accepted == 0, "no byte can be changed, and no end cut off");
	memcpy(bent, known, sizeof(known));
	bent[SA_REFRESH_TEXT_LEN] = 'A';
	ok(!sa_refresh_decode(key, bent, SA_REFRESH_TEXT_LEN + 1, &token) && !sa_refresh_decode(key, known, sizeof(known), &token),
	   "nothing can follow");
	key[5] ^= 1;
	ok(!sa_refresh_decode(key, known, SA_REFRESH_TEXT_LEN, &token), "another key reads nothing");
	key[5] ^= 1;
	ok(memcmp(&token, &untouched, sizeof(token)) == 0, "what is refused fills nothing");

	ok(sa_refresh_looks_like(known, 4) && sa_refresh_looks_like("sar_x", 5), "a prefix is enough to look like one");
	ok(!sa_refresh_looks_like(known, 3) && !sa_refresh_looks_like("SAR_xxx", 7) && !sa_refresh_looks_like("eyJhbGci", 8) &&
	   !sa_refresh_looks_like("", 0), "without it nothing does");
}

int
main(void)
{
	for (int i = 0; i < SA_KEY_LEN; i++)
		key[i] = (unsigned char) i;
	memset(salt, 0xaa, sizeof(salt));
	test_known();
	test_first();
	test_forged();
	return tap_done();
}

/*
 * test_redact.c
 *		Tokens are taken out of a text wherever they stand; nothing else is.
 */
#include <stdlib.h>

#include "core/redact.h"
#include "core/refresh.h"
#include "tap.h"

#define SAR "sar_ARAREhMUFRYXGBkaGxwdHh8AAAAAAAAAB0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fn0BSaMx4l1sHttp5YT5Lqt96lIoKlkhTBXDO6TlbY5s"
#define HEAD "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ"
#define BODY "eyJpc3MiOiJzZXNzYXV0aCIsInRpZCI6ImFjbWUifQ"
#define SIGN "c2lnbmF0dXJlLXNpZ25hdHVyZQ-_"
#define JWS	HEAD "." BODY "." SIGN

/* The text lies in memory of its exact size, so that the sanitizer sees every byte too many. */
static void
redacts(const char *text, const char *want, const char *what)
{
	size_t		len = strlen(text);
	char	   *copy = malloc(len);
	char	   *got;
	size_t		n;
	bool		has;

	memcpy(copy, text, len);
	has = sa_has_token(copy, len);
	n = sa_redact(copy, len);
	got = malloc(n + 1);
	memcpy(got, copy, n);
	got[n] = '\0';
	is_text(got, want, "%s", what);
	ok(n <= len && has == (strcmp(text, want) != 0), "%s: it does not grow, and was announced", what);
	ok(!sa_has_token(got, n) && sa_redact(got, n) == n, "%s: once is enough", what);
	free(copy);
	free(got);
}

static void
stays(const char *text, const char *what)
{
	redacts(text, text, what);
}

static void
test_found(void)
{
	redacts(SAR, "sar_[redacted]", "a refresh token alone");
	redacts(JWS, "eyJ[redacted]", "an access token alone");
	redacts("a '" SAR "', b '" JWS "'.", "a 'sar_[redacted]', b 'eyJ[redacted]'.", "two tokens in quotes");
	redacts("Key (token)=(" SAR ") already exists.", "Key (token)=(sar_[redacted]) already exists.", "a violated constraint");
	redacts("COPY t: \\n" SAR "\\t" JWS, "COPY t: \\nsar_[redacted]\\teyJ[redacted]", "a letter before it");
	redacts(SAR "," SAR "\n" SAR, "sar_[redacted],sar_[redacted]\nsar_[redacted]", "one after the other");
	redacts(JWS "." JWS, "eyJ[redacted]", "two access tokens joined by a dot");
	redacts("Bearer " JWS " 200", "Bearer eyJ[redacted] 200", "text around an access token");
	redacts("\xc3\xa9" SAR "\xe2\x82\xac" JWS "\xf0\x9f\x94\x91", "\xc3\xa9sar_[redacted]\xe2\x82\xac" "eyJ[redacted]\xf0\x9f\x94\x91",
			"characters of several bytes on either side");
	redacts("xeyJxeyJ" JWS, "xeyJ[redacted]", "a header that begins early is hidden from there on");
	redacts(JWS JWS SAR JWS " x", "eyJ[redacted] x", "tokens with nothing between them");
	redacts(SAR JWS ", x", "sar_[redacted], x", "an access token right behind a refresh token");
	redacts("sar_A" SAR, "sar_[redacted]", "a prefix before the prefix");
}

static void
test_cut(void)
{
	char		text[SA_REFRESH_TEXT_LEN + 1];
	bool		hidden = true;

	for (size_t n = 20; n < strlen(SAR); n++)
	{
		memcpy(text, SAR, n);
		hidden &= sa_redact(text, n) == strlen("sar_[redacted]");
	}
	ok(hidden, "a refresh token cut anywhere from its 20th character on is hidden");
	redacts("('sar_AQIDBAUGBwgJCgsM...')", "('sar_[redacted]...')", "a refresh token that the server has cut");
	redacts(HEAD "." BODY, "eyJ[redacted]", "an access token without its signature");
	redacts(HEAD "." BODY ".", "eyJ[redacted].", "with an empty one");
	redacts(HEAD ".eyJp", "eyJ[redacted]", "with the beginning of a payload");
	redacts(HEAD "." BODY "." SIGN ".", "eyJ[redacted].", "and a full stop behind it");
	stays(HEAD ".", "a header and a dot");
	stays(HEAD, "a header");
	stays("sar_AQIDBAUGBwgJCgs", "the first 19 characters of a refresh token");
	stays("", "nothing");
}

static void
test_near(void)
{
	stays("SELECT * FROM quasar_observations_of_2024, caesar_salads_and_dressings", "names with the prefix in them");
	stays("sar_" "BQIDBAUGBwgJCgsMDQ4PEBESExQ", "another version");
	stays("sar-AQIDBAUGBwgJCgsMDQ4PEBESExQ", "another prefix");
	stays("eyJ.eyJ.eyJ", "only the marks of an access token");
	stays("eyJhbGciOi.notjson.abc", "a payload that is no JSON object");
	stays("www.example.com/eyJhbGciOiJFUzI1NiJ9/x", "one part of one");
	stays("sar_[redacted] and eyJ[redacted]", "what has been redacted");
}

/* Texts that would take quadratic time if a run were read again at each of its near misses: hours, at this size. */
static void
test_hostile(void)
{
	static const char *const patterns[] = {"eyJ", "sar_", "sar_A", "eyJ.", "eyJeyJeyJeyJ.eyJ", "eyJaaaaaaaaaaaa.eyJ ", "eyJaaaaaaaaaaaa.", "_", "."};
	const size_t size = 8 << 20;
	char	   *text = malloc(size + sizeof(SAR));

	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++)
	{
		size_t		n = strlen(patterns[p]);
		size_t		len = size - size % n;

		for (size_t i = 0; i < len; i += n)
			memcpy(text + i, patterns[p], n);
		text[len++] = ' ';
		memcpy(text + len, SAR, strlen(SAR));
		len = sa_redact(text, len + strlen(SAR));
		ok(len >= 14 && memcmp(text + len - 14, "sar_[redacted]", 14) == 0, "8 MiB of \"%s\", and a token behind them", patterns[p]);
	}
	free(text);
}

static void
test_random(void)
{
	static const char *const pieces[] = {"eyJ", ".", "sar_", "A", "aaaaaaaaaaaa", SAR, JWS, " ", "\xff", "'", "_", "="};
	unsigned	seed = 1;
	bool		good = true;

	for (int round = 0; round < 20000; round++)
	{
		char		text[4096];
		size_t		len = 0;

		for (int i = 0; i < 12; i++)
		{
			const char *piece;

			seed = seed * 1103515245u + 12345u;
			piece = pieces[(seed >> 16) % (sizeof(pieces) / sizeof(pieces[0]))];
			memcpy(text + len, piece, strlen(piece));
			len += strlen(piece);
		}
		text[sa_redact(text, len)] = '\0';
		good &= strstr(text, SAR + 4) == NULL && strstr(text, BODY) == NULL;
	}
	ok(good, "no token is left of 20000 texts made of pieces");
}

int
main(void)
{
	test_found();
	test_cut();
	test_near();
	test_hostile();
	test_random();
	return tap_done();
}

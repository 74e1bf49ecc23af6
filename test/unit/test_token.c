/*
 * test_token.c
 *		Access tokens: what is minted is read, and nothing else is.
 *
 * The hostile tokens are signed with the right key, unless the signature is
 * the point: a reader must refuse what is wrong, not only what is forged.
 */
#include <stdlib.h>
#include <openssl/err.h>

#include "core/encoding.h"
#include "core/token.h"
#include "tap.h"

#define NOW		1700000000
#define SID		"0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01"
#define HEADER	"{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}"
#define TIMES	"\"iat\":1700000000,\"exp\":1700000300"
#define WHO		"\"sub\":\"%\",\"client_id\":\"c\",\"jti\":\"j\",\"tid\":\"a:b}{\",\"uid\":\"%\",\"sid\":\"" SID "\",\"epoch\":5,\"tepoch\":6"
#define FROM	"\"iss\":\"sessauth\",\"aud\":\"sessauth\""
#define PAYLOAD	"{" FROM "," WHO "," TIMES "}"

static SaKey *ec;
static SaKey *ed;
static SaKey *rsa;
static bool lookup_called;

static const SaKey *
lookup(void *arg, const char *kid, size_t kidlen)
{
	(void) arg;
	lookup_called = true;
	if (kidlen == 2 && memcmp(kid, "ec", 2) == 0)
		return ec;
	if (kidlen == 2 && memcmp(kid, "ed", 2) == 0)
		return ed;
	if (kidlen == 3 && memcmp(kid, "rsa", 3) == 0)
		return rsa;
	return NULL;
}

static SaTokenRules
rules_at(int64_t now)
{
	SaTokenRules rules = {"sessauth", "sessauth", now, 0, true};

	return rules;
}

static const char *
read_with(const char *text, size_t len, const SaTokenRules *rules, SaToken *out)
{
	return sa_token_result_name(sa_token_read(text, len, lookup, NULL, rules, out));
}

/* The outcome of a text, read now. What is not filled must be empty. */
static const char *
outcome_of(const char *text, size_t len)
{
	SaTokenRules rules = rules_at(NOW);
	SaToken		token;
	const char *outcome = read_with(text, len, &rules, &token);

	if (strcmp(outcome, "ok") != 0 && strcmp(outcome, "expired") != 0 && strcmp(outcome, "not_yet_valid") != 0 &&
		(token.tid[0] || token.uid[0] || token.sid[0] || token.claims || token.epoch || token.exp))
		outcome = "filled";
	sa_token_free(&token);
	if (ERR_peek_error() != 0)
		outcome = "left an error in the queue";
	return outcome;
}

/* A token of any header and payload, signed by key. */
static char *
sign(const SaKey *key, const char *header, size_t headerlen, const char *payload, size_t payloadlen)
{
	char	   *text = malloc(SA_B64URL_SIZE(headerlen) + SA_B64URL_SIZE(payloadlen) + SA_B64URL_SIZE(SA_SIGNATURE_MAX));
	unsigned char sig[SA_SIGNATURE_MAX];
	size_t		siglen;
	size_t		n;

	n = sa_b64url_encode(header, headerlen, text);
	text[n++] = '.';
	n += sa_b64url_encode(payload, payloadlen, text + n);
	if (!sa_key_sign(key, text, n, sig, &siglen))
		abort();
	text[n++] = '.';
	(void) sa_b64url_encode(sig, siglen, text + n);
	return text;
}

static const char *
signed_bytes(const char *header, size_t headerlen, const char *payload, size_t payloadlen)
{
	char	   *text = sign(ec, header, headerlen, payload, payloadlen);
	const char *outcome = outcome_of(text, strlen(text));

	free(text);
	return outcome;
}

#define header_is(header, outcome, name) \
	is_text(signed_bytes(header, sizeof(header) - 1, PAYLOAD, sizeof(PAYLOAD) - 1), outcome, "header: %s", name)
#define payload_is(payload, outcome, name) \
	is_text(signed_bytes(HEADER, sizeof(HEADER) - 1, payload, sizeof(payload) - 1), outcome, "payload: %s", name)

static SaTokenDraft
draft(void)
{
	SaTokenDraft d = {
		.issuer = "sessauth", .audience = "sessauth", .tid = "a:b}{", .uid = "%", .sid = SID,
		.epoch = 5, .tepoch = 6, .iat = NOW, .exp = NOW + 300
	};

	return d;
}

static void
test_round_trip(const SaKey *key, const char *kid)
{
	SaTokenDraft d = draft();
	SaTokenRules rules = rules_at(NOW);
	SaToken		token;
	char	   *text;
	char	   *second;

	d.claims = " {\"role\" : \"admin\",\"big\":9223372036854775807, \"n\":[1, 2.50,{\"iss\":\"}\\\"]\"}],\"t\":0.5,\"e\":1E+2, \"\\u006bey\":null,\"empty\":{} ,\"z\":true }\n";
	d.epoch = INT64_MAX;
	text = sa_token_mint(key, kid, &d);
	if (!ok(text != NULL, "%s: a token is minted", kid))
		return;
	is_text(read_with(text, strlen(text), &rules, &token), "ok", "%s: and read", kid);
	ok(strcmp(token.tid, "a:b}{") == 0 && strcmp(token.uid, "%") == 0 && strcmp(token.sid, SID) == 0 && strcmp(token.kid, kid) == 0 &&
	   token.epoch == INT64_MAX && token.tepoch == 6 && token.iat == NOW && token.exp == NOW + 300, "%s: it says what was signed", kid);
	is_text(token.claims, "{\"role\":\"admin\",\"big\":9223372036854775807,\"n\":[1,2.5,{\"iss\":\"}\\\"]\"}],\"t\":0.5,\"e\":100.0,\"key\":null,\"empty\":{},\"z\":true}",
			"%s: own claims come back in their order", kid);
	sa_token_free(&token);
	sa_token_free(&token);

	rules.want_claims = false;
	ok(strcmp(read_with(text, strlen(text), &rules, &token), "ok") == 0 && token.claims == NULL, "%s: or not at all", kid);
	second = sa_token_mint(key, kid, &d);
	ok(second != NULL && strcmp(text, second) != 0, "%s: two tokens differ", kid);
	free(second);
	free(text);

	d.claims = "{}";
	text = sa_token_mint(key, kid, &d);
	rules.want_claims = true;
	ok(strcmp(read_with(text, strlen(text), &rules, &token), "ok") == 0 && token.claims == NULL, "%s: empty claims are none", kid);
	free(text);
}

static void
test_mint_refuses(void)
{
	SaTokenDraft d;
	char		large[9000];
	SaKey	   *public;
	char	   *jwk;
	char	   *text;

#define refuses(change, name) \
	do { d = draft(); change; ok(sa_token_mint(ec, "ec", &d) == NULL, "mint refuses %s", name); } while (0)

	memset(large, 'x', sizeof(large));
	large[256] = '\0';
	refuses(d.tid = "", "an empty tenant");
	refuses(d.uid = "", "an empty user");
	refuses(d.tid = large + 127, "a tenant of 129 bytes");
	refuses(d.uid = large, "a user of 256 bytes");
	refuses(d.uid = "a\nb", "a control character");
	refuses(d.uid = "\xff", "what is not UTF-8");
	refuses(d.sid = "0B0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01", "a session id in upper case");
	refuses(d.sid = "", "no session id");
	refuses(d.epoch = -1, "a negative epoch");
	refuses(d.exp = -1, "a negative time");
	refuses(d.exp = INT64_MAX, "a time after the year 9999");
	refuses(d.issuer = "", "an empty issuer");
	refuses(d.issuer = "\xff", "an issuer that is not UTF-8");
	refuses(d.audience = "\xff", "nor such an audience");
	refuses(d.client_id = "", "an empty client");
	refuses(d.claims = "{\"uid\":\"root\"}", "a claim that overrides");
	refuses(d.claims = "{\"a\":1}{", "claims that are no JSON");
	d = draft();
	ok(sa_token_mint(ec, "", &d) == NULL && sa_token_mint(ec, large, &d) == NULL, "mint refuses a kid that is empty or too long");

	large[256] = 'x';
	large[7000] = '\0';
	refuses(d.issuer = large, "a token of more than 8 KiB");
	large[5300] = '\0';
	d = draft();
	d.issuer = large;
	text = sa_token_mint(ec, "ec", &d);
	ok(text != NULL && strlen(text) < SA_TOKEN_MAX, "but not one of less");
	free(text);

	/* The longest ids and claims that are allowed fit into a token. */
	d = draft();
	memcpy(large, "{\"c\":\"", 6);
	memset(large + 6, 'x', sizeof(large) - 6);
	memcpy(large + SA_CLAIMS_MAX - 2, "\"}", 3);
	d.claims = large;
	ok(sa_claims_check(large, strlen(large)) == NULL && (text = sa_token_mint(rsa, "rsa", &d)) != NULL, "claims of %d bytes fit", SA_CLAIMS_MAX);
	free(text);

	jwk = sa_key_public_jwk(ec, "ec");
	public = sa_key_from_jwk(jwk, strlen(jwk));
	d = draft();
	ok(sa_token_mint(public, "ec", &d) == NULL, "a public key mints nothing");
	sa_key_free(public);
	free(jwk);
}

static void
test_times(void)
{
	SaTokenDraft d = draft();
	char	   *text = sa_token_mint(ec, "ec", &d);
	size_t		len = strlen(text);
	SaToken		token;
	SaTokenRules rules;

#define at(time, lee, outcome, name) \
	do { rules = rules_at(time); rules.leeway = lee; \
		is_text(read_with(text, len, &rules, &token), outcome, "%s", name); sa_token_free(&token); } while (0)

	at(NOW, 0, "ok", "valid at iat");
	at(NOW - 1, 0, "not_yet_valid", "not before iat");
	at(NOW - 10, 10, "ok", "but within the leeway");
	at(NOW - 11, 10, "not_yet_valid", "and not beyond it");
	at(NOW + 299, 0, "ok", "valid until exp");
	at(NOW + 300, 0, "expired", "expired at exp");
	ok(strcmp(token.uid, "%") == 0 && strcmp(token.sid, SID) == 0, "an expired token still says whose it is");
	at(NOW + 309, 10, "ok", "but within the leeway");
	at(NOW + 310, 10, "expired", "and not beyond it");
	at(-1, 0, "ok", "without a clock nothing expires");
	at(0, INT64_MAX, "ok", "the largest leeway does not overflow");
	at(INT64_MAX, INT64_MAX, "ok", "nor does the largest time");
	at(INT64_MAX, 0, "expired", "the end of time comes after exp");
	at(NOW + 300, -100, "expired", "a negative leeway is none");
	at(NOW + 299, INT64_MIN, "ok", "nor does the smallest one harm");
	free(text);
}

static void
test_hostile_bytes(void)
{
	SaTokenDraft d = draft();
	const SaKey *keys[] = {ec, ed, rsa};
	const char *kids[] = {"ec", "ed", "rsa"};

	for (int k = 0; k < 3; k++)
	{
		char	   *text = sa_token_mint(keys[k], kids[k], &d);
		size_t		len = strlen(text);
		char	   *copy;
		int			accepted = 0;
		int			odd = 0;

		for (size_t i = 0; i < len; i++)
		{
			/* An exact allocation, so that the sanitizer sees a read past the end. */
			copy = malloc(i > 0 ? i : 1);
			memcpy(copy, text, i);
			accepted += strcmp(outcome_of(copy, i), "ok") == 0;
			free(copy);
		}
		ok(accepted == 0, "%s: no end can be cut off", kids[k]);
		copy = malloc(len);
		for (size_t i = 0; i < len; i++)
		{
			static const char extra[] = {'.', 'A', '\0', ' ', '=', '\n', (char) 0xff};

			for (size_t c = 0; c < 8 + sizeof(extra); c++)
			{
				const char *outcome;

				memcpy(copy, text, len);
				copy[i] = c < 8 ? (char) (copy[i] ^ (1 << c)) : extra[c - 8];
				if (copy[i] == text[i])
					continue;
				outcome = outcome_of(copy, len);
				accepted += strcmp(outcome, "ok") == 0;
				odd += strcmp(outcome, "malformed") != 0 && strcmp(outcome, "bad_signature") != 0 && strcmp(outcome, "unknown_key") != 0;
			}
		}
		ok(accepted == 0, "%s: no byte can be changed", kids[k]);
		ok(odd == 0, "%s: and the outcome never comes from a payload that was not verified", kids[k]);
		free(copy);

		copy = malloc(len + 2);
		memcpy(copy, text, len + 1);
		for (int c = 0; c < 256; c++)
		{
			copy[len] = (char) c;
			accepted += strcmp(outcome_of(copy, len + 1), "malformed") != 0 && strcmp(outcome_of(copy, len + 1), "bad_signature") != 0;
		}
		ok(accepted == 0, "%s: nothing can follow", kids[k]);
		free(copy);
		free(text);
	}
}

static void
test_form(void)
{
	char		large[SA_TOKEN_MAX + 2];
	char	   *text = sign(ec, HEADER, sizeof(HEADER) - 1, PAYLOAD, sizeof(PAYLOAD) - 1);
	size_t		len = strlen(text);
	char	   *last = strrchr(text, '.');
	char		keep;

	is_text(outcome_of(text, len), "ok", "the model token of the tests below is good");
	is_text(outcome_of("", 0), "malformed", "nothing is malformed");
	is_text(outcome_of("..", 2), "malformed", "empty parts are malformed");
	is_text(outcome_of(text, (size_t) (last - text) + 1), "malformed", "an empty signature is malformed");
	is_text(outcome_of(text, (size_t) (last - text)), "malformed", "two parts are malformed");

	/* 64 bytes end in a character with four unused bits. */
	keep = text[len - 1];
	text[len - 1] = keep == 'A' ? 'B' : (char) (keep + 1);
	is_text(outcome_of(text, len), "malformed", "a last character that is not canonical is malformed");
	text[len - 1] = keep;

	memset(large, 'A', sizeof(large));
	lookup_called = false;
	is_text(outcome_of(large, SA_TOKEN_MAX + 1), "malformed", "more than 8 KiB is malformed");
	large[10] = large[4000] = '.';
	is_text(outcome_of(large, SA_TOKEN_MAX), "malformed", "8 KiB of nonsense, too");
	memset(large, '.', sizeof(large));
	is_text(outcome_of(large, 100), "malformed", "and dots");
	ok(!lookup_called, "no key was looked up for any of them");

	/* A good token, padded by white space inside its payload to just over the limit. */
	{
		static char payload[SA_TOKEN_MAX];
		char	   *padded;
		size_t		n = sizeof(PAYLOAD) - 1;

		memcpy(payload, PAYLOAD, n);
		memset(payload + n, ' ', sizeof(payload) - n);
		padded = sign(ec, HEADER, sizeof(HEADER) - 1, payload, 6010);
		ok(strlen(padded) <= SA_TOKEN_MAX && strlen(padded) > SA_TOKEN_MAX - 100, "a token of nearly 8 KiB (%zu)", strlen(padded));
		is_text(outcome_of(padded, strlen(padded)), "ok", "is read");
		free(padded);
		padded = sign(ec, HEADER, sizeof(HEADER) - 1, payload, 6080);
		ok(strlen(padded) > SA_TOKEN_MAX, "a token of a little more (%zu)", strlen(padded));
		is_text(outcome_of(padded, strlen(padded)), "malformed", "is not");
		free(padded);
	}
	free(text);
}

static void
test_headers(void)
{
	char		deep[3000];

	header_is("{\"alg\":\"ES256\",\"typ\":\"AT+JWT\",\"kid\":\"ec\"}", "ok", "typ in upper case");
	header_is("{\"alg\":\"ES256\",\"typ\":\"Application/at+jwt\",\"kid\":\"ec\"}", "ok", "typ with its prefix");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "ok", "as it is written");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"e\\u0063\"}", "ok", "the same kid, escaped");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"", "malformed", "its end is missing");
	header_is(" {\"kid\":\"ec\" , \"typ\":\"at\\u002bjwt\",\"alg\":\"ES256\"} ", "ok", "white space, order and escapes do not matter");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"jku\":\"http://evil/\",\"jwk\":{},\"x5u\":\"http://evil/\"}", "ok",
			  "an address of a key is ignored");
	header_is("{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"ec\"}", "malformed", "another typ");
	header_is("{\"alg\":\"ES256\",\"kid\":\"ec\"}", "malformed", "no typ");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\"}", "malformed", "no kid");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":1}", "malformed", "a kid that is no string");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"\"}", "malformed", "an empty kid");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\\u0000\"}", "malformed", "a NUL in kid");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"e\\nc\"}", "malformed", "a line break in kid");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"other\"}", "unknown_key", "a kid that nobody knows");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ed\"}", "malformed", "the kid of a key of another algorithm");
	header_is("{\"alg\":\"none\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg none");
	header_is("{\"alg\":\"None\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg None");
	header_is("{\"alg\":\"es256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg in lower case");
	header_is("{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg HS256");
	header_is("{\"alg\":\"RS256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg RS256 for an EC key");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"rsa\"}", "malformed", "alg ES256 for an RSA key");
	header_is("{\"alg\":[\"ES256\"],\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg in an array");
	header_is("{\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "no alg");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"crit\":[]}", "malformed", "an empty crit");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"crit\":[\"b64\"],\"b64\":false}", "malformed", "crit b64");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"crit\":null}", "malformed", "crit null");
	header_is("{\"alg\":\"none\",\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "alg twice");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"\\u006bid\":\"ed\"}", "malformed", "kid twice, once escaped");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}x", "malformed", "something after it");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}\0", "malformed", "a NUL after it");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}{}", "malformed", "another object after it");
	header_is("\xef\xbb\xbf{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}", "malformed", "a byte order mark");
	header_is("[\"ES256\"]", "malformed", "an array");
	header_is("null", "malformed", "null");
	header_is("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"x\":\"\xff\"}", "malformed", "what is not UTF-8");

	memset(deep, '[', sizeof(deep));
	is_text(signed_bytes(deep, sizeof(deep), PAYLOAD, sizeof(PAYLOAD) - 1), "malformed", "header: deep nesting");
	snprintf(deep, sizeof(deep), "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"x\":%.31s1%.31s}",
			 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
	is_text(signed_bytes(deep, strlen(deep), PAYLOAD, sizeof(PAYLOAD) - 1), "ok", "header: 32 levels");
	snprintf(deep, sizeof(deep), "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\",\"x\":%.32s1%.32s}",
			 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
	is_text(signed_bytes(deep, strlen(deep), PAYLOAD, sizeof(PAYLOAD) - 1), "malformed", "header: 33 levels");
	snprintf(deep, sizeof(deep), "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"%0127d\"}", 0);
	is_text(signed_bytes(deep, strlen(deep), PAYLOAD, sizeof(PAYLOAD) - 1), "unknown_key", "header: a kid of 127 bytes");
	snprintf(deep, sizeof(deep), "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"%0128d\"}", 0);
	is_text(signed_bytes(deep, strlen(deep), PAYLOAD, sizeof(PAYLOAD) - 1), "malformed", "header: one of 128");
}

/* A token whose signature was made by another key, under the name of the one that is asked for. */
static void
test_confusion(void)
{
	char	   *text;
	SaKey	   *thief = sa_key_generate(SA_ALG_ES256);

	text = sign(thief, HEADER, sizeof(HEADER) - 1, PAYLOAD, sizeof(PAYLOAD) - 1);
	is_text(outcome_of(text, strlen(text)), "bad_signature", "a key of a thief does not sign for ours");
	free(text);
	text = sign(ed, HEADER, sizeof(HEADER) - 1, PAYLOAD, sizeof(PAYLOAD) - 1);
	is_text(outcome_of(text, strlen(text)), "bad_signature", "nor does another key of ours");
	free(text);
	text = sign(rsa, HEADER, sizeof(HEADER) - 1, PAYLOAD, sizeof(PAYLOAD) - 1);
	is_text(outcome_of(text, strlen(text)), "bad_signature", "nor one of another size");
	free(text);
	sa_key_free(thief);
}

static void
test_payloads(void)
{
	char		large[2000];

	payload_is("{\"iss\":\"other\",\"aud\":\"sessauth\"," WHO "," TIMES "}", "wrong_issuer", "another issuer");
	payload_is("{\"iss\":\"sessauth \",\"aud\":\"sessauth\"," WHO "," TIMES "}", "wrong_issuer", "an issuer with a space");
	payload_is("{\"iss\":[\"sessauth\"],\"aud\":\"sessauth\"," WHO "," TIMES "}", "malformed", "an issuer that is no string");
	payload_is("{\"aud\":\"sessauth\"," WHO "," TIMES "}", "malformed", "no issuer");
	payload_is("{\"iss\":\"sessauth\",\"aud\":\"other\"," WHO "," TIMES "}", "wrong_issuer", "another audience");
	payload_is("{\"iss\":\"sessauth\",\"aud\":[\"other\",\"sessauth\"]," WHO "," TIMES "}", "ok", "several audiences, one of them ours");
	payload_is("{\"iss\":\"sessauth\",\"aud\":[\"other\"]," WHO "," TIMES "}", "wrong_issuer", "several, none of them ours");
	payload_is("{\"iss\":\"sessauth\",\"aud\":[]," WHO "," TIMES "}", "wrong_issuer", "none at all");
	payload_is("{\"iss\":\"sessauth\",\"aud\":[\"sessauth\",1]," WHO "," TIMES "}", "malformed", "an audience that is no string");
	payload_is("{\"iss\":\"sessauth\",\"aud\":[[\"sessauth\"]]," WHO "," TIMES "}", "malformed", "an audience within an audience");
	payload_is("{\"iss\":\"sessauth\",\"aud\":{\"sessauth\":1}," WHO "," TIMES "}", "malformed", "an audience that is an object");
	payload_is("{\"iss\":\"sessauth\"," WHO "," TIMES "}", "malformed", "no audience");

#define who(sub, tid, uid, sid, epochs) \
	"{" FROM "," TIMES ",\"client_id\":\"c\",\"jti\":\"j\",\"sub\":" sub ",\"tid\":" tid ",\"uid\":" uid ",\"sid\":" sid "," epochs "}"
#define EPOCHS	"\"epoch\":5,\"tepoch\":6"

	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", EPOCHS), "ok", "the pattern of what follows");
	payload_is(who("\"v\"", "\"t\"", "\"u\"", "\"" SID "\"", EPOCHS), "malformed", "sub is not uid");
	payload_is(who("\"u\"", "\"\"", "\"u\"", "\"" SID "\"", EPOCHS), "malformed", "an empty tenant");
	payload_is(who("\"\"", "\"t\"", "\"\"", "\"" SID "\"", EPOCHS), "malformed", "an empty user");
	payload_is(who("\"u\"", "1", "\"u\"", "\"" SID "\"", EPOCHS), "malformed", "a tenant that is a number");
	payload_is(who("\"u\"", "\"t\\n\"", "\"u\"", "\"" SID "\"", EPOCHS), "malformed", "a line break in tenant");
	payload_is(who("\"u\\u0000\"", "\"t\"", "\"u\\u0000\"", "\"" SID "\"", EPOCHS), "malformed", "a NUL in user");
	payload_is(who("\"u\\u0085\"", "\"t\"", "\"u\\u0085\"", "\"" SID "\"", EPOCHS), "malformed", "a control character of Latin-1");
	payload_is(who("\"\\ud800\"", "\"t\"", "\"\\ud800\"", "\"" SID "\"", EPOCHS), "malformed", "half a surrogate");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"0B0E7C3A-8D7F-4A51-9F43-0D8F8F7A7A01\"", EPOCHS), "malformed", "a session in upper case");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"1\"", EPOCHS), "malformed", "a session that is no UUID");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "null", EPOCHS), "malformed", "a session that is null");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":5"), "malformed", "no tenant epoch");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":\"5\",\"tepoch\":6"), "malformed", "an epoch that is text");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":-1,\"tepoch\":6"), "malformed", "a negative epoch");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":5.0,\"tepoch\":6"), "malformed", "an epoch that is real");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":9223372036854775807,\"tepoch\":6"), "ok", "the largest epoch");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":9223372036854775808,\"tepoch\":6"), "malformed", "a larger one");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", "\"epoch\":1,\"epoch\":5,\"tepoch\":6"), "malformed", "an epoch twice");
	payload_is(who("\"u\"", "\"t\"", "\"u\"", "\"" SID "\"", EPOCHS ",\"a\":{\"b\":1,\"b\":2}"), "malformed", "a duplicate further in");

	payload_is("{" FROM "," WHO ",\"exp\":1700000300}", "malformed", "no iat");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000}", "malformed", "no exp");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":\"1700000300\"}", "malformed", "an exp that is text");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":1700000300.5}", "malformed", "an exp that is real");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":1.7e9}", "malformed", "an exp with an exponent");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":1e999}", "malformed", "an exp that is infinite");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":9223372036854775807}", "malformed", "an exp at the end of time");
	payload_is("{" FROM "," WHO ",\"iat\":-1,\"exp\":1700000300}", "malformed", "a negative iat");
	payload_is("{" FROM "," WHO ",\"iat\":1700000000,\"exp\":null}", "malformed", "an exp that is null");
	payload_is("{" FROM "," WHO ",\"iat\":true,\"exp\":1700000300}", "malformed", "an iat that is true");
	payload_is("{" FROM "," WHO "," TIMES ",\"nbf\":1700000000}", "ok", "nbf now");
	payload_is("{" FROM "," WHO "," TIMES ",\"nbf\":1700000001}", "not_yet_valid", "nbf later");
	payload_is("{" FROM "," WHO "," TIMES ",\"nbf\":\"x\"}", "malformed", "nbf that is text");
	payload_is("{" FROM "," WHO "," TIMES ",\"nbf\":null}", "malformed", "nbf that is null");
	payload_is("{\"iss\":\"other\",\"aud\":\"sessauth\"," WHO ",\"iat\":1,\"exp\":2}", "wrong_issuer", "the issuer is asked before the time");
	payload_is("{" FROM "," WHO ",\"iat\":1800000000,\"exp\":2}", "not_yet_valid", "the beginning before the end");

	payload_is("{" FROM "," TIMES ",\"sub\":\"u\",\"tid\":\"t\",\"uid\":\"u\",\"sid\":\"" SID "\",\"jti\":\"j\"," EPOCHS "}", "malformed", "no client_id");
	payload_is("{" FROM "," TIMES ",\"sub\":\"u\",\"tid\":\"t\",\"uid\":\"u\",\"sid\":\"" SID "\",\"client_id\":\"c\"," EPOCHS "}", "malformed", "no jti");
	payload_is(PAYLOAD "\n", "ok", "white space after it");
	payload_is(PAYLOAD "}", "malformed", "a brace after it");
	payload_is(PAYLOAD "\0", "malformed", "a NUL after it");
	payload_is("[" PAYLOAD "]", "malformed", "an array");
	payload_is("\"x\"", "malformed", "text");
	payload_is("{}", "malformed", "nothing in it");
	payload_is("\0", "malformed", "a NUL");
	payload_is("{" FROM "," WHO "," TIMES ",\"x\":0x10}", "malformed", "numbers that JSON does not have");
	payload_is("{" FROM "," WHO "," TIMES ",\"x\":NaN}", "malformed", "NaN");
	payload_is("{" FROM "," WHO "," TIMES ",}", "malformed", "a comma too many");

	snprintf(large, sizeof(large), "{" FROM "," TIMES ",\"client_id\":\"c\",\"jti\":\"j\",\"sub\":\"%0255d\",\"tid\":\"%0128d\",\"uid\":\"%0255d\",\"sid\":\"" SID "\"," EPOCHS "}", 0, 0, 0);
	is_text(signed_bytes(HEADER, sizeof(HEADER) - 1, large, strlen(large)), "ok", "payload: the longest ids");
	snprintf(large, sizeof(large), "{" FROM "," TIMES ",\"client_id\":\"c\",\"jti\":\"j\",\"sub\":\"%0256d\",\"tid\":\"%0128d\",\"uid\":\"%0256d\",\"sid\":\"" SID "\"," EPOCHS "}", 0, 0, 0);
	is_text(signed_bytes(HEADER, sizeof(HEADER) - 1, large, strlen(large)), "malformed", "payload: a user that is too long");
	snprintf(large, sizeof(large), "{" FROM "," TIMES ",\"client_id\":\"c\",\"jti\":\"j\",\"sub\":\"%0255d\",\"tid\":\"%0129d\",\"uid\":\"%0255d\",\"sid\":\"" SID "\"," EPOCHS "}", 0, 0, 0);
	is_text(signed_bytes(HEADER, sizeof(HEADER) - 1, large, strlen(large)), "malformed", "payload: a tenant that is too long");
}

/* Own claims in all places, in JSON as others might write it. */
static void
test_extract(void)
{
	static const char *const cases[][2] = {
		{"{\"x\":1," FROM "," WHO "," TIMES "}", "{\"x\":1}"},
		{"{" FROM ",\"x\" :\t\"a,b}\\\\\" ,\"y\": [ {\"tid\":\"]\"} ] ," WHO "," TIMES ",\"z\":-1.5e3 }\n", "{\"x\":\"a,b}\\\\\",\"y\":[{\"tid\":\"]\"}],\"z\":-1500.0}"},
		{" { \"nbf\" : 1 , " FROM "," WHO "," TIMES ",\"kid\":\"k\",\"active\":true,\"scope\":\"a b\"}", "{\"scope\":\"a b\"}"},
		{"{" FROM "," WHO "," TIMES ",\"\":false,\"\\\"\":{},\"l\":[]}", "{\"\":false,\"\\\"\":{},\"l\":[]}"},
		{"{" FROM "," WHO "," TIMES ",\"\\u0061ctive\":1,\"\xc3\xa9\":null}", "{\"\xc3\xa9\":null}"}
	};
	SaTokenRules rules = rules_at(NOW);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char	   *text = sign(ec, HEADER, sizeof(HEADER) - 1, cases[i][0], strlen(cases[i][0]));
		SaToken		token;

		is_text(read_with(text, strlen(text), &rules, &token), "ok", "own claims, case %zu", i);
		is_text(token.claims, cases[i][1], "are what is left");
		sa_token_free(&token);
		free(text);
	}
}

static const char *
check(const char *json)
{
	const char *problem = sa_claims_check(json, strlen(json));

	return problem ? problem : "none";
}

/* Reals grow on their way through jansson, and must not grow out of the token. */
static void
test_growing_claims(void)
{
	char		text[SA_CLAIMS_MAX + 10];
	size_t		n = (size_t) sprintf(text, "{\"a\":[0");
	SaTokenDraft d = draft();
	char	   *token;

	/* 6 bytes each, when they are written as 100.0. */
	for (int i = 0; i < (SA_CLAIMS_MAX - 9) / 6; i++)
		n += (size_t) sprintf(text + n, ",1E2");
	strcpy(text + n, "]}");
	d.claims = text;
	token = sa_token_mint(ec, "ec", &d);
	ok(strcmp(check(text), "none") == 0 && token != NULL && strcmp(outcome_of(token, strlen(token)), "ok") == 0,
	   "reals that fill 4096 bytes in the token fit");
	free(token);
	strcpy(text + n, ",1E2]}");
	is_text(check(text), "claims are too long", "one more does not");
}

static void
test_claims_check(void)
{
	static const char *const names[] = {
		"iss", "aud", "sub", "client_id", "jti", "iat", "exp", "nbf", "tid", "uid", "sid", "epoch", "tepoch",
		"typ", "cty", "alg", "kid", "crit", "active", "token_type", "\\u0069ss"
	};
	char		text[SA_CLAIMS_MAX + 10];

	is_text(check("{}"), "none", "empty claims are good");
	is_text(check("{\"role\":\"admin\",\"scope\":\"a b\",\"x\":{\"iss\":1}}"), "none", "own names, and any name further in, are good");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		snprintf(text, sizeof(text), "{\"a\":1,\"%s\":1}", names[i]);
		is_text(check(text), "claims have a member with a reserved name", "%s is reserved", names[i]);
	}
	is_text(check("[]"), "claims are not a JSON object", "an array is no claims");
	is_text(check("null"), "claims are not a JSON object", "null is no claims");
	is_text(check("\"x\""), "claims are not a JSON object", "text is no claims");
	is_text(check(""), "claims are not valid JSON", "nothing is no JSON");
	is_text(check("{\"a\":1}}"), "claims are not valid JSON", "something follows");
	is_text(check("{\"a\":1},\"uid\":\"root\"}"), "claims are not valid JSON", "an attempt to break out");
	is_text(check("{\"a\":\"\\u0000\"}"), "claims are not valid JSON", "a NUL in a string");
	is_text(check("{\"a\":1,\"a\":2}"), "claims have a duplicate member", "a duplicate");
	is_text(check("{\"a\":123456789012345678901}"), "claims have a number that is too large", "a large integer");
	is_text(check("{\"a\":1e999}"), "claims have a number that is too large", "a large real");
	ok(sa_claims_check("{}\0", 3) != NULL && sa_claims_check("{\"a\":\"\0\"}", 9) != NULL, "NULs in the text are refused");
	ok(sa_claims_check("{\"a\":1\0}", 8) != NULL && sa_claims_check("{\"a\":1\0,\"b\":2}", 14) != NULL, "also after a number");
	memset(text, ' ', sizeof(text));
	text[0] = '{';
	text[SA_CLAIMS_MAX - 1] = '}';
	ok(sa_claims_check(text, SA_CLAIMS_MAX) == NULL, "4096 bytes are enough for everybody");
	ok(sa_claims_check(text, SA_CLAIMS_MAX + 1) != NULL, "4097 are not");
	memset(text, '[', sizeof(text));
	is_text(sa_claims_check(text, SA_CLAIMS_MAX), "claims are nested too deeply", "deep nesting");
	test_growing_claims();
}

int
main(void)
{
	ec = sa_key_generate(SA_ALG_ES256);
	ed = sa_key_generate(SA_ALG_EDDSA);
	rsa = sa_key_generate(SA_ALG_RS256);
	test_round_trip(ec, "ec");
	test_round_trip(ed, "ed");
	test_round_trip(rsa, "rsa");
	test_mint_refuses();
	test_times();
	test_form();
	test_headers();
	test_confusion();
	test_payloads();
	test_extract();
	test_claims_check();
	test_hostile_bytes();
	sa_key_free(ec);
	sa_key_free(ed);
	sa_key_free(rsa);
	return tap_done();
}

/*
 * test_key.c
 *		Signing keys: the vectors of the RFCs, round trips, JWKs and sets of them.
 */
#include <stdlib.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "core/digest.h"
#include "core/encoding.h"
#include "core/key.h"
#include "tap.h"

#define EC_X	"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y	"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC_JWK	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"
#define ED_X	"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define ED_JWK	"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\"}"
#define RSA_N	"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs" \
	"tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI" \
	"SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
#define RSA_JWK	"{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAB\",\"alg\":\"RS256\",\"kid\":\"2011-04-29\"}"

static SaKey *
from_jwk(const char *json)
{
	return sa_key_from_jwk(json, strlen(json));
}

static bool
jwk_refused(const char *json)
{
	SaKey	   *key = from_jwk(json);

	sa_key_free(key);
	return key == NULL && ERR_peek_error() == 0;
}

/* Verifies the signature of a compact JWS. */
static bool
jws_verifies(const SaKey *key, const char *jws)
{
	const char *dot = strrchr(jws, '.');
	unsigned char sig[SA_SIGNATURE_MAX];
	size_t		n;

	return sa_b64url_decode(dot + 1, strlen(dot + 1), sig, sizeof(sig), &n) &&
		sa_key_verify(key, jws, (size_t) (dot - jws), sig, n);
}

static void
test_rfc(void)
{
	SaKey	   *ec = from_jwk(EC_JWK);
	SaKey	   *ed = from_jwk(ED_JWK);
	SaKey	   *rsa = from_jwk(RSA_JWK);
	char		thumb[SA_KID_LEN + 1];
	unsigned char sig[SA_SIGNATURE_MAX];
	unsigned char *der;
	size_t		n;

	if (!ok(ec && ed && rsa, "the keys of the RFCs are read"))
		return;
	ok(sa_key_alg(ec) == SA_ALG_ES256 && sa_key_alg(ed) == SA_ALG_EDDSA && sa_key_alg(rsa) == SA_ALG_RS256, "each has its algorithm");
	ok(jws_verifies(ec, "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
					".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"), "RFC 7515, A.3 verifies");
	ok(!jws_verifies(ec, "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfg"
					 ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"), "and does not when changed");
	ok(jws_verifies(ed, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
					".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"), "RFC 8037, A.4 verifies");
	ok(!jws_verifies(ed, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmd"
					 ".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"), "and does not when changed");
	ok(sa_key_thumbprint(rsa, thumb), "RFC 7638, 3.1:");
	is_text(thumb, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "the thumbprint is that of the RFC");
	ok(sa_key_thumbprint(ed, thumb), "RFC 8037, A.3:");
	is_text(thumb, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "the thumbprint is that of the RFC");

	n = 7;
	ok(!sa_key_sign(ec, "x", 1, sig, &n) && n == 0 && !sa_key_sign(ed, "x", 1, sig, &n) && !sa_key_sign(rsa, "x", 1, sig, &n),
	   "a public key does not sign");
	ok(!sa_key_private_der(ec, &der, &n) && der == NULL && !sa_key_private_der(ed, &der, &n) && !sa_key_private_der(rsa, &der, &n),
	   "and has no private half to give away");
	ok(ERR_peek_error() == 0, "OpenSSL's error queue is empty");
	sa_key_free(ec);
	sa_key_free(ed);
	sa_key_free(rsa);
}

/* OpenSSL itself, without our code, must agree on RS256 and on PKCS #8. */
static bool
openssl_verifies(const char *der_alg, const unsigned char *der, size_t len, const void *msg, size_t msglen,
				 const unsigned char *sig, size_t siglen)
{
	const unsigned char *p = der;
	EVP_PKEY   *pkey = d2i_AutoPrivateKey(NULL, &p, (long) len);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool		good;

	good = pkey != NULL && EVP_PKEY_is_a(pkey, der_alg) &&
		EVP_DigestVerifyInit(ctx, NULL, strcmp(der_alg, "ED25519") == 0 ? NULL : EVP_sha256(), NULL, pkey) == 1 &&
		EVP_DigestVerify(ctx, sig, siglen, msg, msglen) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	return good;
}

static void
test_round_trip(SaAlg alg, const char *openssl_name, size_t expected_siglen)
{
	const char *name = sa_alg_name(alg);
	SaKey	   *key = sa_key_generate(alg);
	SaKey	   *other = alg == SA_ALG_RS256 ? from_jwk(RSA_JWK) : sa_key_generate(alg);
	SaKey	   *stored = NULL;
	SaKey	   *public = NULL;
	unsigned char *der = NULL;
	size_t		derlen = 0;
	unsigned char sig[SA_SIGNATURE_MAX];
	size_t		n = 0;
	char	   *jwk;
	char		kid[SA_KID_LEN + 1];
	char		kid2[SA_KID_LEN + 1];
	int			accepted = 0;
	SaAlg		alg2;

	if (!ok(key != NULL && other != NULL && sa_key_alg(key) == alg, "%s: a key is made", name))
		return;
	ok(sa_alg_parse(name, strlen(name), &alg2) && alg2 == alg, "%s: its name is parsed", name);
	ok(sa_key_thumbprint(key, kid) && strlen(kid) == SA_KID_LEN, "%s: it has a thumbprint", name);
	jwk = sa_key_public_jwk(key, kid);
	ok(jwk != NULL && strstr(jwk, "\"use\":\"sig\"") && strstr(jwk, kid) && strstr(jwk, name) && !strstr(jwk, "\"d\""),
	   "%s: its public JWK names use, kid and alg, and nothing private", name);
	public = from_jwk(jwk);
	ok(public != NULL && sa_key_thumbprint(public, kid2) && strcmp(kid, kid2) == 0, "%s: the JWK is read as the same key", name);
	ok(sa_key_private_der(key, &der, &derlen), "%s: it can be stored", name);
	stored = sa_key_from_private_der(alg, der, derlen);
	ok(stored != NULL && sa_key_thumbprint(stored, kid2) && strcmp(kid, kid2) == 0, "%s: and restored", name);

	ok(sa_key_sign(stored, "message", 7, sig, &n) && n == expected_siglen, "%s: it signs, %d bytes", name, (int) expected_siglen);
	ok(sa_key_verify(public, "message", 7, sig, n) && sa_key_check(public, "message", 7, sig, n) == 1, "%s: the signature verifies", name);
	ok(!sa_key_verify(public, "messagf", 7, sig, n) && !sa_key_verify(public, "message", 6, sig, n) &&
	   sa_key_check(public, "messagf", 7, sig, n) == 0, "%s: another message does not", name);
	ok(!sa_key_verify(other, "message", 7, sig, n), "%s: nor another key", name);
	if (alg != SA_ALG_ES256)
		ok(openssl_verifies(openssl_name, der, derlen, "message", 7, sig, n), "%s: OpenSSL agrees", name);

	for (size_t i = 0; i < n; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			sig[i] ^= (unsigned char) (1 << bit);
			accepted += sa_key_check(public, "message", 7, sig, n) != 0;
			sig[i] ^= (unsigned char) (1 << bit);
		}
		accepted += sa_key_check(public, "message", 7, sig, i) != 0;
	}
	accepted += sa_key_check(public, "message", 7, sig, n + 1) != 0;
	ok(accepted == 0, "%s: no bit of a signature can be changed, no end cut off or added", name);
	memset(sig, 0, sizeof(sig));
	ok(sa_key_check(public, "message", 7, sig, n) == 0, "%s: zeros are no signature", name);
	memset(sig, 0xff, sizeof(sig));
	ok(sa_key_check(public, "message", 7, sig, n) == 0, "%s: nor are ones", name);

	for (size_t i = 0; i < derlen; i++)
	{
		SaKey	   *cut = sa_key_from_private_der(alg, der, i);

		accepted += cut != NULL;
		sa_key_free(cut);
	}
	ok(accepted == 0, "%s: a stored key that is cut off is refused", name);
	for (int a = SA_ALG_ES256; a <= SA_ALG_RS256; a++)
	{
		SaKey	   *wrong = (SaAlg) a != alg ? sa_key_from_private_der((SaAlg) a, der, derlen) : NULL;

		accepted += wrong != NULL;
		sa_key_free(wrong);
	}
	der = realloc(der, derlen + 1);
	der[derlen] = 0;
	ok(accepted == 0 && sa_key_from_private_der(alg, der, derlen + 1) == NULL, "%s: and so is one of another algorithm, or with more after it", name);
	ok(ERR_peek_error() == 0, "%s: OpenSSL's error queue is empty", name);

	free(der);
	free(jwk);
	sa_key_free(key);
	sa_key_free(other);
	sa_key_free(stored);
	sa_key_free(public);
}

/* Signatures whose r or s starts with a zero byte are where DER and r||s differ in length. */
static void
test_short_integers(void)
{
	SaKey	   *key = sa_key_generate(SA_ALG_ES256);
	unsigned char sig[SA_SIGNATURE_MAX];
	size_t		n;
	int			zeros = 0;
	bool		good = true;

	for (int i = 0; i < 3000 && zeros < 6; i++)
	{
		good = good && sa_key_sign(key, &i, sizeof(i), sig, &n) && n == 64;
		if (sig[0] == 0 || sig[32] == 0)
		{
			zeros++;
			good = good && sa_key_verify(key, &i, sizeof(i), sig, n);
		}
	}
	ok(good && zeros > 0, "%d signatures with a leading zero byte verify", zeros);
	sa_key_free(key);
}

static void
test_alg_names(void)
{
	SaAlg		alg;

	ok(!sa_alg_parse("es256", 5, &alg) && !sa_alg_parse("none", 4, &alg) && !sa_alg_parse("HS256", 5, &alg) && !sa_alg_parse("", 0, &alg) &&
	   !sa_alg_parse("ES2567", 6, &alg) && !sa_alg_parse("ES25", 4, &alg) && !sa_alg_parse("ES256\0", 6, &alg) && !sa_alg_parse("ES384", 5, &alg),
	   "no other algorithm has a name");
}

static void
test_bad_jwks(void)
{
	char		large[4096];

	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_X "\"}"), "a point that is not on the curve is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"), "another curve is refused");
	ok(jwk_refused("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ED_X "\"}"), "a key for agreement is refused");
	ok(jwk_refused("{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"HS256\"}"), "a symmetric key is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"alg\":\"RS256\"}"), "alg must agree with kty");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"alg\":1}"), "and be a string");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"d\":\"AA\"}"), "a published private key is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"use\":\"enc\"}"), "a key for encryption is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"key_ops\":[\"sign\"]}"), "so is one that may not verify");
	ok(!jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"key_ops\":[\"verify\"],\"x5u\":\"http://x/\"}"),
	   "one that may is read, with members that we do not know");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\"}"), "a duplicate member is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"" EC_Y "\"}"), "a short coordinate is refused");
	ok(jwk_refused("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "=\",\"y\":\"" EC_Y "\"}"), "padding is refused");
	ok(jwk_refused("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}"), "a short Ed25519 key is refused");
	ok(jwk_refused("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"Ag\"}") && jwk_refused("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQ\"}") &&
	   jwk_refused("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AAEAAQ\"}") && jwk_refused("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"\"}") &&
	   jwk_refused("{\"kty\":\"RSA\",\"n\":\"" RSA_N "\",\"e\":\"AQAAAAAAAAAB\"}"), "an even, trivial, padded, empty or huge exponent is refused");
	snprintf(large, sizeof(large), "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"AQAB\"}", 172, RSA_N);
	ok(jwk_refused(large), "a modulus of 1024 bits is refused");
	memset(large, 'A', sizeof(large));
	memcpy(large, "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"/////", 30);
	memcpy(large + 2000, "\"}", 3);
	ok(jwk_refused(large), "one that no signature could be stored for, too");
	ok(jwk_refused("[]") && jwk_refused("") && jwk_refused("{}") && jwk_refused("null") && jwk_refused("{\"kty\":1}") && jwk_refused(EC_JWK "x"),
	   "and whatever is no JWK");
	sa_key_free(NULL);
}

static SaKeySet *
parse(const char *json)
{
	return sa_keyset_parse(json, strlen(json));
}

static void
test_keyset(void)
{
	SaKeySet   *set;
	char	   *text;
	size_t		n;

	set = parse("{\"keys\":["
				"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"kid\":\"a\"},"
				"{\"kty\":\"oct\",\"k\":\"AAAA\",\"kid\":\"h\"},"
				"{\"kty\":\"new\",\"kid\":\"n\"},"
				"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"AA\",\"kid\":\"off\"},"
				"{\"kty\":\"RSA\",\"n\":\"_w\",\"e\":\"AQAB\",\"kid\":\"off\"},"
				"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"use\":\"enc\",\"kid\":\"a\"},"
				ED_JWK ","
				RSA_JWK "],\"more\":1}");
	if (ok(set != NULL && sa_keyset_count(set) == 2, "a set keeps what it can use, and skips the rest"))
	{
		ok(sa_keyset_find(set, "a", 1) != NULL && sa_key_alg(sa_keyset_find(set, "a", 1)) == SA_ALG_ES256 &&
		   sa_key_alg(sa_keyset_find(set, "2011-04-29", 10)) == SA_ALG_RS256, "keys are found by kid");
		ok(!sa_keyset_find(set, "h", 1) && !sa_keyset_find(set, "off", 3) && !sa_keyset_find(set, "", 0) && !sa_keyset_find(set, "a\0", 2) &&
		   !sa_keyset_find(set, "2011-04-2", 9), "others are not");
	}
	sa_keyset_free(set);
	sa_keyset_free(NULL);

	set = parse("{\"keys\":[]}");
	ok(set != NULL && sa_keyset_count(set) == 0, "a set may be empty");
	sa_keyset_free(set);
	ok(!parse("{}") && !parse("[]") && !parse("") && !parse("{\"keys\":{}}") && !parse("{\"keys\":[1]}") && !parse("{\"keys\":[]}]") &&
	   !parse("{\"keys\":[],\"keys\":[]}"), "what is no set is refused");
	ok(!parse("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_X "\",\"kid\":\"a\"}]}"), "a broken key of ours spoils the set");
	ok(!parse("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\",\"kid\":\"2011-04-29\"}," RSA_JWK "]}"),
	   "two keys of one kid are refused");

	text = malloc(300 * 1024);
	n = (size_t) sprintf(text, "{\"keys\":[");
	for (int i = 0; i < 257; i++)
		n += (size_t) sprintf(text + n, "%s{\"kid\":\"%d\"}", i ? "," : "", i);
	strcpy(text + n, "]}");
	ok(!parse(text), "257 keys are refused");
	memset(text, ' ', 300 * 1024);
	memcpy(text, "{\"keys\":[]}", 11);
	ok(!sa_keyset_parse(text, 256 * 1024 + 1), "a text of more than 256 KiB is refused");
	set = sa_keyset_parse(text, 256 * 1024);
	ok(set != NULL, "one of 256 KiB is not");
	sa_keyset_free(set);
	memset(text, '[', 200 * 1024);
	ok(!sa_keyset_parse(text, 200 * 1024), "deep nesting is refused");
	free(text);
}

int
main(void)
{
	test_rfc();
	test_round_trip(SA_ALG_ES256, "EC", 64);
	test_round_trip(SA_ALG_EDDSA, "ED25519", 64);
	test_round_trip(SA_ALG_RS256, "RSA", 384);
	test_short_integers();
	test_alg_names();
	test_bad_jwks();
	test_keyset();
	return tap_done();
}

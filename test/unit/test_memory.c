/*
 * test_memory.c
 *		Out of memory at every single allocation: nothing leaks, and nothing is called forged or unknown for it.
 *
 * Each case is run again and again, with the first, the second, the third …
 * allocation failing (alone, or with all that follow; of the many that decoding needs only a sample),
 * until it runs through without a failure. Our own
 * allocations are caught by the linker (unit.mk), those of OpenSSL and jansson by their hooks.
 *
 * jansson may call a text malformed when it had no memory (json.c); only after such a failure that is no lie.
 */
#include <stdlib.h>

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "core/digest.h"
#include "core/refresh.h"
#include "core/seal.h"
#include "core/token.h"
#include "tap.h"

#define NOW		1700000000

/* Longer than the buffers that jansson starts with. */
#define TENANT	"tenant-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789-abcdefghijklmnopqrstuvwxyz"
#define CLAIMS	"{\"role\":\"admin-0123456789-abcdefghijklmnopqrstuvwxyz\",\"n\":[1,{\"x\":true}]}"

static bool armed;
static bool all_that_follow;
static long countdown;
static bool failed;
static bool jansson_failed;
static bool only_jansson;

static SaKey *key;
static char *jwk;
static char *jwks;
static char *text;
static unsigned char *der;
static size_t derlen;

extern void *__real_malloc(size_t size);
extern void *__real_calloc(size_t n, size_t size);
extern void *__wrap_malloc(size_t size);
extern void *__wrap_calloc(size_t n, size_t size);

static bool
fails_now(void)
{
	if (!armed || countdown-- > 0)
		return false;
	if (countdown < -1 && !all_that_follow)
		return false;
	failed = true;
	return true;
}

void *
__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : __real_calloc(n, size);
}

static void *
jansson_malloc(size_t size)
{
	if (!fails_now())
		return __real_malloc(size);
	jansson_failed = true;
	return NULL;
}

static void *
openssl_malloc(size_t size, const char *file, int line)
{
	(void) file;
	(void) line;
	return size == 0 || (!only_jansson && fails_now()) ? NULL : __real_malloc(size);
}

static void *
openssl_realloc(void *p, size_t size, const char *file, int line)
{
	(void) file;
	(void) line;
	if (size == 0)
	{
		free(p);
		return NULL;
	}
	return !only_jansson && fails_now() ? NULL : realloc(p, size);
}

static void
openssl_free(void *p, const char *file, int line)
{
	(void) file;
	(void) line;
	free(p);
}

static const SaKey *
lookup(void *arg, const char *kid, size_t kidlen)
{
	(void) arg;
	(void) kid;
	(void) kidlen;
	return key;
}

/* Each case returns 1 when it worked, 0 when it failed as it should, -1 when it told a lie. */

static int
case_read(void)
{
	SaTokenRules rules = {"sessauth", "sessauth", NOW, 0, true};
	SaToken		token;
	SaTokenResult result = sa_token_read(text, strlen(text), lookup, NULL, &rules, &token);
	bool		same = token.claims != NULL && strcmp(token.claims, CLAIMS) == 0 && strcmp(token.tid, TENANT) == 0;

	sa_token_free(&token);
	if (result == SA_TOKEN_OK)
		return same ? 1 : -1;
	return result == SA_TOKEN_ERROR || (result == SA_TOKEN_MALFORMED && jansson_failed) ? 0 : -1;
}

static char *
mint(void)
{
	SaTokenDraft d = {
		.issuer = "sessauth", .audience = "sessauth", .tid = TENANT, .uid = "u", .sid = "0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01",
		.iat = NOW, .exp = NOW + 1, .claims = CLAIMS
	};

	return sa_token_mint(key, "k", &d);
}

/* What was minted must say everything. */
static int
case_mint(void)
{
	char	   *good = text;
	char	   *minted = mint();
	int			result = 0;

	armed = false;
	if (minted != NULL)
	{
		text = minted;
		result = case_read() == 1 ? 1 : -1;
		text = good;
	}
	free(minted);
	return result;
}

static int
case_verify(void)
{
	unsigned char sig[SA_SIGNATURE_MAX];
	size_t		n;
	int			result;

	if (!sa_key_sign(key, "x", 1, sig, &n))
		return 0;
	result = sa_key_check(key, "x", 1, sig, n);
	return result == 1 ? 1 : result == -1 ? 0 : -1;
}

static int
case_jwk(void)
{
	SaKey	   *read = sa_key_from_jwk(jwk, strlen(jwk));
	int			result = read != NULL;

	sa_key_free(read);
	return result;
}

/* A set that is short of a key would call its tokens unknown. */
static int
case_jwks(void)
{
	SaKeySet   *set = sa_keyset_parse(jwks, strlen(jwks));
	int			result = set == NULL ? 0 : sa_keyset_count(set) == 1 ? 1 : -1;

	sa_keyset_free(set);
	return result;
}

static int
case_der(void)
{
	SaKey	   *read = sa_key_from_private_der(sa_key_alg(key), der, derlen);
	int			result = read != NULL;

	sa_key_free(read);
	return result;
}

static int
case_publish(void)
{
	char		thumb[SA_KID_LEN + 1];
	char	   *json = sa_key_public_jwk(key, "k");
	int			result = json == NULL ? 0 : strcmp(json, jwk) == 0 ? 1 : -1;

	free(json);
	return sa_key_thumbprint(key, thumb) ? result : 0;
}

static int
case_store(void)
{
	unsigned char *out;
	size_t		n;
	bool		good = sa_key_private_der(key, &out, &n);

	if (good && (n != derlen || memcmp(out, der, n) != 0))
		return -1;
	free(out);
	return good;
}

static int
case_generate(void)
{
	SaKey	   *made = sa_key_generate(sa_key_alg(key));
	int			result = made != NULL;

	sa_key_free(made);
	return result;
}

static int
case_seal(void)
{
	unsigned char master[SA_KEY_LEN] = {1};
	unsigned char sealed[10 + SA_SEAL_OVERHEAD];
	unsigned char out[10];

	return sa_seal(master, "l", "0123456789", 10, sealed) && sa_unseal(master, "l", sealed, sizeof(sealed), out) ?
		memcmp(out, "0123456789", 10) == 0 ? 1 : -1 : 0;
}

static int
case_mac(void)
{
	static const unsigned char link[SA_KEY_LEN] = {2};
	static char large[4000];
	unsigned char a[SA_DIGEST_LEN];
	unsigned char b[SA_DIGEST_LEN];
	SaField		fields[2] = {{large, sizeof(large)}, {"x", 1}};
	SaRefresh	token = {.counter = 1};
	SaRefresh	read;
	char		encoded[SA_REFRESH_TEXT_LEN + 1];

	if (!sa_mac(link, fields, 2, a) || !sa_sha256(a, sizeof(a), b) || !sa_refresh_encode(link, &token, encoded))
		return 0;
	return sa_refresh_decode(link, encoded, strlen(encoded), &read);
}

static int
case_claims(void)
{
	const char *problem = sa_claims_check(CLAIMS, strlen(CLAIMS));

	return problem == NULL ? 1 : strstr(problem, "memory") || (jansson_failed && strstr(problem, "not valid")) ? 0 : -1;
}

static void
run(const char *name, int (*what) (void))
{
	for (int follow = 0; follow < 2; follow++)
	{
		long		n = 0;
		long		tries = 0;
		int			lies = 0;
		int			dirty = 0;
		int			result;

		do
		{
			all_that_follow = follow == 1;
			failed = false;
			jansson_failed = false;
			countdown = n;
			n += 1 + n / 100;
			armed = true;
			tries++;
			result = what();
			armed = false;
			/* An RSA key needs some signatures to get over a shortage (see sa_key_sign). */
			lies += result < 0 || (result == 0 && !failed && sa_key_alg(key) != SA_ALG_RS256);
			dirty += ERR_peek_error() != 0;
		} while ((failed || result == 0) && tries < 2000);

		/* OpenSSL does not say when Ed25519 alone met one shortage that was over at once. */
		if (!all_that_follow && lies > 0 && sa_key_alg(key) == SA_ALG_EDDSA && (what == case_read || what == case_verify))
			lies--;
		ok(lies == 0 && dirty == 0 && result == 1, "%s %s: %s (%ld tries)", sa_alg_name(sa_key_alg(key)), name,
		   follow ? "no memory any more" : "one allocation fails", tries);
		if (lies || dirty)
			printf("# lies %d, errors left in the queue %d\n", lies, dirty);
	}
}

/* jansson fails at its first allocation without a word. */
static void
test_silence(void)
{
	SaTokenRules rules = {"sessauth", "sessauth", NOW, 0, false};
	SaToken		token;
	SaTokenResult result;
	const char *problem;

	all_that_follow = false;
	jansson_failed = false;
	countdown = 0;
	only_jansson = true;
	armed = true;
	result = sa_token_read(text, strlen(text), lookup, NULL, &rules, &token);
	armed = false;
	ok(jansson_failed && result == SA_TOKEN_ERROR, "a token that jansson had no memory for is not malformed");
	jansson_failed = false;
	countdown = 0;
	armed = true;
	problem = sa_claims_check(CLAIMS, strlen(CLAIMS));
	armed = false;
	ok(jansson_failed && problem != NULL && strstr(problem, "memory") != NULL, "nor are such claims");
	only_jansson = false;
}

int
main(void)
{
	if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
		return 1;
	json_set_alloc_funcs(jansson_malloc, free);

	for (int alg = SA_ALG_ES256; alg <= SA_ALG_RS256; alg++)
	{
		size_t		size;

		key = sa_key_generate((SaAlg) alg);
		jwk = sa_key_public_jwk(key, "k");
		size = strlen(jwk) + 20;
		jwks = malloc(size);
		snprintf(jwks, size, "{\"keys\":[%s]}", jwk);
		text = mint();
		sa_key_private_der(key, &der, &derlen);

		run("read", case_read);
		run("mint", case_mint);
		run("verify", case_verify);
		run("jwk", case_jwk);
		run("jwks", case_jwks);
		run("restore", case_der);
		run("publish", case_publish);
		run("store", case_store);
		if (alg == SA_ALG_ES256)
		{
			run("generate", case_generate);
			run("seal", case_seal);
			run("mac", case_mac);
			run("claims", case_claims);
			test_silence();
		}
		free(jwk);
		free(jwks);
		free(text);
		sa_wipe(der, derlen);
		free(der);
		sa_key_free(key);
	}
	return tap_done();
}

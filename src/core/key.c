/*
 * key.c
 *		Signing keys: generate, store, sign and verify. JWKs are in key_jwk.c.
 *
 * The OpenSSL key is made once, when the SaKey is, because decoding costs many times a signature
 * in OpenSSL 3; signing sets up a context around it. Contexts for verifying are kept: a key is shared by threads,
 * so each takes one out of the key for as long as it uses it.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "digest.h"
#include "key.h"
#include "key_internal.h"

/* Newer libraries of the same name say it than these headers may know. */
#ifndef EVP_R_PROVIDER_SIGNATURE_FAILURE
#define EVP_R_PROVIDER_SIGNATURE_FAILURE 234
#endif

#define ED25519_SIGNATURE_LEN 64
#define RSA_BITS_NEW	3072
#define RSA_BITS_MAX	(SA_SIGNATURE_MAX * 8)

static const char *const alg_names[] = {
	[SA_ALG_ES256] = "ES256",
	[SA_ALG_EDDSA] = "EdDSA",
	[SA_ALG_RS256] = "RS256"
};

static bool pkey_fits(SaAlg alg, const EVP_PKEY *pkey);
static bool rsa_fits(const EVP_PKEY *pkey);
static EVP_PKEY *pkey_from_der(const unsigned char *der, size_t len);
static bool raw_from_ecdsa_der(const unsigned char *der, size_t len, unsigned char raw[EC_COORDINATE_LEN * 2]);
static size_t ecdsa_der_from_raw(const unsigned char raw[EC_COORDINATE_LEN * 2], unsigned char *der);
static size_t der_integer(const unsigned char *number, unsigned char *der);
static int	check_digest(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen);
static int	check_message(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen);
static EVP_PKEY_CTX *take_context(const SaKey *key);
static void give_back(const SaKey *key, EVP_PKEY_CTX *ctx);
static bool queue_says_trouble(void);

const char *
sa_alg_name(SaAlg alg)
{
	return alg_names[alg];
}

bool
sa_alg_parse(const char *name, size_t len, SaAlg *alg)
{
	for (size_t i = 0; i < sizeof(alg_names) / sizeof(alg_names[0]); i++)
	{
		if (strlen(alg_names[i]) == len && memcmp(alg_names[i], name, len) == 0)
		{
			*alg = (SaAlg) i;
			return true;
		}
	}
	return false;
}

SaKey *
sa_key_generate(SaAlg alg)
{
	EVP_PKEY   *pkey = NULL;
	SaKey	   *key;

	switch (alg)
	{
		case SA_ALG_ES256:
			pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
			break;
		case SA_ALG_EDDSA:
			pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
			break;
		case SA_ALG_RS256:
			pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t) RSA_BITS_NEW);
			break;
	}
	key = sa_key_wrap(alg, pkey, true);
	ERR_clear_error();
	return key;
}

SaKey *
sa_key_wrap(SaAlg alg, EVP_PKEY *pkey, bool can_sign)
{
	SaKey	   *key;

	if (pkey == NULL)
		return NULL;
	key = pkey_fits(alg, pkey) ? calloc(1, sizeof(*key)) : NULL;
	if (key == NULL)
	{
		EVP_PKEY_free(pkey);
		return NULL;
	}
	key->alg = alg;
	key->can_sign = can_sign;
	key->pkey = pkey;
	if (alg != SA_ALG_EDDSA)
	{
		key->md = EVP_MD_fetch(NULL, "SHA256", NULL);
		if (key->md == NULL)
		{
			sa_key_free(key);
			return NULL;
		}
	}
	return key;
}

static bool
pkey_fits(SaAlg alg, const EVP_PKEY *pkey)
{
	char		group[64];

	switch (alg)
	{
		case SA_ALG_ES256:
			return EVP_PKEY_is_a(pkey, "EC") &&
				EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) == 1 &&
				strcmp(group, SN_X9_62_prime256v1) == 0;
		case SA_ALG_EDDSA:
			return EVP_PKEY_is_a(pkey, "ED25519");
		case SA_ALG_RS256:
			/* Not RSA-PSS, which OpenSSL counts as a type of its own. */
			return EVP_PKEY_is_a(pkey, "RSA") && rsa_fits(pkey);
	}
	return false;
}

static bool
rsa_fits(const EVP_PKEY *pkey)
{
	BIGNUM	   *n = NULL;
	BIGNUM	   *e = NULL;
	bool		ok;

	ok = EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_N, &n) == 1 &&
		EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e) == 1 &&
		BN_num_bits(n) >= RSA_BITS_MIN && BN_num_bits(n) <= RSA_BITS_MAX && BN_is_odd(n) &&
		BN_num_bits(e) >= 2 && BN_num_bits(e) <= RSA_EXPONENT_BITS_MAX && BN_is_odd(e);
	BN_free(n);
	BN_free(e);
	return ok;
}

SaKey *
sa_key_from_private_der(SaAlg alg, const void *der, size_t len)
{
	SaKey	   *key = sa_key_wrap(alg, pkey_from_der(der, len), true);

	ERR_clear_error();
	return key;
}

/* PKCS #8 and nothing after it. */
static EVP_PKEY *
pkey_from_der(const unsigned char *der, size_t len)
{
	const unsigned char *p = der;
	PKCS8_PRIV_KEY_INFO *info;
	EVP_PKEY   *pkey = NULL;

	if (len == 0 || len > LONG_MAX)
		return NULL;
	info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long) len);
	if (info != NULL && p == der + len)
		pkey = EVP_PKCS82PKEY(info);
	PKCS8_PRIV_KEY_INFO_free(info);
	return pkey;
}

void
sa_key_free(SaKey *key)
{
	if (key == NULL)
		return;
	for (int i = 0; i < SA_KEY_IDLE_MAX; i++)
		EVP_PKEY_CTX_free(atomic_load(&key->idle[i]));
	EVP_MD_free(key->md);
	EVP_PKEY_free(key->pkey);	/* wipes the private part */
	free(key);
}

SaAlg
sa_key_alg(const SaKey *key)
{
	return key->alg;
}

bool
sa_key_private_der(const SaKey *key, unsigned char **der, size_t *len)
{
	PKCS8_PRIV_KEY_INFO *info = NULL;
	unsigned char *out = NULL;
	int			size = 0;

	*der = NULL;
	*len = 0;
	if (key->can_sign)
		info = EVP_PKEY2PKCS8(key->pkey);
	if (info != NULL)
		size = i2d_PKCS8_PRIV_KEY_INFO(info, NULL);
	if (size > 0)
		out = malloc((size_t) size);
	if (out != NULL)
	{
		unsigned char *p = out;

		if (i2d_PKCS8_PRIV_KEY_INFO(info, &p) == size)
		{
			*der = out;
			*len = (size_t) size;
		}
		else
		{
			sa_wipe(out, (size_t) size);
			free(out);
		}
	}
	PKCS8_PRIV_KEY_INFO_free(info); /* wipes its copy */
	ERR_clear_error();
	return *der != NULL;
}

bool
sa_key_sign(const SaKey *key, const void *msg, size_t len, unsigned char *sig, size_t *siglen)
{
	EVP_MD_CTX *ctx = NULL;
	size_t		n = SA_SIGNATURE_MAX;
	bool		ok = false;

	*siglen = 0;
	if (key->can_sign)
		ctx = EVP_MD_CTX_new();
	if (ctx != NULL &&
		EVP_DigestSignInit(ctx, NULL, key->md, NULL, key->pkey) == 1 &&
		EVP_DigestSign(ctx, sig, &n, msg, len) == 1)
	{
		ok = true;
		if (key->alg == SA_ALG_ES256)
		{
			unsigned char raw[EC_COORDINATE_LEN * 2];

			ok = raw_from_ecdsa_der(sig, n, raw);
			if (ok)
			{
				memcpy(sig, raw, sizeof(raw));
				n = sizeof(raw);
			}
		}

		/*
		 * An RSA key that was once short of memory while signing goes on with
		 * broken blinding, and signs wrongly until it makes a new one (OpenSSL
		 * 3.0). Verifying costs 2 percent of signing, and stops faults that give keys away.
		 */
		if (ok && key->alg == SA_ALG_RS256)
			ok = sa_key_check(key, msg, len, sig, n) == 1;
		if (ok)
			*siglen = n;
	}
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return ok;
}

static bool
raw_from_ecdsa_der(const unsigned char *der, size_t len, unsigned char raw[EC_COORDINATE_LEN * 2])
{
	ECDSA_SIG  *sig = d2i_ECDSA_SIG(NULL, &der, (long) len);
	bool		ok;

	ok = sig != NULL &&
		BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, EC_COORDINATE_LEN) == EC_COORDINATE_LEN &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + EC_COORDINATE_LEN, EC_COORDINATE_LEN) == EC_COORDINATE_LEN;
	ECDSA_SIG_free(sig);
	return ok;
}

bool
sa_key_verify(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen)
{
	return sa_key_check(key, msg, len, sig, siglen) == 1;
}

int
sa_key_check(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen)
{
	unsigned char der[EC_COORDINATE_LEN * 2 + 8];
	int			result;

	if (key->alg == SA_ALG_ES256)
	{
		if (siglen != (size_t) EC_COORDINATE_LEN * 2)
			return 0;
		siglen = ecdsa_der_from_raw(sig, der);
		sig = der;
	}
	if (key->alg == SA_ALG_EDDSA && siglen != ED25519_SIGNATURE_LEN)
		return 0;

	/* Then a queue that is not empty after a failure speaks of this signature. */
	ERR_clear_error();
	result = key->md ? check_digest(key, msg, len, sig, siglen) : check_message(key, msg, len, sig, siglen);
	ERR_clear_error();
	return result;
}

/*
 * Hashes the message itself: EVP_DigestVerify copies its context half-way, and when there is no
 * memory for that it says "bad signature" without a trace in the error queue.
 */
static int
check_digest(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen)
{
	unsigned char digest[SA_DIGEST_LEN];
	EVP_PKEY_CTX *ctx;
	int			result;

	if (EVP_Digest(msg, len, digest, NULL, key->md, NULL) != 1)
		return -1;
	ctx = take_context(key);
	if (ctx == NULL)
		return -1;
	result = EVP_PKEY_verify(ctx, sig, siglen, digest, sizeof(digest));
	if (result == 0 && queue_says_trouble())
		result = -1;
	if (result >= 0)
		give_back(key, ctx);
	else
		EVP_PKEY_CTX_free(ctx);
	return result;
}

/* One that is idle, or a new one: which of them does not matter. NULL when OpenSSL fails. */
static EVP_PKEY_CTX *
take_context(const SaKey *key)
{
	EVP_PKEY_CTX *ctx = NULL;

	for (int i = 0; i < SA_KEY_IDLE_MAX && ctx == NULL; i++)
	{
		if (atomic_load_explicit(&key->idle[i], memory_order_relaxed) != NULL)
			ctx = atomic_exchange(&((SaKey *) key)->idle[i], NULL);
	}
	if (ctx != NULL)
		return ctx;
	ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	if (ctx != NULL && EVP_PKEY_verify_init(ctx) == 1 && EVP_PKEY_CTX_set_signature_md(ctx, key->md) == 1)
		return ctx;
	EVP_PKEY_CTX_free(ctx);
	return NULL;
}

static void
give_back(const SaKey *key, EVP_PKEY_CTX *ctx)
{
	for (int i = 0; i < SA_KEY_IDLE_MAX && ctx != NULL; i++)
	{
		if (atomic_load_explicit(&key->idle[i], memory_order_relaxed) == NULL)
			ctx = atomic_exchange(&((SaKey *) key)->idle[i], ctx);
	}
	EVP_PKEY_CTX_free(ctx);
}

/* Ed25519 hashes inside. It, too, is silent when it has no memory, so try what it needs. */
static int
check_message(const SaKey *key, const void *msg, size_t len, const unsigned char *sig, size_t siglen)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int			result = -1;

	if (ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->pkey) == 1)
	{
		result = EVP_DigestVerify(ctx, sig, siglen, msg, len);
		if (result == 0 && (queue_says_trouble() || EVP_Digest("", 0, digest, NULL, EVP_sha512(), NULL) != 1))
			result = -1;
	}
	EVP_MD_CTX_free(ctx);
	return result;
}

/* Empties the queue. What the EVP layer itself reports is not about a signature, but for what it says of every one that is not good. */
static bool
queue_says_trouble(void)
{
	unsigned long code;
	bool		found = false;

	while ((code = ERR_get_error()) != 0)
	{
		if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE ||
			(ERR_GET_LIB(code) == ERR_LIB_EVP && ERR_GET_REASON(code) != EVP_R_PROVIDER_SIGNATURE_FAILURE))
			found = true;
	}
	return found;
}

/* r and s as the ASN.1 sequence that OpenSSL wants; both are below 2^256, so every length takes one byte. */
static size_t
ecdsa_der_from_raw(const unsigned char raw[EC_COORDINATE_LEN * 2], unsigned char *der)
{
	size_t		len = 2;

	len += der_integer(raw, der + len);
	len += der_integer(raw + EC_COORDINATE_LEN, der + len);
	der[0] = 0x30;
	der[1] = (unsigned char) (len - 2);
	return len;
}

static size_t
der_integer(const unsigned char *number, unsigned char *der)
{
	size_t		skip = 0;
	size_t		pad;

	while (skip < EC_COORDINATE_LEN - 1 && number[skip] == 0)
		skip++;
	pad = number[skip] >= 0x80 ? 1 : 0;

	der[0] = 0x02;
	der[1] = (unsigned char) (pad + EC_COORDINATE_LEN - skip);
	der[2] = 0;
	memcpy(der + 2 + pad, number + skip, EC_COORDINATE_LEN - skip);
	return 2 + pad + EC_COORDINATE_LEN - skip;
}

/*
 * key_jwk.c
 *		Signing keys as public JWKs (RFC 7517, 7518, 8037) and their thumbprints (RFC 7638).
 *
 * Reading is strict about what identifies the key (lengths, canonical base64url,
 * points on the curve) and about what its publisher allows; it ignores
 * members that it does not know, as the RFC asks.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "digest.h"
#include "encoding.h"
#include "json.h"
#include "key.h"
#include "key_internal.h"

#define ED25519_LEN		32
#define B64_MEMBER_SIZE	SA_B64URL_SIZE(SA_SIGNATURE_MAX)
#define JWK_SIZE		4096

/* The members of a public JWK; crv and second_name are NULL where the key type has none. */
typedef struct PublicMembers
{
	const char *kty;
	const char *crv;
	const char *first_name;
	const char *second_name;
	char		first[B64_MEMBER_SIZE];
	char		second[B64_MEMBER_SIZE];
} PublicMembers;

static bool jwk_alg(const json_t *jwk, SaAlg *alg);
static bool jwk_allows_verifying(const json_t *jwk);
static bool jwk_bytes(const json_t *jwk, const char *name, unsigned char *out, size_t outsize, size_t *len);
static EVP_PKEY *ec_from_jwk(const json_t *jwk, bool *skip);
static EVP_PKEY *ed25519_from_jwk(const json_t *jwk, bool *skip);
static EVP_PKEY *rsa_from_jwk(const json_t *jwk, bool *skip);
static EVP_PKEY *pkey_from_params(const char *type, OSSL_PARAM *params);
static json_t *public_jwk(const SaKey *key);
static bool jwk_add(json_t *jwk, const char *name, const char *text);
static bool public_members(const SaKey *key, PublicMembers *out);
static bool encode_number(const EVP_PKEY *pkey, const char *param, size_t width, char out[B64_MEMBER_SIZE]);

SaKey *
sa_key_from_jwk(const char *json, size_t len)
{
	json_t	   *jwk;
	SaKey	   *key;
	bool		skip;

	if (sa_json_object(json, len, &jwk) != SA_JSON_OK)
		return NULL;
	key = sa_key_from_jwk_object(jwk, &skip);
	json_decref(jwk);
	return key;
}

SaKey *
sa_key_from_jwk_object(const json_t *jwk, bool *skip)
{
	EVP_PKEY   *pkey = NULL;
	SaKey	   *key;
	SaAlg		alg;

	*skip = !jwk_alg(jwk, &alg) || !jwk_allows_verifying(jwk);
	if (*skip)
		return NULL;
	switch (alg)
	{
		case SA_ALG_ES256:
			pkey = ec_from_jwk(jwk, skip);
			break;
		case SA_ALG_EDDSA:
			pkey = ed25519_from_jwk(jwk, skip);
			break;
		case SA_ALG_RS256:
			pkey = rsa_from_jwk(jwk, skip);
			break;
	}
	key = sa_key_wrap(alg, pkey, false);
	ERR_clear_error();
	return key;
}

/* The algorithm follows from the type of the key; a member "alg" may only agree. */
static bool
jwk_alg(const json_t *jwk, SaAlg *alg)
{
	const json_t *named = json_object_get(jwk, "alg");
	const json_t *kty = json_object_get(jwk, "kty");
	const json_t *crv = json_object_get(jwk, "crv");

	if (sa_json_equals(kty, "EC") && sa_json_equals(crv, "P-256"))
		*alg = SA_ALG_ES256;
	else if (sa_json_equals(kty, "OKP") && sa_json_equals(crv, "Ed25519"))
		*alg = SA_ALG_EDDSA;
	else if (sa_json_equals(kty, "RSA"))
		*alg = SA_ALG_RS256;
	else
		return false;
	return named == NULL || sa_json_equals(named, sa_alg_name(*alg));
}

/*
 * RFC 7517, sections 4.2 and 4.3. A key whose private half was published is
 * refused as well: everybody who reads the set could sign with it.
 */
static bool
jwk_allows_verifying(const json_t *jwk)
{
	const json_t *use = json_object_get(jwk, "use");
	const json_t *ops = json_object_get(jwk, "key_ops");

	if (json_object_get(jwk, "d") != NULL)
		return false;
	if (use != NULL && !sa_json_equals(use, "sig"))
		return false;
	if (ops == NULL)
		return true;
	for (size_t i = 0; i < json_array_size(ops); i++)
	{
		if (sa_json_equals(json_array_get(ops, i), "verify"))
			return true;
	}
	return false;
}

static EVP_PKEY *
ec_from_jwk(const json_t *jwk, bool *skip)
{
	unsigned char point[1 + EC_COORDINATE_LEN * 2];
	char		group[] = "P-256";
	OSSL_PARAM	params[3];
	size_t		xlen;
	size_t		ylen;

	point[0] = POINT_CONVERSION_UNCOMPRESSED;
	*skip = !jwk_bytes(jwk, "x", point + 1, EC_COORDINATE_LEN, &xlen) || xlen != EC_COORDINATE_LEN ||
		!jwk_bytes(jwk, "y", point + 1 + EC_COORDINATE_LEN, EC_COORDINATE_LEN, &ylen) || ylen != EC_COORDINATE_LEN;
	if (*skip)
		return NULL;

	/* OpenSSL refuses a point that is not on the curve. */
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0);
	params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point));
	params[2] = OSSL_PARAM_construct_end();
	return pkey_from_params("EC", params);
}

static EVP_PKEY *
ed25519_from_jwk(const json_t *jwk, bool *skip)
{
	unsigned char x[ED25519_LEN];
	size_t		len;

	*skip = !jwk_bytes(jwk, "x", x, sizeof(x), &len) || len != sizeof(x);
	if (*skip)
		return NULL;
	return EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, x, sizeof(x));
}

static EVP_PKEY *
rsa_from_jwk(const json_t *jwk, bool *skip)
{
	unsigned char nbytes[SA_SIGNATURE_MAX];
	unsigned char ebytes[RSA_EXPONENT_BITS_MAX / 8];
	size_t		nlen;
	size_t		elen;
	BIGNUM	   *n;
	BIGNUM	   *e;
	OSSL_PARAM_BLD *build;
	OSSL_PARAM *params = NULL;
	EVP_PKEY   *pkey = NULL;

	/* RFC 7518, section 6.3.1: no leading zero octets. */
	*skip = !jwk_bytes(jwk, "n", nbytes, sizeof(nbytes), &nlen) || nlen < RSA_BITS_MIN / 8 || nbytes[0] == 0 ||
		!jwk_bytes(jwk, "e", ebytes, sizeof(ebytes), &elen) || elen == 0 || ebytes[0] == 0;
	if (*skip)
		return NULL;

	n = BN_bin2bn(nbytes, (int) nlen, NULL);
	e = BN_bin2bn(ebytes, (int) elen, NULL);
	build = OSSL_PARAM_BLD_new();
	if (n != NULL && e != NULL && build != NULL &&
		OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
		OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1)
		params = OSSL_PARAM_BLD_to_param(build);
	if (params != NULL)
		pkey = pkey_from_params("RSA", params);

	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(build);
	BN_free(n);
	BN_free(e);
	return pkey;
}

static bool
jwk_bytes(const json_t *jwk, const char *name, unsigned char *out, size_t outsize, size_t *len)
{
	size_t		textlen;
	const char *text = sa_json_string(jwk, name, &textlen);

	return text != NULL && sa_b64url_decode(text, textlen, out, outsize, len);
}

static EVP_PKEY *
pkey_from_params(const char *type, OSSL_PARAM *params)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY   *pkey = NULL;

	if (ctx == NULL ||
		EVP_PKEY_fromdata_init(ctx) != 1 ||
		EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
	{
		EVP_PKEY_free(pkey);
		pkey = NULL;
	}
	EVP_PKEY_CTX_free(ctx);
	return pkey;
}

char *
sa_key_public_jwk(const SaKey *key, const char *kid)
{
	json_t	   *jwk = public_jwk(key);
	char	   *text = NULL;

	if (jwk != NULL &&
		jwk_add(jwk, "alg", sa_alg_name(key->alg)) &&
		jwk_add(jwk, "use", "sig") &&
		jwk_add(jwk, "kid", kid))
		text = sa_json_text(jwk);
	json_decref(jwk);
	ERR_clear_error();
	return text;
}

/* RFC 7638: the required members in the order of their names, without white space. */
bool
sa_key_thumbprint(const SaKey *key, char out[SA_KID_LEN + 1])
{
	json_t	   *jwk = public_jwk(key);
	unsigned char digest[SA_DIGEST_LEN];
	char		text[JWK_SIZE];
	size_t		len = sa_json_dump(jwk, JSON_SORT_KEYS, text, sizeof(text));
	bool		ok = len > 0 && sa_sha256(text, len, digest);

	out[0] = '\0';
	if (ok)
		(void) sa_b64url_encode(digest, sizeof(digest), out);
	json_decref(jwk);
	ERR_clear_error();
	return ok;
}

/* The members that make the key; NULL on failure. Not json_pack: it drops an optional member when memory is short. */
static json_t *
public_jwk(const SaKey *key)
{
	PublicMembers members;
	json_t	   *jwk;

	if (!public_members(key, &members))
		return NULL;
	/* Not json_object(): PostgreSQL exports a function of that name, and in the server that one would be called. */
	jwk = json_pack("{}");
	if (jwk != NULL &&
		jwk_add(jwk, "kty", members.kty) &&
		(members.crv == NULL || jwk_add(jwk, "crv", members.crv)) &&
		jwk_add(jwk, members.first_name, members.first) &&
		(members.second_name == NULL || jwk_add(jwk, members.second_name, members.second)))
		return jwk;
	json_decref(jwk);
	return NULL;
}

static bool
jwk_add(json_t *jwk, const char *name, const char *text)
{
	return json_object_set_new(jwk, name, json_string(text)) == 0;
}

static bool
public_members(const SaKey *key, PublicMembers *out)
{
	unsigned char x[ED25519_LEN];
	size_t		len = sizeof(x);

	memset(out, 0, sizeof(*out));
	switch (key->alg)
	{
		case SA_ALG_ES256:
			out->kty = "EC";
			out->crv = "P-256";
			out->first_name = "x";
			out->second_name = "y";
			return encode_number(key->pkey, OSSL_PKEY_PARAM_EC_PUB_X, EC_COORDINATE_LEN, out->first) &&
				encode_number(key->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, EC_COORDINATE_LEN, out->second);
		case SA_ALG_EDDSA:
			out->kty = "OKP";
			out->crv = "Ed25519";
			out->first_name = "x";
			if (EVP_PKEY_get_raw_public_key(key->pkey, x, &len) != 1 || len != sizeof(x))
				return false;
			(void) sa_b64url_encode(x, len, out->first);
			return true;
		case SA_ALG_RS256:
			out->kty = "RSA";
			out->first_name = "n";
			out->second_name = "e";
			return encode_number(key->pkey, OSSL_PKEY_PARAM_RSA_N, 0, out->first) &&
				encode_number(key->pkey, OSSL_PKEY_PARAM_RSA_E, 0, out->second);
	}
	return false;
}

/* A number of the key as base64url of its big-endian bytes: width of them, or as few as it needs for 0. */
static bool
encode_number(const EVP_PKEY *pkey, const char *param, size_t width, char out[B64_MEMBER_SIZE])
{
	unsigned char bytes[SA_SIGNATURE_MAX];
	BIGNUM	   *number = NULL;
	bool		ok = false;

	if (EVP_PKEY_get_bn_param(pkey, param, &number) == 1)
	{
		size_t		len = width > 0 ? width : (size_t) BN_num_bytes(number);

		ok = len <= sizeof(bytes) && BN_bn2binpad(number, bytes, (int) len) == (int) len;
		if (ok)
			(void) sa_b64url_encode(bytes, len, out);
	}
	BN_free(number);
	return ok;
}

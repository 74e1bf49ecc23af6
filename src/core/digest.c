/*
 * digest.c
 *		Hashes, MACs over framed fields, random bytes, comparison and wiping.
 *
 * A MAC's input is put together in one piece and hashed by a one-shot call:
 * for the few hundred bytes of a stream entry the set-up of a context costs
 * more than the hashing, and a context is one more thing to free on every path.
 */

/* OpenSSL 3.0.0 to 3.0.2 cannot start an EVP_MAC over with the key that it has; what came before it always could. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "digest.h"
#include "encoding.h"

#define FRAME_LEN		4
#define ON_STACK		1536	/* more than any stream entry, key or answer needs */

static unsigned char *frame(const SaField *fields, size_t nfields, unsigned char buffer[ON_STACK], size_t *size);
static void unframe(unsigned char *framed, size_t size, const unsigned char *buffer);
static bool frame_size(const SaField *fields, size_t nfields, size_t *size);
static void frame_write(const SaField *fields, size_t nfields, unsigned char *out);

bool
sa_sha256(const void *data, size_t len, unsigned char out[SA_DIGEST_LEN])
{
	bool		ok = EVP_Digest(len > 0 ? data : "", len, out, NULL, EVP_sha256(), NULL) == 1;

	ERR_clear_error();			/* newer versions complain of a shortage that they got over, too */
	return ok;
}

struct SaHasher
{
	EVP_MD	   *sha256;
	EVP_MD_CTX *context;
};

SaHasher *
sa_hasher_new(void)
{
	SaHasher   *hasher = calloc(1, sizeof(*hasher));

	if (hasher == NULL)
		return NULL;
	hasher->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	hasher->context = EVP_MD_CTX_new();
	if (hasher->sha256 != NULL && hasher->context != NULL)
		return hasher;
	ERR_clear_error();
	sa_hasher_free(hasher);
	return NULL;
}

bool
sa_hasher_sha256(SaHasher *hasher, const void *data, size_t len, unsigned char out[SA_DIGEST_LEN])
{
	if (EVP_DigestInit_ex2(hasher->context, hasher->sha256, NULL) == 1 &&
		EVP_DigestUpdate(hasher->context, len > 0 ? data : "", len) == 1 &&
		EVP_DigestFinal_ex(hasher->context, out, NULL) == 1)
		return true;
	ERR_clear_error();
	return false;
}

void
sa_hasher_free(SaHasher *hasher)
{
	if (hasher == NULL)
		return;
	EVP_MD_CTX_free(hasher->context);
	EVP_MD_free(hasher->sha256);
	free(hasher);
}

bool
sa_mac(const unsigned char key[SA_KEY_LEN], const SaField *fields, size_t nfields,
	   unsigned char out[SA_DIGEST_LEN])
{
	unsigned char buffer[ON_STACK];
	unsigned char *framed;
	unsigned int outlen = 0;
	size_t		size;
	bool		ok;

	framed = frame(fields, nfields, buffer, &size);
	if (framed == NULL)
		return false;
	ok = HMAC(EVP_sha256(), key, SA_KEY_LEN, framed, size, out, &outlen) != NULL && outlen == SA_DIGEST_LEN;
	ERR_clear_error();
	unframe(framed, size, buffer);
	return ok;
}

struct SaMacKey
{
	HMAC_CTX   *context;
};

SaMacKey *
sa_mac_key_new(const unsigned char key[SA_KEY_LEN])
{
	SaMacKey   *prepared = calloc(1, sizeof(*prepared));

	if (prepared == NULL)
		return NULL;
	prepared->context = HMAC_CTX_new();
	if (prepared->context != NULL && HMAC_Init_ex(prepared->context, key, SA_KEY_LEN, EVP_sha256(), NULL) == 1)
		return prepared;
	ERR_clear_error();
	sa_mac_key_free(prepared);
	return NULL;
}

/* Started without a key, OpenSSL goes back to the state that it has derived from the last one. */
bool
sa_mac_key_text(SaMacKey *key, const SaField *fields, size_t nfields, char out[SA_MAC_TEXT_LEN + 1])
{
	unsigned char buffer[ON_STACK];
	unsigned char mac[SA_DIGEST_LEN];
	unsigned char *framed;
	unsigned int maclen = 0;
	size_t		size;
	bool		ok;

	out[0] = '\0';
	framed = frame(fields, nfields, buffer, &size);
	if (framed == NULL)
		return false;
	ok = HMAC_Init_ex(key->context, NULL, 0, NULL, NULL) == 1 && HMAC_Update(key->context, framed, size) == 1 &&
		HMAC_Final(key->context, mac, &maclen) == 1 && maclen == SA_DIGEST_LEN;
	if (ok)
		(void) sa_b64url_encode(mac, sizeof(mac), out);
	else
		ERR_clear_error();
	unframe(framed, size, buffer);
	return ok;
}

void
sa_mac_key_free(SaMacKey *key)
{
	if (key == NULL)
		return;
	HMAC_CTX_free(key->context);
	free(key);
}

/* In the buffer, or in memory of its own when that is too small; NULL when there is none. */
static unsigned char *
frame(const SaField *fields, size_t nfields, unsigned char buffer[ON_STACK], size_t *size)
{
	unsigned char *framed = buffer;

	if (!frame_size(fields, nfields, size))
		return NULL;
	if (*size > ON_STACK)
		framed = malloc(*size);
	if (framed != NULL)
		frame_write(fields, nfields, framed);
	return framed;
}

/* A field may be the secret of a refresh token. */
static void
unframe(unsigned char *framed, size_t size, const unsigned char *buffer)
{
	sa_wipe(framed, size);
	if (framed != buffer)
		free(framed);
}

/* Bytes of all frames; false when a length does not fit its frame. */
static bool
frame_size(const SaField *fields, size_t nfields, size_t *size)
{
	*size = 0;
	for (size_t i = 0; i < nfields; i++)
	{
		if (fields[i].len > INT_MAX || *size > INT_MAX)
			return false;
		*size += FRAME_LEN + fields[i].len;
	}
	return *size <= INT_MAX;
}

static void
frame_write(const SaField *fields, size_t nfields, unsigned char *out)
{
	for (size_t i = 0; i < nfields; i++)
	{
		size_t		len = fields[i].len;

		*out++ = (unsigned char) (len >> 24 & 0xff);
		*out++ = (unsigned char) (len >> 16 & 0xff);
		*out++ = (unsigned char) (len >> 8 & 0xff);
		*out++ = (unsigned char) (len & 0xff);
		if (len > 0)
			memcpy(out, fields[i].data, len);
		out += len;
	}
}

bool
sa_mac_text(const unsigned char key[SA_KEY_LEN], const SaField *fields, size_t nfields,
			char out[SA_MAC_TEXT_LEN + 1])
{
	unsigned char mac[SA_DIGEST_LEN];

	if (!sa_mac(key, fields, nfields, mac))
	{
		out[0] = '\0';
		return false;
	}
	(void) sa_b64url_encode(mac, sizeof(mac), out);
	return true;
}

bool
sa_random(void *out, size_t len)
{
	if (len <= INT_MAX && RAND_bytes(out, (int) len) == 1)
		return true;
	ERR_clear_error();
	return false;
}

bool
sa_equal(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}

void
sa_wipe(void *p, size_t len)
{
	if (p != NULL)
		OPENSSL_cleanse(p, len);
}

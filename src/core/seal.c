/*
 * seal.c
 *		Secrets at rest: AES-256-GCM under the master key.
 *
 * The nonce is random: the number of secrets sealed under one master key (a
 * few signing keys a year) is nowhere near the 2^32 that random nonces allow.
 */
#include <limits.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "encoding.h"
#include "seal.h"

#define SEAL_VERSION	0x01
#define NONCE_LEN		12
#define TAG_LEN			16
#define AT_NONCE		1
#define AT_TEXT			(AT_NONCE + NONCE_LEN)

static bool gcm(const unsigned char *master, bool encrypt, const char *label, const unsigned char *nonce,
				const unsigned char *in, size_t len, unsigned char *out, unsigned char *tag);
static bool is_space(char c);

bool
sa_seal(const unsigned char master[SA_KEY_LEN], const char *label, const void *plain, size_t len,
		unsigned char *out)
{
	if (len > INT_MAX - SA_SEAL_OVERHEAD)
		return false;
	out[0] = SEAL_VERSION;
	return sa_random(out + AT_NONCE, NONCE_LEN) &&
		gcm(master, true, label, out + AT_NONCE, plain, len, out + AT_TEXT, out + AT_TEXT + len);
}

bool
sa_unseal(const unsigned char master[SA_KEY_LEN], const char *label, const unsigned char *sealed, size_t len,
		  unsigned char *out)
{
	unsigned char tag[TAG_LEN];
	size_t		plainlen;

	if (len < SA_SEAL_OVERHEAD || len > INT_MAX)
		return false;
	plainlen = len - SA_SEAL_OVERHEAD;
	memcpy(tag, sealed + AT_TEXT + plainlen, TAG_LEN);
	if (sealed[0] == SEAL_VERSION &&
		gcm(master, false, label, sealed + AT_NONCE, sealed + AT_TEXT, plainlen, out, tag))
		return true;

	/* GCM has written what it could not authenticate. */
	sa_wipe(out, plainlen);
	return false;
}

/* One pass of AES-256-GCM; the tag is written when encrypting and checked when decrypting. */
static bool
gcm(const unsigned char *master, bool encrypt, const char *label, const unsigned char *nonce,
	const unsigned char *in, size_t len, unsigned char *out, unsigned char *tag)
{
	size_t		labellen = strlen(label);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	unsigned char none[1];		/* GCM ends without writing, but wants a place */
	int			n = 0;
	bool		ok;

	ok = ctx != NULL &&
		labellen <= INT_MAX &&
		EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, master, nonce, encrypt ? 1 : 0) == 1 &&
		EVP_CipherUpdate(ctx, NULL, &n, (const unsigned char *) label, (int) labellen) == 1 &&
		(len == 0 || EVP_CipherUpdate(ctx, out, &n, in, (int) len) == 1) &&
		(encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1) &&
		EVP_CipherFinal_ex(ctx, none, &n) == 1 &&
		(!encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_LEN, tag) == 1);

	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return ok;
}

bool
sa_key_text_parse(const char *text, size_t len, unsigned char key[SA_KEY_LEN])
{
	char		url[SA_MAC_TEXT_LEN];
	size_t		n;
	bool		ok;

	while (len > 0 && is_space(text[0]))
	{
		text++;
		len--;
	}
	while (len > 0 && is_space(text[len - 1]))
		len--;

	if (len == (size_t) SA_KEY_LEN * 2)
	{
		ok = sa_hex_decode(text, len, key, SA_KEY_LEN);
		if (!ok)
			sa_wipe(key, SA_KEY_LEN);
		return ok;
	}

	if (len == sizeof(url) + 1 && text[len - 1] == '=')
		len--;
	if (len != sizeof(url))
		return false;
	for (size_t i = 0; i < len; i++)
		url[i] = (char) (text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
	ok = sa_b64url_decode(url, len, key, SA_KEY_LEN, &n) && n == SA_KEY_LEN;
	if (!ok)
		sa_wipe(key, SA_KEY_LEN);
	sa_wipe(url, sizeof(url));
	return ok;
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

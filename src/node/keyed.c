/*
 * keyed.c
 *		Digests that only this node can make. See keyed.h.
 */

/* A digest is most of the cost of a request; the calls that are not deprecated fetch and allocate first. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "node/keyed.h"

#include "core/digest.h"

bool
keyed_init(Keyed *keyed)
{
	unsigned char secret[SHA256_CBLOCK];

	if (!sa_random(secret, sizeof(secret)))
		return false;
	SHA256_Init(&keyed->prefix);
	SHA256_Update(&keyed->prefix, secret, sizeof(secret));
	sa_wipe(secret, sizeof(secret));
	return true;
}

void
keyed_digest(const Keyed *keyed, const void *data, size_t len, KeyedDigest *out)
{
	SHA256_CTX	context = keyed->prefix;

	SHA256_Update(&context, data, len);
	SHA256_Final((unsigned char *) out->part, &context);
}

/*
 * keyed.h
 *		Digests that only this node can make, for tables whose names come from outside.
 *
 * SHA-256 behind one block of secret: nobody who does not know it can aim at one place of a table, or find two texts with
 * one digest. It is no MAC (what it hashes could be lengthened), so no digest may leave the process. Any number of threads may
 * use one at once.
 */
#ifndef SESSAUTH_NODE_KEYED_H
#define SESSAUTH_NODE_KEYED_H

#include <openssl/sha.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Keyed
{
	SHA256_CTX	prefix;			/* after the block of secret */
} Keyed;

typedef struct KeyedDigest
{
	uint64_t	part[SHA256_DIGEST_LENGTH / 8];
} KeyedDigest;

/* With a new secret. False when there is no randomness. */
extern bool keyed_init(Keyed *keyed);
extern void keyed_digest(const Keyed *keyed, const void *data, size_t len, KeyedDigest *out);

#endif							/* SESSAUTH_NODE_KEYED_H */

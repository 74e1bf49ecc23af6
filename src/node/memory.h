/*
 * memory.h
 *		What is revoked: sessions, users, tenants and signing keys, each until no
 *		token that it affects can be unexpired.
 *
 * Names are stored as 16 bytes of a keyed digest, so an entry is 32 bytes
 * whatever the names are, and nobody can choose names that collide. No lock of its own (the node state's guards it).
 */
#ifndef SESSAUTH_NODE_MEMORY_H
#define SESSAUTH_NODE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/wire.h"
#include "node/keyed.h"

#define MEMORY_DEAD		INT64_MAX	/* the "epoch" of a session or key that is revoked itself */

typedef struct MemoryName
{
	uint64_t	half[2];		/* never both 0 */
} MemoryName;

typedef struct MemoryEntry
{
	MemoryName	name;			/* both halves 0: free */
	int64_t		epoch;
	int64_t		until;			/* unix ms */
} MemoryEntry;

typedef struct Memory
{
	Keyed		keyed;
	MemoryEntry *entries;
	size_t		size;			/* a power of two */
	size_t		count;
	size_t		max;
	int64_t		next_expiry;	/* nothing expires before this (unix ms): no need to look for room */
} Memory;

extern bool memory_init(Memory *memory, size_t max);
extern void memory_free(Memory *memory);

/* The name under which something is looked up; independent of any lock. */
extern void memory_name(const Memory *memory, SaKind kind, const char *tid, const char *other, MemoryName *out);

/* The name and the epoch that an entry (not a beat) has in the memory. */
extern void memory_entry_name(const Memory *memory, const SaEntry *entry, MemoryName *name, int64_t *epoch);

/* Tokens of an epoch below this are dead; 0 when nothing is known. */
extern int64_t memory_epoch(const Memory *memory, const MemoryName *name);

/*
 * Remembers a revocation; applying one twice changes nothing. now (unix ms by
 * the ledger's clock) lets room be made. False when the bound is reached or memory is short: then the node is incomplete.
 */
extern bool memory_apply(Memory *memory, const SaEntry *entry, int64_t now);

/* Forgets what has expired, when that is worth the walk or force is set. */
extern void memory_prune(Memory *memory, int64_t now, bool force);

#endif							/* SESSAUTH_NODE_MEMORY_H */

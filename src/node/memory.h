/*
 * memory.h
 *		What is revoked: sessions, users and tenants, each until no token that it affects can be
 *		unexpired, and signing keys for ever.
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

/* A table to take the place of the one in use. */
typedef struct MemoryTable
{
	MemoryEntry *entries;		/* NULL: none */
	size_t		size;
	size_t		count;
	int64_t		next_expiry;
} MemoryTable;

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

/*
 * The long part of growing and of forgetting, beforehand: only looks at the memory, so whoever reads it may go on; nobody may change it until
 * memory_exchange. Growing makes room for that many more. False: there is nothing to do, or memory is short; after
 * looking for what has expired, out->next_expiry says when the first will.
 */
extern bool memory_build_grown(const Memory *memory, size_t more, int64_t now, MemoryTable *out);
extern bool memory_build_pruned(const Memory *memory, int64_t now, bool force, MemoryTable *out);

/* The short part: *table is then the one that was in use; free its entries when nobody can be reading it. */
extern void memory_exchange(Memory *memory, MemoryTable *table);

#endif							/* SESSAUTH_NODE_MEMORY_H */

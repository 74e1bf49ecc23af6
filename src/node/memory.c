/*
 * memory.c
 *		An open-addressing table of revocations.
 *
 * Entries are never deleted one by one; pruning builds a new table of what is
 * left, so that probing stays simple and memory shrinks when a wave of revocations has passed.
 */
#include "node/memory.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 256
#define FULL_TENTHS 7			/* then it doubles, so that a revocation takes at most 20 / 7 entries: 92 bytes */

static MemoryEntry *find(const MemoryEntry *entries, size_t size, const MemoryName *name);
static bool grow(Memory *memory, int64_t now);
static bool is_crowded(const Memory *memory, size_t more);
static bool is_free(const MemoryEntry *entry);
static bool build(const Memory *memory, size_t size, int64_t now, MemoryTable *out);

bool
memory_init(Memory *memory, size_t max)
{
	memset(memory, 0, sizeof(*memory));
	memory->max = max;
	memory->size = SIZE_MIN;
	memory->entries = calloc(SIZE_MIN, sizeof(MemoryEntry));
	return memory->entries != NULL && keyed_init(&memory->keyed);
}

void
memory_free(Memory *memory)
{
	free(memory->entries);
	memory->entries = NULL;
}

void
memory_name(const Memory *memory, SaKind kind, const char *tid, const char *other, MemoryName *out)
{
	char		text[1 + SA_TENANT_ID_MAX + 1 + SA_USER_ID_MAX + 1];
	size_t		len = 0;
	KeyedDigest digest;

	/* No id has a NUL inside, so one behind the tenant tells all texts apart. */
	text[len++] = (char) kind;
	len += (size_t) (stpcpy(text + len, tid) - (text + len)) + 1;
	len += (size_t) (stpcpy(text + len, other) - (text + len));
	keyed_digest(&memory->keyed, text, len, &digest);
	memcpy(out->half, digest.part, sizeof(out->half));
	if (out->half[0] == 0 && out->half[1] == 0)
		out->half[0] = 1;
}

void
memory_entry_name(const Memory *memory, const SaEntry *entry, MemoryName *name, int64_t *epoch)
{
	const char *other = entry->kind == SA_KIND_SESSION ? entry->sid :
		entry->kind == SA_KIND_USER ? entry->uid :
		entry->kind == SA_KIND_KEY ? entry->kid : "";

	*epoch = entry->kind == SA_KIND_SESSION || entry->kind == SA_KIND_KEY ? MEMORY_DEAD : entry->epoch;
	memory_name(memory, entry->kind, entry->tid, other, name);
}

int64_t
memory_epoch(const Memory *memory, const MemoryName *name)
{
	return find(memory->entries, memory->size, name)->epoch;
}

bool
memory_apply(Memory *memory, const SaEntry *entry, int64_t now)
{
	MemoryName	name;
	MemoryEntry *slot;
	int64_t		epoch;
	int64_t		until = entry->until;

	/* Whoever has stolen a key makes tokens that last as long as he likes, and a pinned file may keep that key for ever. */
	if (entry->kind == SA_KIND_KEY)
		until = INT64_MAX;

	/* What has expired by the ledger's clock is known without being remembered. */
	if (until <= now)
		return true;
	memory_entry_name(memory, entry, &name, &epoch);
	slot = find(memory->entries, memory->size, &name);
	if (is_free(slot))
	{
		if (memory->count >= memory->max)
		{
			if (now >= memory->next_expiry)
				memory_prune(memory, now, true);
			if (memory->count >= memory->max)
				return false;
		}
		if (is_crowded(memory, 1) && !grow(memory, now))
			return false;
		slot = find(memory->entries, memory->size, &name);
		slot->name = name;
		memory->count++;
		if (until < memory->next_expiry)
			memory->next_expiry = until;
	}
	if (epoch > slot->epoch)
		slot->epoch = epoch;
	if (until > slot->until)
		slot->until = until;
	return true;
}

static bool
grow(Memory *memory, int64_t now)
{
	MemoryTable table;

	if (!memory_build_grown(memory, 1, now, &table))
		return false;
	memory_exchange(memory, &table);
	free(table.entries);
	return true;
}

void
memory_prune(Memory *memory, int64_t now, bool force)
{
	MemoryTable table;

	if (!memory_build_pruned(memory, now, force, &table))
	{
		memory->next_expiry = table.next_expiry;
		return;
	}
	memory_exchange(memory, &table);
	free(table.entries);
}

bool
memory_build_grown(const Memory *memory, size_t more, int64_t now, MemoryTable *out)
{
	return is_crowded(memory, more) && build(memory, memory->size * 2, now, out);
}

bool
memory_build_pruned(const Memory *memory, int64_t now, bool force, MemoryTable *out)
{
	size_t		expired = 0;
	size_t		size = SIZE_MIN;

	*out = (MemoryTable) {.next_expiry = INT64_MAX};
	for (size_t i = 0; i < memory->size; i++)
	{
		const MemoryEntry *entry = &memory->entries[i];

		if (is_free(entry))
			continue;
		if (entry->until <= now)
			expired++;
		if (entry->until < out->next_expiry)
			out->next_expiry = entry->until;
	}
	if (expired == 0 || (!force && expired * 4 < memory->count))
		return false;
	while (size * FULL_TENTHS < (memory->count - expired) * 10)
		size *= 2;

	/* Without memory for it, what has expired stays a little longer. */
	return build(memory, size, now, out);
}

void
memory_exchange(Memory *memory, MemoryTable *table)
{
	MemoryTable before = {memory->entries, memory->size, memory->count, memory->next_expiry};

	memory->entries = table->entries;
	memory->size = table->size;
	memory->count = table->count;
	memory->next_expiry = table->next_expiry;
	*table = before;
}

static bool
is_crowded(const Memory *memory, size_t more)
{
	return (memory->count + more) * 10 > memory->size * FULL_TENTHS;
}

static bool
is_free(const MemoryEntry *entry)
{
	return (entry->name.half[0] | entry->name.half[1]) == 0;
}

/* The entry of that name, or the free one where it belongs. The table is never full. */
static MemoryEntry *
find(const MemoryEntry *entries, size_t size, const MemoryName *name)
{
	size_t		i = name->half[0] & (size - 1);

	while ((entries[i].name.half[0] | entries[i].name.half[1]) != 0 &&
		   (entries[i].name.half[0] != name->half[0] || entries[i].name.half[1] != name->half[1]))
		i = (i + 1) & (size - 1);
	return (MemoryEntry *) &entries[i];
}

static bool
build(const Memory *memory, size_t size, int64_t now, MemoryTable *out)
{
	MemoryEntry *entries = calloc(size, sizeof(MemoryEntry));

	if (entries == NULL)
		return false;
	*out = (MemoryTable) {entries, size, 0, INT64_MAX};
	for (size_t i = 0; i < memory->size; i++)
	{
		const MemoryEntry *entry = &memory->entries[i];

		if (is_free(entry) || entry->until <= now)
			continue;
		*find(out->entries, size, &entry->name) = *entry;
		out->count++;
		if (entry->until < out->next_expiry)
			out->next_expiry = entry->until;
	}
	return true;
}

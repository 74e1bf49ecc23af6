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

static MemoryEntry *find(const MemoryEntry *entries, size_t size, const MemoryName *name);
static bool rebuild(Memory *memory, size_t size, int64_t now);

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

	/* What has expired by the ledger's clock is known without being remembered. */
	if (entry->until <= now)
		return true;
	memory_entry_name(memory, entry, &name, &epoch);
	slot = find(memory->entries, memory->size, &name);
	if (slot->name.half[0] == 0 && slot->name.half[1] == 0)
	{
		if (memory->count >= memory->max)
		{
			if (now >= memory->next_expiry)
				memory_prune(memory, now, true);
			if (memory->count >= memory->max)
				return false;
		}
		if ((memory->count + 1) * 10 > memory->size * 7 && !rebuild(memory, memory->size * 2, now))
			return false;
		slot = find(memory->entries, memory->size, &name);
		slot->name = name;
		memory->count++;
		if (entry->until < memory->next_expiry)
			memory->next_expiry = entry->until;
	}
	if (epoch > slot->epoch)
		slot->epoch = epoch;
	if (entry->until > slot->until)
		slot->until = entry->until;
	return true;
}

void
memory_prune(Memory *memory, int64_t now, bool force)
{
	size_t		expired = 0;
	size_t		size = SIZE_MIN;

	int64_t		next_expiry = INT64_MAX;

	for (size_t i = 0; i < memory->size; i++)
	{
		const MemoryEntry *entry = &memory->entries[i];

		if ((entry->name.half[0] | entry->name.half[1]) == 0)
			continue;
		if (entry->until <= now)
			expired++;
		else if (entry->until < next_expiry)
			next_expiry = entry->until;
	}
	if (expired == 0)
		memory->next_expiry = next_expiry;
	if (expired == 0 || (!force && expired * 4 < memory->count))
		return;
	while (size * 5 < (memory->count - expired) * 10)
		size *= 2;

	/* Without memory for it, what has expired stays a little longer. */
	if (rebuild(memory, size, now))
		memory->next_expiry = next_expiry;
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
rebuild(Memory *memory, size_t size, int64_t now)
{
	MemoryEntry *entries = calloc(size, sizeof(MemoryEntry));
	size_t		count = 0;

	if (entries == NULL)
		return false;
	for (size_t i = 0; i < memory->size; i++)
	{
		MemoryEntry *old = &memory->entries[i];

		if ((old->name.half[0] | old->name.half[1]) == 0 || old->until <= now)
			continue;
		*find(entries, size, &old->name) = *old;
		count++;
	}
	free(memory->entries);
	memory->entries = entries;
	memory->size = size;
	memory->count = count;
	return true;
}

/*
 * test_memory_node.c
 *		The node's memory of revocations: nothing is forgotten early, nothing is
 *		taken back, and what does not fit is said.
 */
#include <stdlib.h>

#include "node/memory.h"
#include "tap.h"

#define NOW		INT64_C(1700000000000)
#define SID		"11111111-2222-4333-8444-555555555555"

static Memory memory;

static SaEntry
entry(SaKind kind, const char *tid, const char *other, int64_t epoch, int64_t until)
{
	SaEntry		result = {.kind = kind, .epoch = epoch, .until = until};

	strcpy(result.tid, tid);
	if (kind == SA_KIND_SESSION)
		strcpy(result.sid, other);
	else if (kind == SA_KIND_USER)
		strcpy(result.uid, other);
	else if (kind == SA_KIND_KEY)
		strcpy(result.kid, other);
	return result;
}

static bool
apply(SaKind kind, const char *tid, const char *other, int64_t epoch, int64_t until, int64_t now)
{
	SaEntry		one = entry(kind, tid, other, epoch, until);

	return memory_apply(&memory, &one, now);
}

static int64_t
epoch_of(SaKind kind, const char *tid, const char *other)
{
	MemoryName	name;

	memory_name(&memory, kind, tid, other, &name);
	return memory_epoch(&memory, &name);
}

static void
test_kinds(void)
{
	memory_init(&memory, 1000);
	ok(epoch_of(SA_KIND_USER, "t", "u") == 0, "nothing is known at first");
	ok(apply(SA_KIND_USER, "t", "u", 7, NOW + 1, NOW) && epoch_of(SA_KIND_USER, "t", "u") == 7, "a user's epoch");
	ok(apply(SA_KIND_TENANT, "t", "", 9, NOW + 1, NOW) && epoch_of(SA_KIND_TENANT, "t", "") == 9, "a tenant's");
	ok(apply(SA_KIND_SESSION, "t", SID, 0, NOW + 1, NOW) && epoch_of(SA_KIND_SESSION, "t", SID) == MEMORY_DEAD, "a session is dead at any epoch");
	ok(apply(SA_KIND_KEY, "", "k", 0, NOW + 1, NOW) && epoch_of(SA_KIND_KEY, "", "k") == MEMORY_DEAD, "so is a key");
	ok(epoch_of(SA_KIND_USER, "t2", "u") == 0 && epoch_of(SA_KIND_USER, "t", "u2") == 0 && epoch_of(SA_KIND_USER, "tu", "") == 0 &&
	   epoch_of(SA_KIND_USER, "", "tu") == 0 && epoch_of(SA_KIND_SESSION, "t", "u") == 0 && epoch_of(SA_KIND_TENANT, "u", "") == 0,
	   "neighbours share nothing");
	ok(memory.count == 4, "four entries");
	memory_prune(&memory, NOW + 1000000, true);
	ok(memory.count == 1 && epoch_of(SA_KIND_KEY, "", "k") == MEMORY_DEAD, "the key's is for ever: who has stolen it makes tokens that do not expire");
	memory_free(&memory);
}

static void
test_growing(void)
{
	memory_init(&memory, 1000);
	apply(SA_KIND_USER, "t", "u", 7, NOW + 50, NOW);
	apply(SA_KIND_USER, "t", "u", 5, NOW + 90, NOW);
	ok(epoch_of(SA_KIND_USER, "t", "u") == 7, "a lower epoch that comes later takes nothing back");
	apply(SA_KIND_USER, "t", "u", 7, NOW + 50, NOW);
	ok(memory.count == 1 && epoch_of(SA_KIND_USER, "t", "u") == 7, "applying twice changes nothing");
	memory_prune(&memory, NOW + 89, true);
	ok(epoch_of(SA_KIND_USER, "t", "u") == 7, "the latest expiry counts, whatever came last");
	apply(SA_KIND_USER, "t", "u", 8, NOW + 60, NOW);
	memory_prune(&memory, NOW + 89, true);
	ok(epoch_of(SA_KIND_USER, "t", "u") == 8, "also for a higher epoch with an earlier one");
	memory_prune(&memory, NOW + 90, true);
	ok(epoch_of(SA_KIND_USER, "t", "u") == 0 && memory.count == 0, "then it may be forgotten");
	memory_free(&memory);
}

/* Growing and forgetting in two steps: the first changes nothing, and the second nothing that is still known. */
static void
test_exchange(void)
{
	MemoryTable table;
	char		uid[16];
	int			found = 0;

	memory_init(&memory, 1000);
	for (int i = 0; i < 170; i++)
	{
		snprintf(uid, sizeof(uid), "u%d", i);
		apply(SA_KIND_USER, "t", uid, i + 1, NOW + 100 + i, NOW);
	}
	ok(!memory_build_grown(&memory, 9, NOW, &table), "there is room for some more");
	ok(!memory_build_pruned(&memory, NOW + 99, true, &table) && table.next_expiry == NOW + 100, "nothing has expired, and the first will then");
	ok(memory_build_grown(&memory, 64, NOW, &table) && table.count == 170 && table.size == memory.size * 2, "a larger table is built");
	ok(epoch_of(SA_KIND_USER, "t", "u169") == 170 && memory.size < table.size, "which changes nothing yet");
	memory_exchange(&memory, &table);
	free(table.entries);
	for (int i = 0; i < 170; i++)
	{
		snprintf(uid, sizeof(uid), "u%d", i);
		found += epoch_of(SA_KIND_USER, "t", uid) == i + 1;
	}
	ok(found == 170 && memory.count == 170, "everything is in it");
	ok(!memory_build_pruned(&memory, NOW + 110, false, &table), "little has expired: not worth it");
	ok(memory_build_pruned(&memory, NOW + 110, true, &table) && table.count == 159 && table.next_expiry == NOW + 111, "without what has expired");
	memory_exchange(&memory, &table);
	free(table.entries);
	ok(epoch_of(SA_KIND_USER, "t", "u10") == 0 && epoch_of(SA_KIND_USER, "t", "u11") == 12 && memory.count == 159, "that is forgotten, and nothing else");
	memory_free(&memory);
}

static void
test_expired(void)
{
	memory_init(&memory, 1000);
	ok(apply(SA_KIND_USER, "t", "u", 7, NOW, NOW) && memory.count == 0, "what has expired is known without being remembered");
	for (int i = 0; i < 600; i++)
	{
		char		uid[16];

		snprintf(uid, sizeof(uid), "u%d", i);
		apply(SA_KIND_USER, "t", uid, 1 + i, NOW + (i % 3 == 0 ? 10 : 20), NOW);
	}
	memory_prune(&memory, NOW + 9, true);
	ok(memory.count == 600, "pruning keeps what has not expired");
	memory_prune(&memory, NOW + 10, false);
	ok(memory.count == 400, "and forgets what has");
	{
		int			kept = 0;
		int			gone = 0;

		for (int i = 0; i < 600; i++)
		{
			char		uid[16];

			snprintf(uid, sizeof(uid), "u%d", i);
			if (epoch_of(SA_KIND_USER, "t", uid) == (i % 3 == 0 ? 0 : 1 + i))
				(*(i % 3 == 0 ? &gone : &kept))++;
		}
		ok(kept == 400 && gone == 200, "each of them");
	}
	memory_prune(&memory, NOW + 20, false);
	ok(memory.count == 0 && memory.size == 256, "an empty memory is small again");
	memory_free(&memory);
}

static void
test_bound(void)
{
	char		uid[16];
	int			fitted = 0;

	memory_init(&memory, 500);
	for (int i = 0; i < 500; i++)
	{
		snprintf(uid, sizeof(uid), "u%d", i);
		if (apply(SA_KIND_USER, "t", uid, 3, NOW + (i < 10 ? 5 : 50), NOW))
			fitted++;
	}
	ok(fitted == 500 && memory.count == 500, "as many fit as were allowed");
	ok(!apply(SA_KIND_USER, "t", "one more", 3, NOW + 50, NOW), "one more does not, and that is said");
	ok(epoch_of(SA_KIND_USER, "t", "one more") == 0 && epoch_of(SA_KIND_USER, "t", "u0") == 3, "nothing else is lost for it");
	ok(apply(SA_KIND_USER, "t", "u499", 4, NOW + 60, NOW) && epoch_of(SA_KIND_USER, "t", "u499") == 4, "what is there can still grow");
	ok(!apply(SA_KIND_USER, "t", "one more", 3, NOW + 50, NOW + 4), "not before something has expired");
	ok(apply(SA_KIND_USER, "t", "one more", 3, NOW + 50, NOW + 5) && memory.count == 491, "room is made of what has expired by then");
	ok(epoch_of(SA_KIND_USER, "t", "u9") == 0 && epoch_of(SA_KIND_USER, "t", "u10") == 3, "and of nothing else");
	fitted = 0;
	for (int i = 0; i < 20; i++)
	{
		snprintf(uid, sizeof(uid), "v%d", i);
		if (apply(SA_KIND_USER, "t", uid, 3, NOW + 10, NOW + 5))
			fitted++;
	}
	ok(fitted == 9 && memory.count == 500, "the room that was made can be filled again");
	ok(!apply(SA_KIND_USER, "t", "another", 3, NOW + 50, NOW + 9) && apply(SA_KIND_USER, "t", "another", 3, NOW + 50, NOW + 10),
	   "and made again when that has expired, which is earlier than the rest");
	memory_free(&memory);
}

/* Just after the table has doubled there is the most room for each, and after a wave has expired it could stay. */
static void
test_size(void)
{
	size_t		worst = 0;
	char		uid[16];

	memory_init(&memory, 100000);
	for (int i = 0; i < 20000; i++)
	{
		snprintf(uid, sizeof(uid), "u%d", i);
		apply(SA_KIND_USER, "t", uid, 3, i < 3000 ? NOW + 10 + i % 3 : NOW + 100 + i, NOW);
		if (i > 1000 && memory.size * sizeof(MemoryEntry) / memory.count > worst)
			worst = memory.size * sizeof(MemoryEntry) / memory.count;
	}
	ok(worst <= 100, "growing, a revocation takes at most 100 bytes (%zu)", worst);
	worst = 0;
	for (int64_t now = NOW + 20; memory.count > 1000; now += 100)
	{
		memory_prune(&memory, now, true);
		if (memory.count > 1000 && memory.size * sizeof(MemoryEntry) / memory.count > worst)
			worst = memory.size * sizeof(MemoryEntry) / memory.count;
	}
	ok(worst > 0 && worst <= 100, "shrinking, too (%zu)", worst);
	memory_free(&memory);
}

/* Against an array, with a clock that moves: never forgotten early, whatever is pruned when. */
static void
test_like_naive(unsigned int seed)
{
	static int64_t epochs[200];
	static int64_t untils[200];
	int64_t		now = NOW;
	int			wrong = 0;

	memory_init(&memory, 1000);
	memset(epochs, 0, sizeof(epochs));
	memset(untils, 0, sizeof(untils));
	srand(seed);
	for (int step = 0; step < 5000; step++)
	{
		int			i = rand() % 200;
		int64_t		epoch = 1 + rand() % 1000;
		int64_t		until = now + rand() % 300 - 20;
		char		uid[16];

		now += rand() % 3;
		snprintf(uid, sizeof(uid), "u%d", i);
		if (!apply(SA_KIND_USER, "t", uid, epoch, until, now))
			wrong++;
		if (until > now)
		{
			if (untils[i] <= now)
				epochs[i] = 0;	/* forgotten, or will be: either is right */
			epochs[i] = epoch > epochs[i] ? epoch : epochs[i];
			untils[i] = until > untils[i] ? until : untils[i];
		}
		if (rand() % 50 == 0)
			memory_prune(&memory, now, rand() % 2 == 0);
		i = rand() % 200;
		snprintf(uid, sizeof(uid), "u%d", i);
		if (untils[i] > now && epoch_of(SA_KIND_USER, "t", uid) < epochs[i])
			wrong++;
	}
	ok(wrong == 0, "5000 random revocations and prunings: nothing is forgotten before it has expired (seed %u, %d were)", seed, wrong);
	memory_free(&memory);
}

int
main(void)
{
	test_kinds();
	test_growing();
	test_exchange();
	test_expired();
	test_bound();
	test_size();
	for (unsigned int seed = 1; seed <= 5; seed++)
		test_like_naive(seed);
	return tap_done();
}

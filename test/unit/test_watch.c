/*
 * test_watch.c
 *		Watches: told once, of their own session's end only, and never after they
 *		were given back.
 */
#include <stdlib.h>

#include "node/watch.h"
#include "tap.h"

static Watches watches;
static int	told[8];
static SessauthEnd told_why;
static SessauthWatch *to_free;

static void
on_end(void *arg, SessauthEnd why)
{
	++*(int *) arg;
	told_why = why;
}

static void
on_end_free(void *arg, SessauthEnd why)
{
	on_end(arg, why);
	watch_free(&watches, to_free);
}

static MemoryName
name(uint64_t number)
{
	/* The low bits are the same: all of them share a bucket. */
	return (MemoryName) {{number << 20, 1}};
}

static SessauthWatch *
watch(int session, int user, int i)
{
	Claims		claims = {.session = name(session), .user = name(user), .tenant = name(1000), .key = name(2000),
	.epoch = 7, .tepoch = 3, .exp = 100};

	told[i] = 0;
	return watch_add(&watches, &claims, on_end, &told[i]);
}

static void
revoked(int what, int number, int64_t epoch)
{
	MemoryName	of = name(number);

	watches_revoked(&watches, what, &of, epoch);
	watches_tell(&watches);
}

static void
test_kinds(void)
{
	SessauthWatch *all[6];

	watches_init(&watches);
	revoked(WATCH_USER, 10, 8);
	ok(watches_count(&watches) == 0, "without watches nothing happens");
	for (int i = 0; i < 6; i++)
		all[i] = watch(i, 10 + i / 2, i);
	revoked(WATCH_SESSION, 0, MEMORY_DEAD);
	ok(told[0] == 1 && told_why == SESSAUTH_END_REVOKED && watches_count(&watches) == 5, "a session ends its watch");
	revoked(WATCH_SESSION, 0, MEMORY_DEAD);
	revoked(WATCH_USER, 10, 7);
	ok(told[0] == 1 && told[1] == 0, "once; and the epoch that the session has ends nothing");
	revoked(WATCH_USER, 10, 8);
	ok(told[0] == 1 && told[1] == 1 && told[2] + told[3] + told[4] + told[5] == 0, "a user's next epoch ends the rest of the user's");
	revoked(WATCH_SESSION, 11, MEMORY_DEAD);
	revoked(WATCH_USER, 2, MEMORY_DEAD);
	revoked(WATCH_TENANT, 2000, MEMORY_DEAD);
	ok(watches_count(&watches) == 4, "a name of another kind is another name");
	revoked(WATCH_TENANT, 1000, 3);
	ok(watches_count(&watches) == 4, "a tenant's own epoch ends nothing");
	watch_free(&watches, all[5]);
	revoked(WATCH_TENANT, 1000, 4);
	ok(told[2] == 1 && told[3] == 1 && told[4] == 1 && told[5] == 0, "its next ends all, but not what was given back");
	for (int i = 0; i < 5; i++)
		watch_free(&watches, all[i]);

	all[0] = watch(1, 2, 0);
	revoked(WATCH_KEY, 2000, MEMORY_DEAD);
	ok(told[0] == 1, "the key of the token ends it");
	watch_free(&watches, all[0]);
	watches_free(&watches);
}

static void
test_missed(void)
{
	SessauthWatch *one;

	watches_init(&watches);
	one = watch(1, 2, 0);
	watches_missed(&watches, 99);
	watches_tell(&watches);
	ok(told[0] == 0, "what was missed concerns tokens that had expired by then");
	watches_missed(&watches, 100);
	watches_tell(&watches);
	ok(told[0] == 1 && told_why == SESSAUTH_END_UNKNOWN, "these are told that nobody knows");
	watch_free(&watches, one);
	watches_free(&watches);
}

static void
test_giving_back(void)
{
	Claims		claims = {.session = name(1), .user = name(2), .tenant = name(3), .key = name(4), .exp = 100};
	MemoryName	session = name(1);
	SessauthWatch *one;

	watches_init(&watches);
	one = watch(1, 2, 0);
	watches_revoked(&watches, WATCH_SESSION, &session, MEMORY_DEAD);
	watch_free(&watches, one);
	watches_tell(&watches);
	ok(told[0] == 0, "one that is given back before it was told is not told");
	told[1] = 0;
	to_free = watch_add(&watches, &claims, on_end_free, &told[1]);
	revoked(WATCH_SESSION, 1, MEMORY_DEAD);
	ok(told[1] == 1 && watches_count(&watches) == 0, "one may give itself back when it is told");
	watches_free(&watches);
}

static void
test_many(void)
{
	static int	counts[5000];
	static SessauthWatch *many[5000];
	int			wrong = 0;

	watches_init(&watches);
	srand(1);
	for (int i = 0; i < 5000; i++)
	{
		Claims		claims = {.session = {{(uint64_t) rand(), 2}}, .user = {{i % 100, 3}}, .tenant = {{i % 7, 4}}, .key = {{1, 5}}, .exp = i};

		many[i] = watch_add(&watches, &claims, on_end, &counts[i]);
	}
	for (uint64_t user = 0; user < 50; user++)
	{
		MemoryName	of = {{user, 3}};

		watches_revoked(&watches, WATCH_USER, &of, 1);
	}
	watches_tell(&watches);
	for (int i = 0; i < 5000; i++)
		wrong += counts[i] != (i % 100 < 50);
	ok(wrong == 0 && watches_count(&watches) == 2500, "of five thousand, those of fifty users end, each once (%d wrong)", wrong);
	for (int i = 0; i < 5000; i++)
		watch_free(&watches, many[i]);
	ok(watches_count(&watches) == 0, "and all can be given back");
	watches_free(&watches);
}

int
main(void)
{
	test_kinds();
	test_missed();
	test_giving_back();
	test_many();
	return tap_done();
}

/*
 * test_many_readers.c
 *		Readers in more threads than there are slots, and two writers: nobody sees a change half made, and writers get their turn.
 */
#include <stdatomic.h>
#include <sched.h>

#include "node/many_readers.h"
#include "tap.h"

#define READERS		(MANY_READERS_SLOTS + 3)
#define WRITERS		2
#define WRITES		50

static ManyReaders lock;
static long a;
static long b;
static atomic_int together;
static atomic_int torn;
static atomic_bool stop;

static void *
reads(void *arg)
{
	(void) arg;
	while (!atomic_load(&stop))
	{
		many_readers_read(&lock);
		if (a != b)
			atomic_fetch_add(&torn, 1);
		many_readers_end_read(&lock);
	}
	return NULL;
}

static void *
writes(void *arg)
{
	(void) arg;
	for (int i = 0; i < WRITES; i++)
	{
		many_readers_write(&lock);
		a++;
		sched_yield();
		b++;
		many_readers_end_write(&lock);
	}
	return NULL;
}

/* Holds the lock until everybody does. */
static void *
reads_with_all(void *arg)
{
	(void) arg;
	many_readers_read(&lock);
	atomic_fetch_add(&together, 1);
	while (atomic_load(&together) < READERS)
		sched_yield();
	many_readers_end_read(&lock);
	return NULL;
}

int
main(void)
{
	pthread_t	threads[READERS + WRITERS];

	many_readers_init(&lock);

	for (int i = 0; i < READERS; i++)
		pthread_create(&threads[i], NULL, reads_with_all, NULL);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	ok(together == READERS, "%d threads read at once", READERS);

	for (int i = 0; i < READERS + WRITERS; i++)
		pthread_create(&threads[i], NULL, i < READERS ? reads : writes, NULL);
	for (int i = READERS; i < READERS + WRITERS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	ok(a == (long) WRITERS * WRITES && b == a, "two writers got all their turns among %d readers, one after the other", READERS);
	ok(torn == 0, "and no reader saw a change half made");
	many_readers_destroy(&lock);
	return tap_done();
}

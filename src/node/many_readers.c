/*
 * many_readers.c
 *		A lock for what every request reads. See many_readers.h.
 *
 * Writers take the locks in one order, so they cannot wait for each other in a circle; a reader holds one and waits
 * for none. Whoever has all of them has waited for every reader, and holds off every later one, as with a single lock.
 */
#include "node/many_readers.h"

#include <stdatomic.h>

static pthread_rwlock_t *of_thread(ManyReaders *lock);

void
many_readers_init(ManyReaders *lock)
{
	pthread_rwlockattr_t attr;

	/* However many threads read all the time, a writer gets its turn. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (int i = 0; i < MANY_READERS_SLOTS; i++)
		pthread_rwlock_init(&lock->slots[i].lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

void
many_readers_destroy(ManyReaders *lock)
{
	for (int i = 0; i < MANY_READERS_SLOTS; i++)
		pthread_rwlock_destroy(&lock->slots[i].lock);
}

void
many_readers_read(ManyReaders *lock)
{
	pthread_rwlock_rdlock(of_thread(lock));
}

void
many_readers_end_read(ManyReaders *lock)
{
	pthread_rwlock_unlock(of_thread(lock));
}

void
many_readers_write(ManyReaders *lock)
{
	for (int i = 0; i < MANY_READERS_SLOTS; i++)
		pthread_rwlock_wrlock(&lock->slots[i].lock);
}

void
many_readers_end_write(ManyReaders *lock)
{
	for (int i = MANY_READERS_SLOTS - 1; i >= 0; i--)
		pthread_rwlock_unlock(&lock->slots[i].lock);
}

/* Threads get the slots in turn, at their first look. */
static pthread_rwlock_t *
of_thread(ManyReaders *lock)
{
	static atomic_uint next;
	static _Thread_local unsigned int mine;	/* 0: none yet */

	if (mine == 0)
		mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % MANY_READERS_SLOTS;
	return &lock->slots[mine - 1].lock;
}

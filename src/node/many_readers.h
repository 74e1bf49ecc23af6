/*
 * many_readers.h
 *		A lock for what every request reads and one thread at a time changes.
 *
 * The count of readers in a common read-write lock is one place that all processors write to, and hand to each other, at each request: with it, a
 * second thread adds next to nothing. Here a reader takes one of several locks, by its thread, and a writer takes all of them.
 */
#ifndef SESSAUTH_NODE_MANY_READERS_H
#define SESSAUTH_NODE_MANY_READERS_H

#include <pthread.h>

#define MANY_READERS_SLOTS	16

typedef struct ManyReadersSlot
{
	_Alignas(64) pthread_rwlock_t lock;
} ManyReadersSlot;

typedef struct ManyReaders
{
	ManyReadersSlot slots[MANY_READERS_SLOTS];
} ManyReaders;

extern void many_readers_init(ManyReaders *lock);
extern void many_readers_destroy(ManyReaders *lock);

/* As with a read-write lock that prefers writers: never twice in one thread. What was taken in a thread is given back in it. */
extern void many_readers_read(ManyReaders *lock);
extern void many_readers_end_read(ManyReaders *lock);

/* Holds off readers and writers alike. */
extern void many_readers_write(ManyReaders *lock);
extern void many_readers_end_write(ManyReaders *lock);

#endif							/* SESSAUTH_NODE_MANY_READERS_H */

/*
 * wake.h
 *		Waking the worker when a transaction that wrote events has committed.
 */
#ifndef SESSAUTH_SERVER_WAKE_H
#define SESSAUTH_SERVER_WAKE_H

/*
 * Remembers that the current transaction has something for the worker; the
 * commit sets its latch. Cheap to call repeatedly. Never throws once the
 * transaction is committing; a no-op when the library was not preloaded.
 */
extern void wake_worker_at_commit(void);

/* The same at once, without a commit. Never throws. */
extern void wake_worker_now(void);

#endif							/* SESSAUTH_SERVER_WAKE_H */

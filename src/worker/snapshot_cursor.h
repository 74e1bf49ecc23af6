/*
 * snapshot_cursor.h
 *		A position in the history: everything that was visible in a snapshot.
 *
 * Ids are given before commit, so "id greater than the last" would lose
 * events. What is new since a snapshot is what is visible now and was written by a transaction that the snapshot calls
 * in progress (xip) or has not heard of (xmax and above).
 */
#ifndef SESSAUTH_WORKER_SNAPSHOT_CURSOR_H
#define SESSAUTH_WORKER_SNAPSHOT_CURSOR_H

#include "utils/array.h"

/* One allocation, never changed after it is made; freed with pfree. */
typedef struct SnapshotCursor
{
	uint64		xmax;
	ArrayType  *xip;			/* xid8[] */
	char	   *text;			/* as pg_snapshot prints it */
} SnapshotCursor;

/* In the current context. Throws when the text is not a pg_snapshot. */
extern SnapshotCursor *snapshot_cursor_make(const char *text);

#endif							/* SESSAUTH_WORKER_SNAPSHOT_CURSOR_H */

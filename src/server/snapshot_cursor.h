/*
 * snapshot_cursor.h
 *		A position in the history: everything that was visible in a snapshot.
 *
 * Ids are given before commit, so "id greater than the last" would lose
 * events. What is new between two snapshots was written by transactions that were in progress, or had not
 * begun, in the first, and are over in the second. That is a short list of ranges of transaction ids: an
 * index on them finds what is new without looking at what is old, nor at what somebody has written and not yet committed.
 */
#ifndef SESSAUTH_SERVER_SNAPSHOT_CURSOR_H
#define SESSAUTH_SERVER_SNAPSHOT_CURSOR_H

/* One allocation, never changed after it is made; freed with pfree. */
typedef struct SnapshotCursor
{
	const char *text;			/* as pg_snapshot prints it */
	uint64		xmax;			/* all from here on had not begun */
	int			nxip;			/* in progress, ascending */
	uint64		xip[FLEXIBLE_ARRAY_MEMBER];
} SnapshotCursor;

/* In the current context. Throws when the text is not a pg_snapshot. */
extern SnapshotCursor *snapshot_cursor_make(const char *text);

/*
 * The transactions whose events are new in "to", as ranges, ascending: arrays of xid8 of
 * equal length with the first and the last of each, in the current context. Returns how many.
 */
extern int	snapshot_cursor_ranges(const SnapshotCursor *from, const SnapshotCursor *to, Datum *first, Datum *last);

#endif							/* SESSAUTH_SERVER_SNAPSHOT_CURSOR_H */

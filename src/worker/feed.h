/*
 * feed.h
 *		What a mirror's keys must hear of: changes since a position in the
 *		history, and, after a loss, everything that is alive.
 */
#ifndef SESSAUTH_WORKER_FEED_H
#define SESSAUTH_WORKER_FEED_H

#include "core/wire.h"
#include "worker/numbering.h"
#include "server/snapshot_cursor.h"

#define KEY_GRACE_MS	60000	/* keys outlive what they say by a minute (doc/protocol.md, section 2) */

/* One thing to write into keys. Strings live in the context that the feed was read in. */
typedef enum KeyItemKind
{
	KEY_ITEM_SESSION,			/* everything below */
	KEY_ITEM_USER,				/* tid, uid, user_epoch, expire_at */
	KEY_ITEM_TENANT				/* tid, tenant_epoch */
} KeyItemKind;

typedef struct KeyItem
{
	KeyItemKind kind;
	char	   *tid;
	char	   *uid;
	char		sid[SA_UUID_SIZE];
	int64		epoch;			/* of the session's birth */
	int64		tepoch;
	int64		exp;			/* unix s */
	int64		version;
	bool		live;
	int64		user_epoch;		/* what the epoch keys must at least be */
	int64		tenant_epoch;
	int64		expire_at;		/* unix ms: from then on no token can need the key */
} KeyItem;

/*
 * How far a mirror's keys have been brought. A pass leads from one snapshot
 * (seen) to another (target), in slices ordered by (xid, event_id). A full sync goes through tenants and sessions
 * beside it; what changes meanwhile comes through the pass, and versions sort it out.
 */
typedef enum FeedSync
{
	FEED_SYNC_NONE,
	FEED_SYNC_TENANTS,
	FEED_SYNC_SESSIONS,
	FEED_SYNC_LAST				/* all read; the mirror is synced once this batch has arrived */
} FeedSync;

typedef struct FeedPosition
{
	const SnapshotCursor *seen;
	const SnapshotCursor *target;	/* NULL: no pass is under way */
	bool		moved;			/* the pass has found something */
	uint64		after_xid;
	int64		after_event;
	uint64		news;			/* ledger_news when the last pass began */
	FeedSync	sync;
	char		sync_after[SA_TENANT_ID_MAX + 1];	/* last tenant, or session, read */
} FeedPosition;

/* Starts a full sync from the current snapshot; seen is allocated in context. */
extern void feed_start_sync(FeedPosition *position, const LedgerState *state, MemoryContext context);

/* True when there is, or may be, something to read. */
extern bool feed_has_more(const FeedPosition *position);

/*
 * Reads up to max items and moves the position behind them. Needs an open
 * worker transaction in which the new events have been numbered. Items go into the current
 * context, cursors into "cursors".
 */
extern int	feed_read(FeedPosition *position, const LedgerState *state, MemoryContext cursors, int max, KeyItem *out);

/* A session's item from the first ten columns of a row: sid, tid, uid, epochs of birth, version, live, expiry, epochs of now. */
extern void feed_fill_session(uint64 row, KeyItem *item);

#endif							/* SESSAUTH_WORKER_FEED_H */

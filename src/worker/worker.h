/*
 * worker.h
 *		What the files of the worker share.
 *
 * worker.c			the process and its loop
 * salvage.c		what aborted transactions have handed over → events
 * numbering.c		events → revocation log (exactly once), generations
 * mirrors.c			which mirrors there are
 * mirror.c			one mirror: connect, check, what comes next
 * handshake.c		the first exchange with it
 * ownership.c		whose mirror it is
 * adopt.c			before it is claimed: what it remembers and the ledger does not
 * publish.c		the stream: entries, beats, answers
 * pages.c			the same entries by the thousand, for nodes that join
 * nonces.c			the nodes' nonces
 * feed.c			what has changed since a position in the history, or is alive
 * keys.c			the same as keys in Redis
 * upkeep.c			when which slow duty is done; partitions.c: those of the history
 * reconcile.c		these keys compared with the ledger, and repaired; compare.c is the comparison of a
 *					slice, found_keys.c reads what the mirror says
 * receipts.c		when everybody knows of a revocation; marks.c: since when
 * worker_tx.c		a transaction, and statements in it
 */
#ifndef SESSAUTH_WORKER_WORKER_H
#define SESSAUTH_WORKER_WORKER_H

#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "core/redis_url.h"
#include "core/wire.h"
#include "server/clock.h"
#include "server/lease_book.h"
#include "worker/feed.h"
#include "worker/marks.h"
#include "worker/numbering.h"
#include "worker/reconcile.h"
#include "worker/redis_link.h"
#include "worker/redis_scripts.h"

/* ---- salvage.c: outside transactions ---- */

/* Throw like any statement, and return false when somebody changes the extension; then everything is still there for the next round. */
extern bool salvage_logins(void);
extern bool salvage_thefts(void);

/* No login that was rolled back is known of that nodes cannot know of yet. */
extern bool salvage_allows_leases(void);

/* ---- mirror.c ---- */

typedef enum MirrorPhase
{
	MIRROR_DOWN,				/* not connected; retry_at says when to try */
	MIRROR_HANDSHAKE,			/* connecting, logging in, reading what is there */
	MIRROR_CHECK,				/* the next transaction compares what is there with the log */
	MIRROR_ADOPT,				/* its stream is being read, for what the ledger has lost */
	MIRROR_CLAIM,				/* our name and position are being written */
	MIRROR_STREAMING,
	MIRROR_RELEASED				/* removed: our name is being taken off it */
} MirrorPhase;

typedef enum MirrorExchange
{
	EXCHANGE_NONE,
	EXCHANGE_HANDSHAKE,
	EXCHANGE_ADOPT,
	EXCHANGE_CLAIM,
	EXCHANGE_NONCES,
	EXCHANGE_PUBLISH,
	EXCHANGE_RECONCILE,
	EXCHANGE_RELEASE
} MirrorExchange;

#define STREAM_ID_SIZE	48
#define PLACE_SIZE		(48 + 8 + SA_PREFIX_MAX)

typedef struct PendingNonce
{
	char		node[SA_NODE_ID_SIZE];
	SaNonce		nonce;
} PendingNonce;

/* A node as this worker life knows it. */
typedef struct KnownNode
{
	char		node[SA_NODE_ID_SIZE];	/* hash key */
	char		asked[SA_NONCE_SIZE];	/* its last nonce */
	char		answered[SA_NONCE_SIZE];	/* the last of them that was answered */
	Instant		seen_at;		/* when its last new nonce was read */
	bool		present;		/* mark of the current reading */
	bool		leaving;		/* silent for too long: the next beat removes its entry */
	LeaseBook	book;
} KnownNode;

typedef struct Mirror
{
	char		name[64];
	char		url[1024];
	char		password_file[MAXPGPATH];
	SaRedisUrl	where;
	RedisLink	link;
	MirrorPhase phase;
	MirrorExchange exchange;
	char		script_sha[SCRIPT_COUNT][41];

	/* outages */
	Instant		retry_at;
	int			backoff;		/* ms */
	int			blames;			/* how often it was found ahead of the ledger */
	Instant		blame_after;	/* until then that is not believed again */
	Instant		look_at;		/* when to look at its settings again */
	bool		warned;			/* of what is not as it should be there: once */
	bool		outage;			/* one log line at its start, one at its end */

	/* what the handshake found */
	bool		lost;			/* a script found the stream not as it was left: claim the mirror again */
	bool		found;
	bool		found_synced;
	char		found_owner[SA_UUID_SIZE];
	char		found_generation[SA_UUID_SIZE];
	int64		found_n;
	char		found_tail[SA_MAC_TEXT_LEN + 1];
	char		found_id[STREAM_ID_SIZE];
	int64		found_lease;	/* ms: the longest that its owner gives */
	char		place[PLACE_SIZE];	/* life of the Redis process, database, prefix: another one has other keys, or may have lost some */

	/* another ledger that owns it */
	char		rival[SA_UUID_SIZE];
	char		rival_id[STREAM_ID_SIZE];	/* its last entry, as we saw it */
	Instant		rival_since;	/* when that was first seen */
	Instant		rival_looked;	/* and last */
	bool		rival_moved;	/* it was seen to append: it is alive */

	/* what its stream remembers: one slice of it */
	bool		met;			/* by this worker */
	bool		adopted;		/* over this connection: nothing is there that the ledger does not know */
	SaEntry    *remembered;
	int			remembered_count;
	char		adopt_from[STREAM_ID_SIZE];	/* of XRANGE; empty: all has been read */
	Instant		adopt_retry_at;
	int64		adopted_count;	/* in this worker's life */

	/* where the mirror is, and where it will be when the exchange under way ends well */
	char		generation[SA_UUID_SIZE];
	int64		n;
	char		tail[SA_MAC_TEXT_LEN + 1];
	char		id[STREAM_ID_SIZE]; /* of the last entry that was confirmed, over all connections; empty: none */
	int64		next_n;
	char		next_tail[SA_MAC_TEXT_LEN + 1];
	int64		behind;
	int64		pages_until;	/* unix ms until when the pages that were written may be needed */
	int			publishing;		/* scripts that the plan has queued */

	/* what the exchange under way would lead to without what is being added to it; see publish_more() */
	bool		adding;
	int64		kept_n;
	char		kept_tail[SA_MAC_TEXT_LEN + 1];
	FeedPosition kept_ahead;

	/* beats */
	Instant		next_beat;
	bool		nonces_read;	/* in this round, before the transaction that comes */
	bool		beating;		/* the exchange under way ends with a beat */
	int64		beats;
	TimestampTz last_beat_at;
	int64		since_trim;
	PendingNonce *pending;
	int			pending_count;
	int			pending_size;
	HTAB	   *nodes;
	bool		crowded;		/* there were more of them than may be: said once */
	int64		hold_until;		/* ms of clock_boot(): so long others' leases may be out here */
	int64		known_n;		/* what all its nodes know, as stored; see receipts.c */
	Marks		known_since;

	/* keys; see feed.h */
	MemoryContext cursors;		/* holds what "feed" and "ahead" point to */
	bool		loaded;			/* mirror_state has been read */
	FeedPosition feed;			/* what the mirror has confirmed */
	FeedPosition ahead;			/* what it will be when the exchange under way ends well */
	int64		keys_n;			/* everything up to this number of the generation is in keys; -1: unknown */
	Instant		claimed_at;		/* 0: not in this worker's life */
	bool		keys_compared;	/* with the ledger, from the first to the last, since then */
	char		feed_place[PLACE_SIZE]; /* that "feed" is about */
	int64		synced_keys;	/* in the full sync under way */
	TimestampTz synced_at;		/* 0: a full sync is needed or under way */
	TimestampTz sync_began_at;
	bool		store_feed;		/* mirror_state is behind */
	Instant		store_at;		/* and need not be brought up to date before */
	bool		storing;		/* it is being written by the transaction that is open */

	Reconcile	reconcile;
	TimestampTz resync_asked;	/* by resync(); 0: never */
	TimestampTz reconcile_asked;	/* the newest request that was heard */
} Mirror;

#define MIRRORS_MAX 32			/* per database */
extern Mirror *mirrors[MIRRORS_MAX];
extern int	mirror_count;

/* Outside transactions. */
extern void mirrors_advance(Instant now);	/* connects, reads, writes, handles what arrived */
extern void mirrors_send(Instant now);	/* begins the exchanges that the transaction has queued */
extern void mirrors_discard(void);	/* the transaction failed: forgets what it has queued */
extern Instant mirrors_next_event(Instant now, Instant next_round);
extern bool mirrors_need_transaction(void);
extern void mirrors_show(void); /* status into shared memory */
extern void mirrors_close(void);
extern void mirror_fail(Mirror *mirror, const char *error);
extern void mirror_recovered(Mirror *mirror);

/* Inside the transaction. */
extern void mirrors_load(const LedgerState *state); /* mirrors.c, as mirrors_close */
extern void mirrors_plan(LedgerState *state);

/* Queues one EVALSHA (link_command). */
extern void mirror_script(Mirror *mirror, int script, int nkeys, int argc, const SaField *argv);

/* The link key; NULL (and why) while there is none. */
extern const unsigned char *mirror_link_key;

/* ---- handshake.c ---- */
extern bool handshake_ask(Mirror *mirror);
extern const char *handshake_take(Mirror *mirror);
extern void handshake_look_ask(Mirror *mirror, Instant now);
extern void handshake_look_take(Mirror *mirror, const redisReply *reply);

/* ---- ownership.c ---- */
extern bool ownership_lapsed(Mirror *mirror);
extern bool ownership_release(Mirror *mirror, const char *ledger_id);

/* ---- adopt.c ---- */
extern void adopt_begin(Mirror *mirror);
extern void adopt_ask(Mirror *mirror);
extern void adopt_take(Mirror *mirror, const redisReply *reply);
extern bool adopt_pending(const Mirror *mirror, Instant now);
extern void adopt_remembered(void); /* outside transactions; makes its own. Throws like any statement; then all is still there */

/* ---- publish.c: the stream ---- */
extern void publish_check(Mirror *mirror, LedgerState *state);
extern void publish_plan(Mirror *mirror, LedgerState *state);
extern bool publish_may_add(const Mirror *mirror);	/* to the exchange under way */
extern bool publish_has_more(const Mirror *mirror); /* than what the exchange under way brings */
extern void publish_more(Mirror *mirror, const LedgerState *state); /* adds it */
extern void publish_added(Mirror *mirror, bool committed);	/* or not: outside the transaction */
extern void publish_done(Mirror *mirror, Instant now);

/* ---- pages.c ---- */
extern int	page_left(int64 n);		/* how many numbers there are from n to the end of its page */
extern void page_plan(Mirror *mirror, const LedgerState *state, const SaEntry *entries, int count); /* behind the entry it ends with */

/* ---- keys.c ---- */
extern bool keys_pending(const Mirror *mirror); /* something may have to be written */
extern void keys_sync(Mirror *mirror, const LedgerState *state);	/* begin with everything that is alive */
extern void keys_plan(Mirror *mirror, const LedgerState *state);

/* Beside the feed: items are changed. Returns how many could be said. Deletes what still is what was read. */
typedef enum KeysMark
{
	KEYS_PLAIN,
	KEYS_COUNTED,				/* the script answers what was missing or stale */
	KEYS_END_SYNC
} KeysMark;

extern int	keys_write(Mirror *mirror, const LedgerState *state, KeyItem *items, int count, KeysMark mark);
extern void keys_delete(Mirror *mirror, const LedgerState *state, const Repair *repairs, int count);
extern void keys_expire(Mirror *mirror, const LedgerState *state, const WrongExpiry *expiries, int count);	/* counted as stale */
extern void keys_settle(Mirror *mirror, bool arrived);
extern void keys_load(Mirror *mirror);	/* inside the transaction, as the next */
extern void keys_store(Mirror *mirror);

/* ---- reconcile.c ---- */
extern bool reconcile_ask(Mirror *mirror, Instant now);
extern void reconcile_take(Mirror *mirror);
extern void reconcile_reset(Mirror *mirror);
extern void reconcile_request(Mirror *mirror, TimestampTz asked_at);
extern bool reconcile_pending(const Mirror *mirror, Instant now);
extern Instant reconcile_next(const Mirror *mirror);
extern void reconcile_compare(void);	/* outside transactions; makes its own */
extern void reconcile_plan(Mirror *mirror, const LedgerState *state);
extern void reconcile_tally(Mirror *mirror, const char *counts);

/* ---- nonces.c ---- */
extern void nonces_ask(Mirror *mirror);
extern void nonces_take(Mirror *mirror, const redisReply *reply, Instant now);
extern void nonces_put_off(Mirror *mirror); /* they will be read again */
extern void nonces_answered(Mirror *mirror);

/* A node has claimed to know more than there is. */
extern bool nonces_are_ahead(const LedgerState *state);

/* ---- receipts.c ---- */

/* Inside the transaction: before mirrors_load, after mirrors_plan. */
extern void receipts_begin(const LedgerState *state);
extern void receipts_decide(const LedgerState *state, bool busy);

/* Outside: the transaction has committed, or not. */
extern void receipts_settle(bool committed);

/* When there must be another transaction, to decide what is left. */
extern Instant receipts_next_event(void);

/* An answer up to number n of the generation is being planned; nodes must not be forgotten while their leases are out. */
extern void receipts_answering(Mirror *mirror, const LedgerState *state, const PendingNonce *pending);

/* The mirror has what it had been sent. */
extern void receipts_published(void);

/* From now on for the length of the longest lease nothing is confirmed: at this mirror, or (NULL) anywhere. */
extern void receipts_hold(Mirror *mirror);

/* ms: no lease that is out at the mirror, or that the open transaction may give there, is longer. */
extern int64 receipts_longest(const Mirror *mirror);

/* ---- status.c ---- */
extern void status_mirror(const Mirror *mirror, const char *state, const char *error, const char *warning);
extern void status_reconcile(const Mirror *mirror);
extern void status_node(const Mirror *mirror, const KnownNode *node, const SaNonce *nonce, bool refused);
extern void status_node_forget(const Mirror *mirror, const char *node);
extern void status_forget(const char *mirror);	/* NULL: everything of this database */

#endif							/* SESSAUTH_WORKER_WORKER_H */

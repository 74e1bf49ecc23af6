/*
 * worker.h
 *		What the files of the worker share.
 *
 * worker.c			the process and its loop
 * salvage.c		what aborted transactions have handed over → events
 * numbering.c		events → revocation log (exactly once), generations
 * mirror.c			one mirror: connect, check, what comes next
 * publish.c		what is sent: entries, beats, answers, keys
 */
#ifndef SESSAUTH_WORKER_WORKER_H
#define SESSAUTH_WORKER_WORKER_H

#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "core/redis_url.h"
#include "core/wire.h"
#include "worker/redis_link.h"

/* sessauth.ledger_state as the current transaction sees it. */
typedef struct LedgerState
{
	char		ledger_id[SA_UUID_SIZE];
	char		generation[SA_UUID_SIZE];
	int			timeline;
	int64		n;
	int64		low;			/* lowest n that still matters; n + 1 when none does */
	TimestampTz now;			/* the ledger's time, read after the snapshot was taken; whole milliseconds */
	int64		now_ms;			/* the same as unix ms */
	char	   *snapshot;		/* this transaction's, as text, in the transaction's memory */
} LedgerState;

/* ---- numbering.c; all run inside the worker's transaction ---- */

/* False: the ledger is dormant. Recognises copies and new timelines, and then opens a new generation. */
extern bool ledger_state_read(LedgerState *state);

/* Gives numbers to the revocations that have become visible; returns how many. Sends the NOTIFY hint. */
extern int64 number_new_events(LedgerState *state);

/* A generation in which no number has been used: carries over what still matters. */
extern void open_generation(LedgerState *state, const char *why);

/* Fills low; deletes old rows of the log now and then. */
extern void find_low(LedgerState *state);

/* Entry n of the current generation; false when it is not there (any more). */
extern bool log_entry_read(const LedgerState *state, int64 n, SaEntry *out);

/* Entries above n, in order, at most max. Returns how many; *out is palloc'ed. */
extern int	log_entries_read(const LedgerState *state, int64 above, int max, SaEntry **out);

/* ---- salvage.c; outside transactions ---- */

extern void salvage(void);

/* ---- mirror.c ---- */

typedef enum MirrorPhase
{
	MIRROR_DOWN,				/* not connected; retry_at says when to try */
	MIRROR_HANDSHAKE,			/* connecting, logging in, reading what is there */
	MIRROR_CHECK,				/* the next transaction compares what is there with the log */
	MIRROR_CLAIM,				/* our name and position are being written */
	MIRROR_STREAMING
} MirrorPhase;

typedef enum MirrorExchange
{
	EXCHANGE_NONE,
	EXCHANGE_HANDSHAKE,
	EXCHANGE_CLAIM,
	EXCHANGE_NONCES,
	EXCHANGE_PUBLISH
} MirrorExchange;

typedef struct PendingNonce
{
	char		node[SA_NODE_ID_SIZE];
	SaNonce		nonce;
} PendingNonce;

/* A node as this worker life knows it. */
typedef struct KnownNode
{
	char		node[SA_NODE_ID_SIZE];	/* hash key */
	char		answered[SA_NONCE_SIZE];	/* the nonce answered last */
	TimestampTz seen_at;		/* when its last new nonce was read */
	bool		present;		/* mark of the current reading */
} KnownNode;

typedef struct Mirror
{
	char		name[64];
	char		url[1024];
	char		password_file[MAXPGPATH];
	bool		listed;			/* mark of the current reading of sessauth.mirror */
	SaRedisUrl	where;
	RedisLink	link;
	MirrorPhase phase;
	MirrorExchange exchange;
	char		script_sha[5][41];

	/* outages */
	TimestampTz retry_at;
	int			backoff;		/* ms */
	bool		outage;			/* one log line at its start, one at its end */

	/* what the handshake found */
	bool		lost;			/* a script found the stream not as it was left: claim the mirror again */
	bool		found;
	char		found_owner[SA_UUID_SIZE];
	char		found_generation[SA_UUID_SIZE];
	int64		found_n;
	char		found_tail[SA_MAC_TEXT_LEN + 1];

	/* where the mirror is, and where it will be when the exchange under way ends well */
	char		generation[SA_UUID_SIZE];
	int64		n;
	char		tail[SA_MAC_TEXT_LEN + 1];
	int64		next_n;
	char		next_tail[SA_MAC_TEXT_LEN + 1];
	int64		behind;
	bool		passed_by;		/* busy while the last transaction numbered what was new */
	int			publishing;		/* replies of the current exchange that must be OK or mean a lost position */

	/* beats */
	TimestampTz next_beat;
	bool		nonces_read;	/* in this round, before the transaction that comes */
	bool		beating;		/* the exchange under way ends with a beat */
	int64		beats;
	TimestampTz last_beat_at;
	int64		since_trim;
	PendingNonce *pending;
	int			pending_count;
	int			pending_size;
	HTAB	   *nodes;

	/* keys: the snapshot cursor, or a full sync */
	bool		has_cursor;
	char	   *seen;			/* pg_snapshot as text, in TopMemoryContext, as the next */
	char	   *target;			/* NULL: not within a sliced batch */
	int64		after_event;
	bool		syncing;
	char		sync_after[SA_UUID_SIZE];
	int64		sync_count;
	/* what the exchange under way leads to */
	char	   *next_seen;
	char	   *next_target;
	int64		next_after_event;
	bool		next_sync_ends;
	char		next_sync_after[SA_UUID_SIZE];
	bool		cursor_moves;
	bool		store_cursor;	/* the next transaction writes mirror_state */
} Mirror;

#define MIRRORS_MAX 32			/* per database */
extern Mirror *mirrors[MIRRORS_MAX];
extern int	mirror_count;

/* Outside transactions. */
extern void mirrors_advance(TimestampTz now);	/* connects, reads, writes, handles what arrived */
extern void mirrors_send(TimestampTz now);	/* begins the exchanges that the transaction has queued */
extern void mirrors_discard(void);	/* the transaction failed: forgets what it has queued */
extern TimestampTz mirrors_next_event(TimestampTz now);
extern bool mirrors_need_transaction(void);
extern void mirrors_show(void); /* status into shared memory */
extern void mirrors_close(void);
extern void mirror_fail(Mirror *mirror, const char *error);
extern void mirror_recovered(Mirror *mirror);

/* Inside the transaction. */
extern void mirrors_load(void);
extern void mirrors_plan(LedgerState *state);

/* Queues one EVALSHA (link_command). */
extern void mirror_script(Mirror *mirror, int script, int nkeys, int argc, const SaField *argv);

/* The link key; NULL (and why) while there is none. */
extern const unsigned char *mirror_link_key;

/* ---- publish.c ---- */

extern void publish_plan(Mirror *mirror, const LedgerState *state);
extern void publish_check(Mirror *mirror, LedgerState *state);
extern void publish_done(Mirror *mirror, TimestampTz now);
extern void nonces_ask(Mirror *mirror);
extern void nonces_take(Mirror *mirror, const redisReply *reply, TimestampTz now);
extern void cursor_store(Mirror *mirror);

/* ---- status.c ---- */
extern void status_mirror(const Mirror *mirror, const char *state, const char *error, const char *warning);
extern void status_node(const Mirror *mirror, const KnownNode *node, const SaNonce *nonce, bool refused);
extern void status_node_forget(const Mirror *mirror, const char *node);
extern void status_forget(const char *mirror);	/* NULL: everything of this database */

#endif							/* SESSAUTH_WORKER_WORKER_H */

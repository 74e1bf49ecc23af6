/*
 * reconcile.h
 *		Comparing a mirror's keys with the ledger, slice by slice.
 */
#ifndef SESSAUTH_WORKER_RECONCILE_H
#define SESSAUTH_WORKER_RECONCILE_H

#include "worker/feed.h"
#include "worker/redis_link.h"

typedef enum ReconcilePhase
{
	RECONCILE_REST,
	RECONCILE_MIRROR,			/* what is there: is it genuine, is it more than the ledger knows? */
	RECONCILE_LEDGER			/* what should be there */
} ReconcilePhase;

typedef enum ReconcileStep
{
	STEP_SCAN,					/* the next names are to be asked for */
	STEP_READ,					/* their values */
	STEP_COMPARE,				/* they are here; the ledger is to be asked */
	STEP_REPAIR					/* what was found is to be written */
} ReconcileStep;

/* A key of the mirror, as it was read. */
typedef struct FoundKey
{
	char	   *name;
	KeyItemKind kind;
	char	   *tid;
	char	   *uid;			/* user epochs; of a session from its value */
	char		sid[SA_UUID_SIZE];
	bool		exists;
	bool		genuine;
	char		mac[SA_MAC_TEXT_LEN];	/* the head of it as read, for compare and delete; "type" for a key of another type */
	size_t		maclen;
	int64		epoch;			/* of an epoch key */
	int64		version;		/* of a session */
	int64		exp;			/* of a session, unix s */
	bool		live;
	bool		timed;			/* the server has said when it expires */
	int64		expires_at;		/* unix ms; -1: never */
} FoundKey;

typedef struct Repair
{
	const char *name;			/* deleted first, if it still is what it was; NULL: the guards of a normal write will do */
	SaField		mac;
	bool		rewrite;		/* with item */
	KeyItem		item;
} Repair;

/* A key whose value is right, but that goes too early, too late or never. Unix ms; -1: never. */
typedef struct WrongExpiry
{
	const char *name;
	SaField		mac;
	int64		low;			/* what would be right */
	int64		high;
	int64		give;
} WrongExpiry;

typedef struct Reconcile
{
	ReconcilePhase phase;
	ReconcileStep step;
	Instant		next_at;		/* when to begin; 0: an interval after the last */
	Instant		ended_at;		/* 0: none has come to its end */
	Instant		slice_at;		/* the next slice not before */
	Instant		began_at;
	MemoryContext context;		/* of the slice */
	char		cursor[24];
	bool		last;			/* SCAN has come around */
	FoundKey   *keys;
	int			count;
	Repair	   *repairs;
	int			repair_count;
	WrongExpiry *expiries;
	int			expiry_count;
	FeedPosition walk;
	int64		checked;
	int64		missing;
	int64		stale;
	int64		foreign;
	int64		ahead;
} Reconcile;

/* ---- found_keys.c ---- */

/* The names among these that are ours, into the current context; out has room for all. Returns how many. */
extern int	found_names(const char *prefix, const redisReply *names, FoundKey *out);

/* What HGETALL says of it, and PEXPIRETIME. */
extern void found_value(FoundKey *key, const redisReply *reply);
extern void found_expiry(FoundKey *key, const redisReply *reply);

/* ---- compare.c: inside a transaction of its own ---- */

/* Fills repairs, expiries and counts; what the mirror has ahead of the ledger is adopted by the transaction that is open. */
extern void compare_found(Reconcile *reconcile);

#endif							/* SESSAUTH_WORKER_RECONCILE_H */

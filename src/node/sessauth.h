/*
 * sessauth.h
 *		libsessauth: decide in this process whether an access token is live.
 *
 * A node verifies the token's signature and then asks its own memory, which a
 * background thread keeps equal to the ledger's revocations. It may do so only
 * while it holds a lease: a proof that it knows everything that was committed
 * up to max_staleness ago. When it cannot know, it says so
 * (SESSAUTH_CANNOT_TELL); it never guesses.
 *
 * All functions may be called from any number of threads at once, except that
 * sessauth_close must be the last call on its node, and come before the program's exit, when OpenSSL
 * takes itself apart under the node's threads. The library never prints,
 * never ends the process, reads no environment variable of its own and changes no
 * signal handler. It does not survive fork(): open a node after it.
 */
#ifndef SESSAUTH_H
#define SESSAUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SESSAUTH_API __attribute__((visibility("default")))
#else
#define SESSAUTH_API
#endif

typedef struct SessauthNode SessauthNode;

typedef enum SessauthCode
{
	SESSAUTH_ACTIVE,			/* let the request through */
	SESSAUTH_REVOKED,			/* session, user, tenant or key: log in again */
	SESSAUTH_EXPIRED,			/* by the ledger's clock: refresh it */
	SESSAUTH_NOT_YET_VALID,		/* says PostgreSQL: the ledger's clock may have been set forward since a node has heard of it */
	SESSAUTH_MALFORMED,
	SESSAUTH_BAD_SIGNATURE,
	SESSAUTH_UNKNOWN_KEY,		/* and the keys were asked for after the token had arrived */
	SESSAUTH_WRONG_ISSUER,		/* or audience */
	SESSAUTH_CANNOT_TELL		/* nothing is known against the token; refuse it, but do not log the user out */
} SessauthCode;

/* Why a node cannot tell. */
typedef enum SessauthWhy
{
	SESSAUTH_WHY_NONE,
	SESSAUTH_WHY_LEASE,			/* not synced yet, or the lease is over: sessauth_ready says more; or what is known is too old for this token: it was
								 * verified by keys of before an absence, or begins later than the ledger's clock as it was last heard of */
	SESSAUTH_WHY_KEYS_PENDING,	/* unknown kid, a refresh of the keys is on its way: decide again after keys_refreshed */
	SESSAUTH_WHY_KEYS_FAILED,	/* unknown kid, and the keys could not be refreshed */
	SESSAUTH_WHY_INTERNAL,		/* out of memory, or OpenSSL does not work */
	SESSAUTH_WHY_UNANSWERED		/* as SESSAUTH_WHY_LEASE, and whoever was asked could not tell either, or not in time */
} SessauthWhy;

/* What a decision was made from. */
typedef enum SessauthSource
{
	SESSAUTH_SOURCE_TOKEN,		/* the token alone: it is malformed, forged, of an unknown key or a wrong issuer */
	SESSAUTH_SOURCE_LOCAL,		/* signature checked now, then the node's memory */
	SESSAUTH_SOURCE_CACHE,		/* signature checked before, then the node's memory */
	SESSAUTH_SOURCE_REDIS,		/* asked there: authentic keys of the session, its user and its tenant */
	SESSAUTH_SOURCE_POSTGRES	/* asked there: sessauth.verify() on the primary */
} SessauthSource;

/*
 * The answer to one token. The members about the token are filled when its
 * signature was good and it is this issuer's: for active, revoked, expired, not_yet_valid,
 * SESSAUTH_WHY_LEASE and SESSAUTH_WHY_UNANSWERED; else they are empty.
 */
typedef struct SessauthDecision
{
	SessauthCode code;
	SessauthWhy why;
	SessauthSource source;
	char		tid[129];		/* tenant */
	char		uid[256];		/* user, unique within the tenant */
	char		sid[37];		/* session */
	int64_t		epoch;
	int64_t		expires_at;		/* unix seconds, ledger's clock */
} SessauthDecision;

typedef enum SessauthLevel
{
	SESSAUTH_LOG_INFO,
	SESSAUTH_LOG_WARNING,
	SESSAUTH_LOG_ERROR
} SessauthLevel;

typedef enum SessauthKind
{
	SESSAUTH_KIND_SESSION,		/* tid, uid, sid: this session */
	SESSAUTH_KIND_USER,			/* tid, uid: sessions with an epoch below this one */
	SESSAUTH_KIND_TENANT,		/* tid: sessions with a tenant epoch below this one */
	SESSAUTH_KIND_KEY,			/* kid: all tokens that it has signed */
	SESSAUTH_KIND_MISSED		/* revocations of tokens that expired before "at" may have passed unseen */
} SessauthKind;

/* Something that was revoked. Members that its kind does not have are empty or 0. */
typedef struct SessauthRevocation
{
	SessauthKind kind;
	char		generation[37];
	int64_t		n;				/* its number in the generation; both empty when it has none yet: it comes again with it */
	char		tid[129];
	char		uid[256];
	char		sid[37];
	char		kid[128];
	int64_t		epoch;
	int64_t		at;				/* when it was published: unix ms, ledger's clock */
} SessauthRevocation;

/*
 * What a node is made of. Start from SESSAUTH_OPTIONS_INIT and set the rest;
 * every string is copied. NULL means "not given".
 */
typedef struct SessauthOptions
{
	size_t		size;			/* sizeof(SessauthOptions), set by the initializer */
	const char *name;			/* 1 to 64 of A-Z a-z 0-9 - . _ : @; default host:pid */

	/*
	 * As add_mirror() takes it: redis://[user@]host[:port][/db], rediss:// for TLS, or unix:///path, and options
	 * behind a '?': prefix, db (with unix), cacert, cert and key (with rediss). Values are percent-encoded.
	 */
	const char *redis_url;
	const char *redis_password_file;	/* read again at every connect */
	const char *pg_conninfo;	/* of a role with access "node": gives keys and leases; Redis is not needed then */
	const char *jwks_file;		/* pinned keys instead of PostgreSQL's; read again now and then. A revoked key must leave it: a node that starts later hears of that no more */
	const char *link_key_file;	/* link key instead of PostgreSQL's */
	int64_t		max_staleness_ms;	/* 100 to 3600000 */
	const char *issuer;
	const char *audience;
	int64_t		leeway_s;		/* seconds by which iat and exp are stretched, 0 to 300 */
	size_t		max_revocations;	/* that the memory may hold; beyond it the node cannot tell */
	size_t		max_cached_tokens;	/* verified tokens to remember, about 1 kB each, and never 9; 0: none, else 256 at least */

	/* What sessauth_ask may do. */
	int			ask_connections;	/* to PostgreSQL at a time, each with its own thread; 0: it is never asked; at most 64 */
	int64_t		ask_timeout_ms; /* for one question, 100 to 60000 */

	/*
	 * Keys in Redis may accept too. That the bound of max_staleness holds then takes for granted that nobody but sessauth's worker writes
	 * to that Redis: whoever else does can put back what was true once. A revoked signing key is known when the keys are read next; they must have
	 * been, within max_staleness.
	 */
	bool		trust_redis;

	/* One line without newline and without secrets; from any thread, must be quick. */
	void		(*log) (void *arg, SessauthLevel level, const char *message);
	void	   *log_arg;

	/*
	 * Called by a library thread after each refresh of the keys, successful or
	 * not. Must not call back into the library: wake your own loop.
	 */
	void		(*keys_refreshed) (void *arg);
	void	   *keys_refreshed_arg;

	/*
	 * Called by one library thread at a time with each revocation that the node learns of, at least once and nearly always only
	 * once, in the order of their numbers unless the node is just joining. The node knows it already. Must be quick, and must not call back into the library.
	 */
	void		(*revoked) (void *arg, const SessauthRevocation *revocation);
	void	   *revoked_arg;
} SessauthOptions;

/* Every member in its order, so that C++ of any year takes it too. */
#define SESSAUTH_OPTIONS_INIT \
	{ \
		sizeof(SessauthOptions), NULL, \
		NULL, NULL, NULL, NULL, NULL,	/* servers and files */ \
		5000, "sessauth", "sessauth", 0,	/* max_staleness_ms, issuer, audience, leeway_s */ \
		4000000, 65536,			/* max_revocations, max_cached_tokens */ \
		4, 2000, false,			/* ask_connections, ask_timeout_ms, trust_redis */ \
		NULL, NULL, NULL, NULL, NULL, NULL	/* callbacks and their arguments */ \
	}

typedef struct SessauthStatus
{
	bool		ready;			/* synced, keys known, lease fresh */
	char		reason[256];	/* why not; empty when ready */
	char		node[98];		/* name/incarnation, as in Redis */
	int64_t		lease_left_ms;	/* 0: none */
	char		generation[37]; /* empty: never synced */
	int64_t		applied;		/* number applied without a hole */
	int64_t		revocations;	/* known to the memory now */
	int64_t		ledger_ms;		/* unix ms by the ledger's clock, at least; 0: unknown */
	int64_t		rescans;		/* of the stream from its start */
	int64_t		refused_entries;	/* in Redis that were not authentic */
	int64_t		staleness_ms;	/* how old the proof is of knowing everything; -1: never had one */
	int64_t		connects;		/* to Redis, first and again */
	int64_t		pg_connects;	/* to PostgreSQL for leases, first and again */
	int64_t		key_refreshes;	/* that succeeded */
	int64_t		cached_tokens;
	int64_t		cache_hits;
	int64_t		cache_misses;
	int64_t		watches;
	int64_t		asked_redis;	/* questions that went there */
	int64_t		asked_postgres; /* likewise */
	int64_t		ask_failures;	/* of these last ones, to which no answer came */
	int64_t		asks_refused;	/* not asked: too many were waiting, or PostgreSQL is being left alone */
	bool		ask_breaker_open;	/* PostgreSQL has failed a few times in a row and is being left alone for a while */
} SessauthStatus;

/*
 * Opens a node and starts its threads. Redis and PostgreSQL may be down: the
 * node is then not ready and keeps trying. It fails for wrong options, and without threads, descriptors or memory for them: sessauth_error
 * says which, and only sessauth_close may follow. NULL only when out of memory.
 */
SESSAUTH_API SessauthNode *sessauth_open(const SessauthOptions *options);

/* One English line, or NULL when the node was opened. Lives as long as the node. */
SESSAUTH_API const char *sessauth_error(const SessauthNode *node);

/*
 * Gives the lease back, tells mirror and ledger that the node is gone (for at most half a second each) and frees everything. Questions under
 * way are answered with SESSAUTH_CANNOT_TELL before it returns. A look-up of a host name that is under way it has to wait for, however long the
 * name servers keep silent (resolv.conf(5) says how long that can be; an address needs none). NULL is fine.
 */
SESSAUTH_API void sessauth_close(SessauthNode *node);

/* The clock that sessauth_decide's arrived is taken from: microseconds of CLOCK_BOOTTIME. */
SESSAUTH_API int64_t sessauth_now(void);

/*
 * Decides. arrived is when the request came in (sessauth_now(), taken once per
 * request, also when deciding it again). out is always filled; its code is returned. Never blocks on
 * anything but short locks.
 */
SESSAUTH_API SessauthCode sessauth_decide(SessauthNode *node, const char *token, size_t len, int64_t arrived,
										  SessauthDecision *out);

/*
 * Decides as sessauth_decide does; and when that cannot tell for want of a lease (SESSAUTH_WHY_LEASE), asks others,
 * without blocking: Redis, when the worker has answered this node there lately, whose authentic keys may refuse, and accept only with trust_redis; then
 * PostgreSQL. Only tokens with a good signature get that far. Tokens that are equal share a question.
 *
 * False: *out is the decision, and answered will not be called. True: *out says nothing, and answered will be called exactly once, by a
 * thread of the library, possibly before this function has returned, at the latest about ask_timeout_ms from now, or from within
 * sessauth_close. The decision is its to read until it returns. It must be quick and must not call back into the library: pass the
 * decision on to your own loop. The token is copied; arg stays yours.
 *
 * An answer of "active" was true at some moment after the call, and is given only within max_staleness of that moment. When nobody can be asked, or
 * nobody can tell, the code is SESSAUTH_CANNOT_TELL, with SESSAUTH_WHY_LEASE or SESSAUTH_WHY_UNANSWERED. After a few failures
 * in a row PostgreSQL is left alone for a while, up to eight seconds, and such questions are answered at once.
 */
SESSAUTH_API bool sessauth_ask(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out,
							   void (*answered) (void *arg, const SessauthDecision *decision), void *arg);

/*
 * The same for a thread that may wait: blocks for about ask_timeout_ms at most. out is always filled; its code is returned. Not
 * to be called by callbacks of the library.
 */
SESSAUTH_API SessauthCode sessauth_decide_wait(SessauthNode *node, const char *token, size_t len, int64_t arrived,
											   SessauthDecision *out);

typedef struct SessauthWatch SessauthWatch;

typedef enum SessauthEnd
{
	SESSAUTH_END_REVOKED,		/* the session, its user, its tenant, or the key of the token */
	SESSAUTH_END_UNKNOWN		/* it may have been: the token had expired when the node was away for so long that it may have missed
								 * the revocation, or its key is not among the node's keys any more */
} SessauthEnd;

/*
 * For a connection that outlives its request, as a WebSocket does: decides its token as sessauth_decide does, and watches its session when
 * the token is active, and also when the node cannot tell for want of a lease (SESSAUTH_WHY_LEASE). *watch is then to be given to
 * sessauth_unwatch some time; otherwise it is NULL. SESSAUTH_WHY_INTERNAL when memory is short.
 *
 * It asks nobody. Who gets SESSAUTH_CANNOT_TELL and a watch may call sessauth_ask or sessauth_decide_wait, keep the watch if the answer is
 * "active", and give it back if not. In this order nothing is missed: the answer says what was revoked before it, the watch what is revoked later.
 *
 * ended is called at most once, however often the session is revoked, by a library thread, possibly before this function has returned (until
 * then *watch is NULL); it must be quick, and of the library it may call only sessauth_unwatch, and that on its own watch. It is called
 * as soon as the node has heard of a revocation of the session, its user, its tenant or its key that was not known here, whether that was committed before
 * or after the watch began, and also by a node that has no room to remember it. A refresh does not end a watch, nor does the expiry
 * of the token, nor an outage: then the news is late. Where a connection must not outlive the proof, look at sessauth_ready too.
 * What a node that was away cannot learn any more is the revocation of tokens that have expired meanwhile; so it ends watches of expired
 * tokens with SESSAUTH_END_UNKNOWN, and of those whose key has left the node's keys. A client that refreshes may present its new token for a new watch.
 *
 * Like sessauth_unwatch it may wait for a call of ended that is under way, so it must not be called with a lock that ended takes.
 */
SESSAUTH_API SessauthCode sessauth_watch(SessauthNode *node, const char *token, size_t len, int64_t arrived, SessauthDecision *out,
										 void (*ended) (void *arg, SessauthEnd why), void *arg, SessauthWatch **watch);

/*
 * Ends watching and frees; NULL is fine. When it returns, ended has returned or will never be called, so it must
 * not be called with a lock that ended takes. Every watch must be given back before sessauth_close, which ends none: one that was
 * forgotten is never told, and leaks.
 */
SESSAUTH_API void sessauth_unwatch(SessauthWatch *watch);

/* Reads the keys again soon, from files too; without being told, a node does so every 30 seconds. */
SESSAUTH_API void sessauth_refresh_keys(SessauthNode *node);

/* "active", "revoked", "cannot_tell", ...: the outcomes of sessauth.verify(). Static. */
SESSAUTH_API const char *sessauth_code_name(SessauthCode code);

SESSAUTH_API bool sessauth_ready(SessauthNode *node);
SESSAUTH_API void sessauth_status(SessauthNode *node, SessauthStatus *out);

/* The public keys as a JWK set (RFC 7517), malloc'ed; NULL when none are known yet. */
SESSAUTH_API char *sessauth_jwks(SessauthNode *node);

/*
 * Percent-encodes everything outside A-Z a-z 0-9 - . _ ~ @ + as in Redis keys and
 * the gate's headers. False when out (which gets a NUL) is too small.
 */
SESSAUTH_API bool sessauth_percent_encode(const char *text, char *out, size_t size);

SESSAUTH_API const char *sessauth_version(void);

#ifdef __cplusplus
}
#endif

#endif							/* SESSAUTH_H */

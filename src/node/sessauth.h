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
 * sessauth_close must be the last call on its node. The library never prints,
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
	SESSAUTH_NOT_YET_VALID,
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
	SESSAUTH_WHY_LEASE,			/* not synced yet, or the lease is over: sessauth_ready says more */
	SESSAUTH_WHY_KEYS_PENDING,	/* unknown kid, a refresh of the keys is on its way: decide again after keys_refreshed */
	SESSAUTH_WHY_KEYS_FAILED,	/* unknown kid, and the keys could not be refreshed */
	SESSAUTH_WHY_INTERNAL		/* out of memory, or OpenSSL does not work */
} SessauthWhy;

/*
 * The answer to one token. The members about the token are filled when its
 * signature was good and it is this issuer's: for active, revoked, expired, not_yet_valid
 * and for SESSAUTH_WHY_LEASE; else they are empty.
 */
typedef struct SessauthDecision
{
	SessauthCode code;
	SessauthWhy why;
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
	const char *pg_conninfo;	/* of a role with access "node" */
	const char *jwks_file;		/* pinned keys instead of PostgreSQL's */
	const char *link_key_file;	/* link key instead of PostgreSQL's */
	int64_t		max_staleness_ms;	/* 100 to 3600000 */
	const char *issuer;
	const char *audience;
	int64_t		leeway_s;		/* seconds by which iat and exp are stretched, 0 to 300 */
	size_t		max_revocations;	/* that the memory may hold; beyond it the node cannot tell */

	/* One line without newline and without secrets; from any thread, must be quick. */
	void		(*log) (void *arg, SessauthLevel level, const char *message);
	void	   *log_arg;

	/*
	 * Called by a library thread after each refresh of the keys, successful or
	 * not. Must not call back into the library: wake your own loop.
	 */
	void		(*keys_refreshed) (void *arg);
	void	   *keys_refreshed_arg;
} SessauthOptions;

#define SESSAUTH_OPTIONS_INIT \
	{ \
		.size = sizeof(SessauthOptions), .max_staleness_ms = 5000, \
		.issuer = "sessauth", .audience = "sessauth", .max_revocations = 4000000 \
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
} SessauthStatus;

/*
 * Opens a node and starts its threads. Redis and PostgreSQL may be down: the
 * node is then not ready and keeps trying. Wrong options are the only failure: sessauth_error
 * says which, and only sessauth_close may follow. NULL only when out of memory.
 */
SESSAUTH_API SessauthNode *sessauth_open(const SessauthOptions *options);

/* One English line, or NULL when the node was opened. Lives as long as the node. */
SESSAUTH_API const char *sessauth_error(const SessauthNode *node);

/* Gives the lease back, tells the mirror that the node is gone (for at most half a second) and frees everything. NULL is fine. */
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

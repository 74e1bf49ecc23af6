/*
 * wire.h
 *		The mirror protocol of doc/protocol.md: key names, stream entries, nonces, answers.
 *
 * Worker and node both build and read through these functions, so that the
 * format has one definition. Everything works on caller-owned memory. Names
 * point into the caller's bytes; nothing is NUL-terminated unless the type is char[].
 */
#ifndef SESSAUTH_CORE_WIRE_H
#define SESSAUTH_CORE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"
#include "encoding.h"
#include "token.h"

#define SA_PREFIX_MAX		64		/* bytes of a key prefix: printable ASCII without spaces and braces */
#define SA_REDIS_KEY_SIZE	(SA_PREFIX_MAX + 32 + SA_PCT_SIZE(SA_TENANT_ID_MAX) + SA_PCT_SIZE(SA_USER_ID_MAX))
#define SA_NODE_NAME_MAX	64
#define SA_NODE_ID_SIZE		(SA_NODE_NAME_MAX + 1 + 32 + 1)
#define SA_NONCE_SIZE		33		/* 32 hex digits and NUL */
#define SA_LINE_SIZE		512		/* a nonce or answer value */

/*
 * --- names ---
 *
 * Each writes a NUL and returns the length; out holds SA_REDIS_KEY_SIZE. 0 and an empty out when the prefix is
 * not valid, an id is empty or too long, or sid is no UUID.
 */

extern size_t sa_name_user_epoch(const char *prefix, const char *tid, size_t tidlen,
								 const char *uid, size_t uidlen, char *out);
extern size_t sa_name_tenant_epoch(const char *prefix, const char *tid, size_t tidlen, char *out);
extern size_t sa_name_session(const char *prefix, const char *tid, size_t tidlen, const char *sid, char *out);
extern size_t sa_name_stream(const char *prefix, char *out);	/* sessauth:revocations */
extern size_t sa_name_page(const char *prefix, const char *g, int64_t first, char *out);	/* sessauth:page:g:first */
extern size_t sa_name_mirror(const char *prefix, char *out);	/* sessauth:mirror */
extern size_t sa_name_nodes(const char *prefix, char *out); /* sessauth:nodes */
extern size_t sa_name_answers(const char *prefix, char *out);	/* sessauth:answers */

extern bool sa_prefix_valid(const char *prefix);
extern bool sa_node_name_valid(const char *name, size_t len);
extern bool sa_node_id_valid(const char *node, size_t len);	/* name/incarnation */

/* --- values of keys --- */

extern bool sa_epoch_mac(const unsigned char link[SA_KEY_LEN], const char *key, int64_t epoch,
						 char out[SA_MAC_TEXT_LEN + 1]);
extern bool sa_session_mac(const unsigned char link[SA_KEY_LEN], const char *key, const char *uid, size_t uidlen,
						   int64_t epoch, int64_t tepoch, int64_t exp, const char *state, int64_t version,
						   char out[SA_MAC_TEXT_LEN + 1]);

typedef struct SaSessionValue
{
	char		uid[SA_USER_ID_MAX + 1];
	int64_t		epoch;
	int64_t		tepoch;
	int64_t		exp;			/* unix s */
	int64_t		version;
	bool		live;			/* "active"; else "revoked" */
} SaSessionValue;

/*
 * Read a key's value from its fields (names and values alternating, any order). False unless these are exactly the fields of
 * doc/protocol.md, section 2, in canonical form, with the right MAC; *out may be changed all the same.
 */
extern bool sa_epoch_read(const unsigned char link[SA_KEY_LEN], const char *key, const SaField *args, size_t nargs, int64_t *epoch);
extern bool sa_session_read(const unsigned char link[SA_KEY_LEN], const char *key, const SaField *args, size_t nargs,
							SaSessionValue *out);

/* --- stream --- */

typedef enum SaKind
{
	SA_KIND_SESSION,
	SA_KIND_USER,
	SA_KIND_TENANT,
	SA_KIND_KEY,
	SA_KIND_BEAT
} SaKind;

extern const char *sa_kind_name(SaKind kind);
extern bool sa_kind_parse(const char *name, size_t len, SaKind *kind);

/*
 * One stream entry. For a beat, n is the number of the last revocation
 * before it, b and low are set, and the members about a revocation are empty or 0.
 */
typedef struct SaEntry
{
	char		g[SA_UUID_SIZE];
	int64_t		n;
	SaKind		kind;
	char		tid[SA_TENANT_ID_MAX + 1];
	char		uid[SA_USER_ID_MAX + 1];
	char		sid[SA_UUID_SIZE];
	char		kid[128];
	int64_t		epoch;
	int64_t		eid;
	int64_t		at;				/* unix ms */
	int64_t		until;			/* unix ms */
	int64_t		b;
	int64_t		low;
} SaEntry;

#define SA_ENTRY_FIELDS		12		/* of a revocation; a beat has SA_BEAT_FIELDS */
#define SA_BEAT_FIELDS		7
#define SA_ENTRY_ARGS		(SA_ENTRY_FIELDS * 2)

/*
 * The field names and values of an entry as Redis arguments, MAC last. The
 * bytes live in *store and *entry, which must outlive args. Returns the number of
 * arguments; 0 when OpenSSL fails or when doc/protocol.md, section 3, has no such entry (a
 * beat's low must be 1 to n + 1, a user's entry has no sid, ...). The MAC is args[count - 1].
 */
typedef struct SaEntryStore
{
	char		numbers[6][24];
	char		mac[SA_MAC_TEXT_LEN + 1];
} SaEntryStore;

extern size_t sa_entry_args(const unsigned char link[SA_KEY_LEN], const char *stream_key, const SaEntry *entry,
							SaEntryStore *store, SaField args[SA_ENTRY_ARGS]);

/*
 * Reads an entry from its fields (names and values alternating, any order).
 * False when a field is missing, repeated or not in canonical form, or the MAC is wrong. Unknown extra fields
 * make it false as well: they are not covered by the MAC.
 */
extern bool sa_entry_read(const unsigned char link[SA_KEY_LEN], const char *stream_key,
						  const SaField *args, size_t nargs, SaEntry *out);

/* The same with a key that was prepared, for who reads many. */
extern bool sa_entry_read_with(SaMacKey *link, const char *stream_key, const SaField *args, size_t nargs, SaEntry *out);

/* True when what a revocation says can be, by the same section; g and n, its place in the stream, are not looked at. */
extern bool sa_revocation_valid(const SaEntry *entry);

/*
 * --- pages ---
 *
 * A page repeats SA_PAGE_ENTRIES consecutive revocations of one generation, from a multiple of that plus 1 on. Its body is what
 * sa_page_put has written for each of them, in order.
 */

#define SA_PAGE_ENTRIES		1000
#define SA_PAGE_ENTRY_MAX	768		/* bytes of an entry */

/* The number that the page with this number in it begins with. */
#define SA_PAGE_FIRST(n)	(((n) - 1) / SA_PAGE_ENTRIES * SA_PAGE_ENTRIES + 1)

/* Returns the length; 0 when sa_revocation_valid has something against the entry. g and n are not looked at. */
extern size_t sa_page_put(const SaEntry *entry, char out[SA_PAGE_ENTRY_MAX]);

/* False when OpenSSL fails. */
extern bool sa_page_mac(const unsigned char link[SA_KEY_LEN], const char *page_key, const char *body, size_t len,
						char out[SA_MAC_TEXT_LEN + 1]);

/* False, too, when that is not the MAC. */
extern bool sa_page_authentic(SaMacKey *link, const char *page_key, const char *body, size_t len, const char *mac, size_t maclen);

/* Reads the entry at *at, which then is behind it. False when there is none in canonical form. g and n are left empty. */
extern bool sa_page_take(const char **at, const char *end, SaEntry *out);

/* --- lease --- */

typedef struct SaNonce
{
	char		nonce[SA_NONCE_SIZE];
	int64_t		max_staleness;	/* ms */
	char		g[SA_UUID_SIZE];	/* empty: nothing applied yet ("-" on the wire) */
	int64_t		n;
} SaNonce;

typedef struct SaAnswer
{
	char		nonce[SA_NONCE_SIZE];
	char		g[SA_UUID_SIZE];
	int64_t		n;
	int64_t		low;
	int64_t		b;
	int64_t		at;				/* unix ms */
} SaAnswer;

/*
 * node is "name/incarnation". Writers: out holds SA_LINE_SIZE; return the length, 0 when OpenSSL fails or when a
 * member is not what doc/protocol.md, section 4, says. Readers: false unless canonical and authentic.
 */
extern size_t sa_nonce_write(const unsigned char link[SA_KEY_LEN], const char *nodes_key, const char *node,
							 const SaNonce *nonce, char *out);
extern bool sa_nonce_read(const unsigned char link[SA_KEY_LEN], const char *nodes_key, const char *node, size_t nodelen,
						  const char *line, size_t len, SaNonce *out);
extern size_t sa_answer_write(const unsigned char link[SA_KEY_LEN], const char *answers_key, const char *node,
							  const SaAnswer *answer, char *out);
extern bool sa_answer_read(const unsigned char link[SA_KEY_LEN], const char *answers_key, const char *node,
						   const char *line, size_t len, SaAnswer *out);

/* Strict decimal: no sign, no leading zero, below 2^63. */
extern bool sa_number_parse(const char *text, size_t len, int64_t *out);

#endif							/* SESSAUTH_CORE_WIRE_H */

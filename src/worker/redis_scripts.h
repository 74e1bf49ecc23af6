/*
 * redis_scripts.h
 *		The Lua that runs in Redis, so that check and write are one step.
 *
 * Each script but the first looks at sessauth:mirror before it writes. It
 * answers "OK" (with the id of its last stream entry behind a space), or in one word what is different:
 *
 *	missing		there is no sessauth:mirror: flushed, or never written
 *	owner		another ledger owns the mirror
 *	generation	it belongs to another generation
 *	position	the last revocation there is not the one that the caller believes
 *	stream		the stream does not end with the entry that was written last
 *	trimmed		the stream does not reach back to low
 */
#ifndef SESSAUTH_WORKER_REDIS_SCRIPTS_H
#define SESSAUTH_WORKER_REDIS_SCRIPTS_H

enum
{
	/*
	 * Takes the mirror over, unless another ledger owns it. KEYS: mirror, stream. ARGV: owner, g, n, timeline, schema,
	 * low, '1' to drop the stream, unix ms of the last full sync or '', ms of the longest lease, and the ledger that may be
	 * replaced and the id where it was left, or '' and ''.
	 */
	SCRIPT_CLAIM,

	/* Compare and append. KEYS: mirror, stream. ARGV: owner, g, n, tail, low, then 24 per entry. */
	SCRIPT_APPEND,

	/*
	 * Compare, and keep a page that ends where the stream does. KEYS: mirror, stream, page. ARGV: owner, g, n, tail, low, unix ms when it
	 * expires, MAC, body.
	 */
	SCRIPT_PAGE,

	/*
	 * Compare, beat, trim, answer. KEYS: mirror, stream, answers, nodes. ARGV: owner, g, n, tail, low, how many to trim
	 * at most, ms of the longest lease, up to which number the keys go ('': unknown), 14 of the beat, number of answers, node and value of each, nodes to remove.
	 */
	SCRIPT_BEAT,

	/*
	 * Guarded key writes. KEYS: mirror, then those of each item. ARGV: owner, g, unix ms of a full sync that ends
	 * here, or 'count' to be answered "OK=missing,stale", or '', then per item one of
	 *	s v uid epoch tepoch exp state m expire uepoch m tepoch m	(keys: session, user epoch, tenant epoch)
	 *	u epoch m expire											(key: user epoch)
	 *	t epoch m													(key: tenant epoch)
	 * with expire in unix ms.
	 */
	SCRIPT_KEYS,

	/*
	 * Deletes keys that still have the MAC with which they were read. KEYS: mirror, then keys. ARGV: owner, g, then the first 43 bytes of
	 * each MAC ('type': no hash).
	 */
	SCRIPT_DELETE,

	/*
	 * Gives keys that still have the MAC with which they were read another time to expire, if theirs is not one from low to high. KEYS: mirror,
	 * then keys. ARGV: owner, g, then per key MAC, low, high, and the time to give it: unix ms, or -1 for never. Answers "OK=0," and how many.
	 */
	SCRIPT_EXPIRE,

	/* Takes the owner's name off the mirror, so that another may have it at once. KEYS: mirror. ARGV: owner. */
	SCRIPT_RELEASE,

	SCRIPT_COUNT
};

extern const char *const redis_scripts[SCRIPT_COUNT];

#endif							/* SESSAUTH_WORKER_REDIS_SCRIPTS_H */

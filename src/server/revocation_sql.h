/*
 * revocation_sql.h
 *		How an event becomes a revocation, in SQL: for the worker, who gives it a number, and for a lease, which cannot wait for one.
 */
#ifndef SESSAUTH_SERVER_REVOCATION_SQL_H
#define SESSAUTH_SERVER_REVOCATION_SQL_H

/*
 * The events of ranges of transactions. "+ 0": no index on event_id shall offer itself; only the one on xid finds
 * what is new without walking through what is old.
 */
#define NEW_EVENTS \
	" FROM unnest($1, $2) r (first, last) CROSS JOIN LATERAL (SELECT * FROM sessauth.event e" \
	"  WHERE e.xid >= r.first AND e.xid <= r.last AND e.event_id + 0 > $3 ORDER BY e.xid, e.event_id"
#define NEW_EVENTS_TYPES XID8ARRAYOID, XID8ARRAYOID, INT8OID

/*
 * Triggers write only what can be said on the wire; a superuser's hand-written event may be anything. What
 * cannot be said stays history: given a number, it would stop every revocation behind it.
 */
#define SAYABLE \
	" CASE e.revokes" \
	" WHEN 'key' THEN coalesce(sessauth.valid_id(e.kid, 127), false)" \
	" WHEN 'tenant' THEN coalesce(sessauth.valid_id(e.tenant_id, 128) AND e.epoch > 0, false)" \
	" WHEN 'user' THEN coalesce(sessauth.valid_id(e.tenant_id, 128) AND sessauth.valid_id(e.user_id, 255) AND e.epoch > 0, false)" \
	" WHEN 'session' THEN coalesce(sessauth.valid_id(e.tenant_id, 128) AND sessauth.valid_id(e.user_id, 255)" \
	"  AND e.session_id IS NOT NULL, false)" \
	" ELSE false END"

/*
 * Lifetimes count from when the worker saw the revocation committed, not from when its transaction wrote it; and a
 * minute more, for a login that read the old epoch before that and minted its token after.
 */
#define REVOCATION_VALUES \
	" e.revokes, CASE WHEN e.revokes = 'key' THEN '' ELSE e.tenant_id END," \
	" CASE WHEN e.revokes IN ('session', 'user') THEN e.user_id ELSE '' END," \
	" CASE WHEN e.revokes = 'session' THEN e.session_id END, CASE WHEN e.revokes = 'key' THEN e.kid ELSE '' END," \
	" CASE WHEN e.revokes IN ('user', 'tenant') THEN e.epoch ELSE 0 END, e.event_id, e.at," \
	" $4 + greatest(coalesce(e.until - e.at, make_interval(secs => $5)), interval '0') + interval '1 minute'"

#endif							/* SESSAUTH_SERVER_REVOCATION_SQL_H */

/*
 * Chapter 65: reading the history, and taking a person out of it (src/ledger/erase.c).
 *
 * On PostgreSQL 14, which has no security_invoker, the predicate behind a barrier holds the tenants apart. Later the
 * row security of sessauth.event does, for which a view needs no barrier; and without one, ORDER BY at DESC LIMIT n
 * reads the newest n from an index. Behind a barrier nobody would know that such an order is wanted.
 */

CREATE VIEW sessauth.history WITH (security_barrier) AS
	SELECT e.event_id, e.at, e.kind, e.tenant_id, e.user_id, e.session_id, e.kid, e.epoch, e.actor, e.role, e.ip, e.client_addr,
		e.reason, e.detail -> 'before' AS before, e.detail -> 'after' AS after
	FROM sessauth.event e
	WHERE sessauth.in_reach(e.tenant_id)
		AND ((SELECT sessauth.reads_all()) OR e.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
COMMENT ON VIEW sessauth.history IS 'Everything that happened. The newest: of a tenant, ORDER BY at DESC LIMIT n; of all, ORDER BY event_id DESC';
COMMENT ON COLUMN sessauth.history.actor IS 'Who asked for it: the user of an authenticated transaction, else whom the caller named';
COMMENT ON COLUMN sessauth.history.role IS 'The database role that did it';
COMMENT ON COLUMN sessauth.history.ip IS 'The end user''s address, as the application tells it';
COMMENT ON COLUMN sessauth.history.client_addr IS 'The address of the database connection; null over a unix socket and for the worker';
COMMENT ON COLUMN sessauth.history.before IS 'Of a change, the columns that differ, as they were; of a deletion, the row';
COMMENT ON COLUMN sessauth.history.after IS 'Of a change, the columns that differ, as they are since; of a new row, the row';

CREATE VIEW sessauth.revocations WITH (security_barrier) AS
	SELECT e.event_id, e.at, e.kind, e.tenant_id, e.user_id, e.session_id, e.kid, e.actor, e.role, e.ip, e.client_addr, e.reason,
		a.confirmed_at - a.committed_after AS everywhere_after
	FROM sessauth.event e LEFT JOIN sessauth.arrival a ON a.event_id = e.event_id
	WHERE e.revokes IS NOT NULL
		AND sessauth.in_reach(e.tenant_id)
		AND ((SELECT sessauth.reads_all()) OR e.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
COMMENT ON VIEW sessauth.revocations IS
	'Who logged whom out, when and why: what ended sessions or keys. The newest: of a tenant, ORDER BY at DESC LIMIT n; of all, ORDER BY event_id DESC';
COMMENT ON COLUMN sessauth.revocations.user_id IS 'Whom; null when it was everybody of the tenant, or a key';
COMMENT ON COLUMN sessauth.revocations.everywhere_after IS 'How long after its commit every node knew it or had lost its lease; null: not yet, or not recorded';
COMMENT ON COLUMN sessauth.revocations.session_id IS 'The one session that it ended; null when it was all of the user, the tenant or a key';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.history SET (security_invoker = true, security_barrier = false);
		ALTER VIEW sessauth.revocations SET (security_invoker = true, security_barrier = false);
	END IF;
END
$$;

CREATE FUNCTION sessauth.erase_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_erase_user';
COMMENT ON FUNCTION sessauth.erase_user(text, text, text, text) IS
	'Ends every session of a user, removes the user (a block included), and puts a pseudonym into the history; reads all of the tenant''s; returns the event id; throws 42704';

CREATE FUNCTION sessauth.finish_erasures() RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_finish_erasures';
COMMENT ON FUNCTION sessauth.finish_erasures() IS
	'Puts the pseudonym into what an erasure had to leave until no node needs the real user id; the worker calls it; returns how many are complete';

/*
 * sessauth 0.1 to 0.2: what "ALTER EXTENSION sessauth UPDATE" runs.
 *
 * Whoever changes a chapter in sql/ makes the same change here, until this version is released: test/t/upgrade.t
 * updates a ledger of 0.1 with data in it and compares its catalog with a fresh one's, to the letter.
 *
 * - New columns come last, here and in the chapter: the order is part of the comparison. What applies to
 *   sessauth.event_default applies to the monthly partitions as well; pg_inherits has their names.
 * - Take privileges on what is new from PUBLIC by name, never ON ALL: PostgreSQL would take the grants to roles for the
 *   extension's own, and no dump would have them any more. Nothing is granted here; the library does that afterwards.
 */

\echo Use "ALTER EXTENSION sessauth UPDATE TO '0.2'" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

/* Every call takes a share of this lock before any other: what runs now can end, and nothing new comes in between. */
LOCK TABLE sessauth.ledger_state IN ACCESS EXCLUSIVE MODE;

/* ---- 10, 20: the history ---- */

/* The default apart from the column: nobody knows the address for what is there already. */
ALTER TABLE sessauth.event ADD COLUMN client_addr inet;
ALTER TABLE sessauth.event ALTER COLUMN client_addr SET DEFAULT inet_client_addr();
COMMENT ON COLUMN sessauth.event.ip IS 'The end user''s address, as the application tells it';
COMMENT ON COLUMN sessauth.event.client_addr IS 'The address of the database connection; null over a unix socket and for the worker';
COMMENT ON COLUMN sessauth.event.detail IS
	'{"before": …, "after": …}: of an UPDATE the columns that differ, of an INSERT or DELETE the row; null where the other columns say it all';

DO $$
DECLARE
	partition regclass;
BEGIN
	FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass ORDER BY 1 LOOP
		EXECUTE format('CREATE INDEX ON %s (tenant_id, at)', partition);
		EXECUTE format('CREATE INDEX ON %s (tenant_id, user_id, at) WHERE revokes IS NOT NULL', partition);
		EXECUTE format('CREATE INDEX ON %s (tenant_id, at) WHERE revokes IS NOT NULL', partition);
		EXECUTE format('ALTER TABLE %s ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0,'
			' ALTER actor SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER client_addr SET STATISTICS 0, ALTER reason SET STATISTICS 0', partition);
	END LOOP;
END
$$;

CREATE FUNCTION sessauth.guard_history() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_guard_history';
COMMENT ON FUNCTION sessauth.guard_history() IS 'The history is changed by superusers, retention and erase_user() alone';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON sessauth.event
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_history();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.ledger_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.mirror_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
ALTER TABLE sessauth.event ENABLE ALWAYS TRIGGER guard;
ALTER TABLE sessauth.ledger_state ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.mirror_state ENABLE ALWAYS TRIGGER no_truncate;

CREATE FUNCTION sessauth.prepare_partition(partition regclass) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_prepare_partition';
COMMENT ON FUNCTION sessauth.prepare_partition(regclass) IS
	'Gives a partition of the history its indexes, guards and row security; throws 42P16 when it has them already';

/* ---- 10, 20, 30: who knows of a revocation ---- */

ALTER TABLE sessauth.ledger_state ADD COLUMN longest_lease bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN sessauth.ledger_state.longest_lease IS 'No lease that may still be out was given for more milliseconds';
ALTER TABLE sessauth.revocation_log ADD COLUMN committed_after timestamptz;
CREATE INDEX ON sessauth.revocation_log (event_id);
COMMENT ON COLUMN sessauth.revocation_log.committed_after IS 'It had not committed earlier than this';

CREATE TABLE sessauth.receipt_state (
	mirror		text PRIMARY KEY,
	generation	uuid NOT NULL,
	n			bigint NOT NULL
);
COMMENT ON TABLE sessauth.receipt_state IS 'Up to which number every node of a mirror, (mirror is *) those over SQL, or (mirror is empty) everybody, knows all revocations or has lost its lease';

CREATE TABLE sessauth.arrival (
	event_id	bigint PRIMARY KEY,
	tenant_id	text COLLATE "C",
	committed_after	timestamptz NOT NULL,
	published_at	timestamptz,
	confirmed_at	timestamptz NOT NULL,
	ways		jsonb
);
CREATE INDEX ON sessauth.arrival (committed_after);
COMMENT ON TABLE sessauth.arrival IS 'When a revocation had reached every mirror and every node; kept as long as the history';
COMMENT ON COLUMN sessauth.arrival.committed_after IS 'It had not committed earlier than this';
COMMENT ON COLUMN sessauth.arrival.published_at IS 'Null when a mirror was away, and its nodes had lost their leases, before it was there';
COMMENT ON COLUMN sessauth.arrival.ways IS 'When the nodes of each mirror, and those over SQL (*), knew it or had lost their leases; null when there is but one way';
SELECT pg_catalog.pg_extension_config_dump('sessauth.arrival', '');

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.receipt_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.arrival
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
ALTER TABLE sessauth.receipt_state ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.arrival ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.receipt_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.arrival ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.arrival ALTER tenant_id SET STATISTICS 0;
CREATE POLICY readers ON sessauth.arrival FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));

/* ---- 30: a range that an index can use; what concerns no tenant has an empty one ---- */

ALTER TABLE sessauth.event ALTER COLUMN tenant_id SET DEFAULT '';
UPDATE sessauth.event SET tenant_id = '' WHERE tenant_id IS NULL;
COMMENT ON COLUMN sessauth.event.tenant_id IS 'Empty for what concerns no tenant';

CREATE FUNCTION sessauth.reads_from() RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_from';
COMMENT ON FUNCTION sessauth.reads_from() IS 'The first tenant, in the order of the bytes, that the current user may read, several times, or none; for policies';

CREATE FUNCTION sessauth.reads_to() RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_to';
COMMENT ON FUNCTION sessauth.reads_to() IS 'The last tenant that the current user may read, several times, or none; for policies';

CREATE FUNCTION sessauth.in_reach_support(internal) RETURNS internal
	LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'sessauth_in_reach_support';
COMMENT ON FUNCTION sessauth.in_reach_support(internal) IS 'Tells the planner that an index on tenant_id can answer in_reach()';

CREATE FUNCTION sessauth.in_reach(text) RETURNS boolean
	LANGUAGE C STABLE PARALLEL RESTRICTED SUPPORT sessauth.in_reach_support
	AS 'MODULE_PATHNAME', 'sessauth_in_reach';
COMMENT ON FUNCTION sessauth.in_reach(text) IS 'The tenant is not outside the range from reads_from() to reads_to(); for policies';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['tenant', 'tenant_user', 'session', 'event'] LOOP
		EXECUTE format('ALTER POLICY readers ON sessauth.%I USING ('
			'sessauth.in_reach(tenant_id)'
			' AND ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[])))', name);
	END LOOP;
END
$$;

CREATE OR REPLACE VIEW sessauth.sessions WITH (security_barrier) AS
	SELECT s.tenant_id, s.user_id, s.session_id,
		sessauth.session_state(s.ended_at, s.expires_at, s.idle_expires_at, s.epoch, u.epoch, s.tenant_epoch, t.epoch) AS state,
		s.device, s.ip, s.user_agent, s.created_at, s.refreshed_at, s.expires_at, s.idle_expires_at, s.access_expires_at,
		s.ended_at, s.end_reason
	FROM sessauth.session s
	LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id
	LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id
	WHERE sessauth.in_reach(s.tenant_id)
		AND ((SELECT sessauth.reads_all()) OR s.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.sessions SET (security_invoker = true);
	END IF;
END
$$;

/* ---- 65: reading the history ---- */

DROP VIEW sessauth.history;

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

/* ---- 10: grants are bound to roles; not a change that the history would tell ---- */

ALTER TABLE sessauth.access ADD COLUMN role_id oid;
ALTER TABLE sessauth.access DISABLE TRIGGER record;
UPDATE sessauth.access SET role_id = r.oid FROM pg_roles r
	WHERE r.rolname = role_name AND EXISTS (SELECT FROM sessauth.ledger_state);
ALTER TABLE sessauth.access ENABLE ALWAYS TRIGGER record;
DROP INDEX sessauth.access_once;
COMMENT ON TABLE sessauth.access IS 'Which role may do what';
COMMENT ON COLUMN sessauth.access.role_name IS 'Carries the grant through a dump: roles of another cluster have other ids';
COMMENT ON COLUMN sessauth.access.role_id IS
	'The role itself: renamed it keeps its access, and a later role of its old name gets none. A restored ledger is bound by name when it becomes active';

/* A grant whose role is gone or has another name must not come back as a grant to whoever bears that name elsewhere. */
SELECT pg_catalog.pg_extension_config_dump('sessauth.access',
	'WHERE NOT EXISTS (SELECT FROM sessauth.ledger_state)'
	' OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = role_id AND r.rolname = role_name)');

/* ---- 10, 70: mirrors; what the column said before means a full sync ---- */

ALTER TABLE sessauth.mirror_state RENAME COLUMN run_id TO place;
COMMENT ON COLUMN sessauth.mirror_state.place IS 'The life of the Redis process, the database and the prefix that this is about: another one has other keys, or may have lost some';
COMMENT ON FUNCTION sessauth.add_mirror(text, text, text) IS
	'Makes a Redis server a mirror: redis://[user@]host[:port][/db], rediss:// for TLS (options cacert, cert and key name PEM files), or unix:///path[?db=n]; option prefix is put before every key name; throws 22023, 42710, F0000';

COMMENT ON FUNCTION sessauth.remove_mirror(text) IS 'Stops writing to a mirror and releases it for another ledger; its keys stay until they expire; false when there is none of that name';

ALTER TABLE sessauth.mirror_state ADD COLUMN resync_at timestamptz, ADD COLUMN reconcile_at timestamptz;
COMMENT ON COLUMN sessauth.mirror_state.resync_at IS 'When somebody last asked for a full sync';
COMMENT ON COLUMN sessauth.mirror_state.reconcile_at IS 'When somebody last asked for a comparison with the ledger';

CREATE FUNCTION sessauth.resync(mirror text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_resync';
COMMENT ON FUNCTION sessauth.resync(text) IS
	'Sends everything that is alive to a mirror (null: to each) again; returns to how many; see column synced_at of mirrors; throws 42704';

CREATE FUNCTION sessauth.reconcile(mirror text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_reconcile';
COMMENT ON FUNCTION sessauth.reconcile(text) IS
	'Compares a mirror (null: each) with the ledger now, and repairs it; returns how many; see column reconciled_at of mirrors; throws 42704';

DROP VIEW sessauth.mirrors;
DROP FUNCTION sessauth.mirror_status();

CREATE FUNCTION sessauth.mirror_status(
	OUT name text, OUT state text, OUT generation uuid, OUT n bigint, OUT behind bigint, OUT last_beat_at timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT warning text,
	OUT reconcile_phase text, OUT reconcile_checked bigint, OUT reconciled_at timestamptz,
	OUT checked bigint, OUT missing bigint, OUT stale bigint, OUT foreign_keys bigint, OUT ahead bigint) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_mirror_status';
COMMENT ON FUNCTION sessauth.mirror_status() IS 'What the worker of this database last said of its mirrors; for the view mirrors';

CREATE VIEW sessauth.mirrors WITH (security_barrier) AS
	SELECT m.name, m.url,
		CASE WHEN s.name IS NULL THEN 'disabled' ELSE coalesce(w.state, 'waiting') END AS state,
		w.generation, w.n, w.behind, clock_timestamp() - w.last_beat_at AS last_beat_age, s.synced_at,
		w.last_error, w.last_error_at, w.warning,
		w.reconcile_phase, w.reconcile_checked, w.reconciled_at, w.checked, w.missing, w.stale, w.foreign_keys, w.ahead
	FROM sessauth.mirror m
	LEFT JOIN sessauth.mirror_state s ON s.name = m.name
	LEFT JOIN sessauth.mirror_status() w ON w.name = m.name
	WHERE (SELECT sessauth.reads_all());
COMMENT ON VIEW sessauth.mirrors IS 'The Redis mirrors: state, how far behind, last error, and the last comparison with the ledger';
COMMENT ON COLUMN sessauth.mirrors.state IS
	'streaming; syncing (a full copy is under way); connecting; down (see last_error); waiting (no worker or no link key); disabled (a restored or cloned ledger: see activate())';
COMMENT ON COLUMN sessauth.mirrors.behind IS 'Revocations that this mirror has not yet been sent';
COMMENT ON COLUMN sessauth.mirrors.reconcile_phase IS
	'Of the comparison under way: mirror (its keys are held against the ledger) or ledger (its rows against the mirror); null when there is none';
COMMENT ON COLUMN sessauth.mirrors.reconcile_checked IS 'Keys and rows that it has looked at';
COMMENT ON COLUMN sessauth.mirrors.reconciled_at IS 'When the last one ended; the columns behind it are what it looked at and found';
COMMENT ON COLUMN sessauth.mirrors.missing IS 'Keys that were not there, and are';
COMMENT ON COLUMN sessauth.mirrors.stale IS 'Keys that were older than the ledger, or would have expired at another time than they should, and are not';
COMMENT ON COLUMN sessauth.mirrors.foreign_keys IS 'Keys without a good MAC: replaced, or deleted';
COMMENT ON COLUMN sessauth.mirrors.ahead IS 'Keys that said authentically what the ledger had lost: a revocation was adopted by it, anything else replaced';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.mirrors SET (security_invoker = true);
	END IF;
END
$$;

CREATE FUNCTION sessauth.adopt(kind text, tenant_id text, user_id text, session_id uuid, kid text, epoch bigint, until timestamptz) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_adopt';
COMMENT ON FUNCTION sessauth.adopt(text, text, text, uuid, text, bigint, timestamptz) IS
	'For the worker: takes back a revocation that a mirror remembers and this ledger has lost; false when it is known, null when its row is locked; throws 22023';

/* ---- 10, 20, 30, 65: erasure ---- */

CREATE TABLE sessauth.erasure (
	event_id	bigint PRIMARY KEY,
	tenant_id	text COLLATE "C" NOT NULL,
	user_id		text COLLATE "C" NOT NULL,
	pseudonym	text NOT NULL,
	epoch		bigint NOT NULL
);
COMMENT ON TABLE sessauth.erasure IS
	'Erased users whose real id somebody still needs: nodes for the revocation, transactions that were open; the worker finishes them';
COMMENT ON COLUMN sessauth.erasure.event_id IS 'The event of the erasure, which still has the real user id';
COMMENT ON COLUMN sessauth.erasure.epoch IS 'What is older was the erased user''s; what is newer is somebody''s who came later under the same id';
SELECT pg_catalog.pg_extension_config_dump('sessauth.erasure', '');

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.erasure
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
ALTER TABLE sessauth.erasure ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.erasure ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE FUNCTION sessauth.erase_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_erase_user';
COMMENT ON FUNCTION sessauth.erase_user(text, text, text, text) IS
	'Ends every session of a user, removes the user (a block included), and puts a pseudonym into the history; reads all of the tenant''s; returns the event id; throws 42704';

CREATE FUNCTION sessauth.finish_erasures() RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_finish_erasures';
COMMENT ON FUNCTION sessauth.finish_erasures() IS
	'Puts the pseudonym into what an erasure had to leave until no node needs the real user id; the worker calls it; returns how many are complete';

/* ---- 10: which master key sealed a secret; the library fills in the id after the update (upgrade.c) ---- */

ALTER TABLE sessauth.secret ADD COLUMN sealed_by text NOT NULL DEFAULT '';
ALTER TABLE sessauth.secret ALTER COLUMN sealed_by DROP DEFAULT;
COMMENT ON COLUMN sessauth.secret.sealed_by IS 'Id of that master key, so that a server with another one can be told: the start of a MAC under it';

/* ---- 30: no statistics that would tell of other tenants ---- */

ALTER TABLE sessauth.tenant ALTER tenant_id SET STATISTICS 0;
ALTER TABLE sessauth.tenant_user ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0;
ALTER TABLE sessauth.session ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0,
	ALTER device SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER user_agent SET STATISTICS 0, ALTER end_reason SET STATISTICS 0;
ALTER TABLE sessauth.event ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0,
	ALTER actor SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER client_addr SET STATISTICS 0, ALTER reason SET STATISTICS 0;

/* ---- 50, 80 ---- */

COMMENT ON FUNCTION sessauth.verify(text) IS
	'Authoritative check on the newest committed state; outcomes active, malformed, bad_signature, unknown_key, wrong_issuer, not_yet_valid, expired, revoked; on a standby cannot_tell, unless sessauth.standby_verify is on';

CREATE FUNCTION sessauth.status(OUT check_name text, OUT state text, OUT detail text, OUT hint text) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_status';
COMMENT ON FUNCTION sessauth.status() IS
	'What is in order (ok), should be looked at (warning) and does not work (error), each with a hint; works on a standby and when other calls do not';

/* ---- 50: housekeeping ---- */

CREATE FUNCTION sessauth.sweep_sessions(after uuid, visit integer, OUT last uuid, OUT removed bigint, OUT erased bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_sweep_sessions';
COMMENT ON FUNCTION sessauth.sweep_sessions(uuid, integer) IS
	'The worker''s: removes sessions that ended or expired longer ago than sessauth.session_retention, and erases old salts, among the next ones in the order of ids; throws 22023';

/* ---- 75: receipts ---- */

CREATE FUNCTION sessauth.receipt(
	event_id bigint,
	OUT mirror text, OUT nodes bigint, OUT acknowledged bigint, OUT fenced bigint, OUT state text, OUT latency interval) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_receipt';
COMMENT ON FUNCTION sessauth.receipt(bigint) IS
	'Who knows of a revocation: a row for each mirror, and one with a null mirror for the nodes over SQL; states pending, confirmed, unknown (the worker does not run, or does not know yet who holds a lease); no row when there is no such revocation';

CREATE FUNCTION sessauth.await_receipt(event_id bigint, timeout interval DEFAULT '5s') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_await_receipt';
COMMENT ON FUNCTION sessauth.await_receipt(bigint, interval) IS
	'Waits until every node knows of a revocation or has lost its lease; false after the timeout, or when there is no such revocation; throws 55000 for one of the own transaction, 22023';

CREATE FUNCTION sessauth.revocations_since(
	generation uuid, n bigint,
	OUT g uuid, OUT number bigint, OUT kind text, OUT tenant_id text, OUT user_id text, OUT session_id uuid, OUT kid text,
	OUT epoch bigint, OUT event_id bigint, OUT at timestamptz, OUT until timestamptz) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revocations_since';
COMMENT ON FUNCTION sessauth.revocations_since(uuid, bigint) IS
	'The revocations after a number, at most 10000; all that still matter when the generation is null or another one';

CREATE FUNCTION sessauth.lease(
	node text, max_staleness interval, generation uuid, n bigint, told_at bigint DEFAULT NULL,
	OUT kind text, OUT g uuid, OUT number bigint, OUT tenant_id text, OUT user_id text, OUT session_id uuid, OUT kid text,
	OUT epoch bigint, OUT event_id bigint, OUT at timestamptz, OUT until timestamptz, OUT low bigint) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_lease';
COMMENT ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) IS
	'For nodes: the revocations that the node lacks after number n of a generation, and as the last row, when they are all, the lease: whoever has applied them may decide alone until max_staleness after the call was made; throws 22023, 25006 on a standby, 53400, 55000';

CREATE FUNCTION sessauth.revocations_packed(generation uuid, n bigint, OUT last bigint, OUT packed bytea) RETURNS record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revocations_packed';
COMMENT ON FUNCTION sessauth.revocations_packed(uuid, bigint) IS
	'For nodes that join: the revocations n + 1 to last of the current generation, at most 10000, as the pages of a mirror have them; none when last is n';

CREATE FUNCTION sessauth.end_lease(node text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_end_lease';
COMMENT ON FUNCTION sessauth.end_lease(text) IS 'For a node that stops and has dropped its lease: receipts need not wait for it; false when it is not known';

COMMENT ON FUNCTION sessauth.node_status() IS 'The nodes that ask for leases, over mirrors and over SQL; for the view nodes';
COMMENT ON COLUMN sessauth.nodes.mirror IS 'Null: the node asks over SQL. One that asks both ways has a row for each';

CREATE VIEW sessauth.propagation WITH (security_barrier) AS
	SELECT w.way, count(w.latency) AS revocations,
		percentile_disc(0.5) WITHIN GROUP (ORDER BY w.latency) AS p50,
		percentile_disc(0.9) WITHIN GROUP (ORDER BY w.latency) AS p90,
		percentile_disc(0.99) WITHIN GROUP (ORDER BY w.latency) AS p99,
		max(w.latency) AS max, t.target, count(*) FILTER (WHERE w.latency > t.target) AS breaches
	FROM (SELECT current_setting('sessauth.propagation_target')::interval) t(target),
		sessauth.arrival a,
		LATERAL (VALUES ('to every mirror', a.published_at - a.committed_after), ('to every node', a.confirmed_at - a.committed_after)) w(way, latency)
	WHERE (SELECT sessauth.reads_all()) AND a.committed_after > now() - interval '1 day'
	GROUP BY w.way, t.target;
COMMENT ON VIEW sessauth.propagation IS 'How long revocations of the last day took from their commit: into every mirror, and until every node knew';
COMMENT ON COLUMN sessauth.propagation.breaches IS 'How many took longer than sessauth.propagation_target';

CREATE VIEW sessauth.propagation_histogram WITH (security_barrier) AS
	SELECT b.way, b.up_to, b.revocations, repeat('#', ceil(40.0 * b.revocations / max(b.revocations) OVER (PARTITION BY b.way))::integer) AS bar
	FROM (SELECT w.way, s.up_to, count(*) AS revocations
		FROM sessauth.arrival a,
			LATERAL (VALUES ('to every mirror', a.published_at - a.committed_after), ('to every node', a.confirmed_at - a.committed_after)) w(way, latency),
			LATERAL (SELECT min(u) FROM unnest('{1ms,2ms,5ms,10ms,20ms,50ms,100ms,200ms,500ms,1s,2s,5s,10s,30s,1min,1h}'::interval[]) u
				WHERE w.latency <= u) s(up_to)
		WHERE (SELECT sessauth.reads_all()) AND a.committed_after > now() - interval '1 day' AND w.latency IS NOT NULL
		GROUP BY w.way, s.up_to) b
	ORDER BY b.way, b.up_to;
COMMENT ON VIEW sessauth.propagation_histogram IS 'The same as a histogram: how many revocations took up to so long, and longer than the row before';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.propagation SET (security_invoker = true);
		ALTER VIEW sessauth.propagation_histogram SET (security_invoker = true);
	END IF;
END
$$;

/* ---- 90: nothing is for anybody yet ---- */

DO $$
DECLARE
	statement text;
BEGIN
	FOR statement IN
		SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
		FROM (
			SELECT 'TABLE' AS kind, oid::regclass::text AS name, relowner AS owner, coalesce(relacl, acldefault('r', relowner)) AS acl
				FROM pg_class WHERE oid = ANY (ARRAY['sessauth.history', 'sessauth.revocations', 'sessauth.erasure', 'sessauth.mirrors',
					'sessauth.receipt_state', 'sessauth.arrival', 'sessauth.propagation', 'sessauth.propagation_histogram']::regclass[])
			UNION ALL
			SELECT 'FUNCTION', oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
				FROM pg_proc WHERE oid = ANY (ARRAY['sessauth.guard_history()', 'sessauth.prepare_partition(regclass)',
					'sessauth.erase_user(text, text, text, text)', 'sessauth.finish_erasures()', 'sessauth.status()',
					'sessauth.adopt(text, text, text, uuid, text, bigint, timestamptz)', 'sessauth.sweep_sessions(uuid, integer)',
					'sessauth.resync(text)', 'sessauth.reconcile(text)', 'sessauth.mirror_status()',
					'sessauth.receipt(bigint)', 'sessauth.await_receipt(bigint, interval)', 'sessauth.revocations_since(uuid, bigint)',
					'sessauth.lease(text, interval, uuid, bigint, bigint)', 'sessauth.end_lease(text)', 'sessauth.revocations_packed(uuid, bigint)',
					'sessauth.reads_from()', 'sessauth.reads_to()', 'sessauth.in_reach(text)', 'sessauth.in_reach_support(internal)']::regprocedure[])
		) o, aclexplode(o.acl) a
		WHERE a.grantee <> o.owner
	LOOP
		EXECUTE statement;
	END LOOP;
END
$$;

/* Chapter 70: mirrors and nodes. C: src/ledger/mirror.c, src/worker/status.c. */

CREATE FUNCTION sessauth.add_mirror(name text, url text, password_file text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_add_mirror';
COMMENT ON FUNCTION sessauth.add_mirror(text, text, text) IS
	'Makes a Redis server a mirror: redis://[user@]host[:port][/db], rediss:// for TLS (options cacert, cert and key name PEM files), or unix:///path[?db=n]; option prefix is put before every key name; throws 22023, 42710, F0000';

CREATE FUNCTION sessauth.remove_mirror(name text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_remove_mirror';
COMMENT ON FUNCTION sessauth.remove_mirror(text) IS 'Stops writing to a mirror and releases it for another ledger; its keys stay until they expire; false when there is none of that name';

CREATE FUNCTION sessauth.activate(revoke_all boolean DEFAULT false) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_activate';
COMMENT ON FUNCTION sessauth.activate(boolean) IS
	'For a restored or cloned ledger that takes the place of its original: enables its mirrors; returns how many; with revoke_all ends every session';

CREATE FUNCTION sessauth.resync(mirror text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_resync';
COMMENT ON FUNCTION sessauth.resync(text) IS
	'Sends everything that is alive to a mirror (null: to each) again; returns to how many; see column synced_at of mirrors; throws 42704';

CREATE FUNCTION sessauth.reconcile(mirror text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_reconcile';
COMMENT ON FUNCTION sessauth.reconcile(text) IS
	'Compares a mirror (null: each) with the ledger now, and repairs it; returns how many; see column reconciled_at of mirrors; throws 42704';

CREATE FUNCTION sessauth.adopt(kind text, tenant_id text, user_id text, session_id uuid, kid text, epoch bigint, until timestamptz) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_adopt';
COMMENT ON FUNCTION sessauth.adopt(text, text, text, uuid, text, bigint, timestamptz) IS
	'For the worker: takes back a revocation that a mirror remembers and this ledger has lost; false when it is known, null when its row is locked; throws 22023';

CREATE FUNCTION sessauth.mirror_status(
	OUT name text, OUT state text, OUT generation uuid, OUT n bigint, OUT behind bigint, OUT last_beat_at timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT warning text,
	OUT reconcile_phase text, OUT reconcile_checked bigint, OUT reconciled_at timestamptz,
	OUT checked bigint, OUT missing bigint, OUT stale bigint, OUT foreign_keys bigint, OUT ahead bigint) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_mirror_status';
COMMENT ON FUNCTION sessauth.mirror_status() IS 'What the worker of this database last said of its mirrors; for the view mirrors';

CREATE FUNCTION sessauth.node_status(
	OUT name text, OUT incarnation text, OUT mirror text, OUT generation uuid, OUT n bigint, OUT behind bigint,
	OUT max_staleness interval, OUT refused boolean, OUT last_seen_at timestamptz) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_node_status';
COMMENT ON FUNCTION sessauth.node_status() IS 'The nodes that ask for leases, over mirrors and over SQL; for the view nodes';

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

CREATE VIEW sessauth.nodes WITH (security_barrier) AS
	SELECT n.name, n.incarnation, n.mirror, n.generation, n.n, n.behind, n.max_staleness, n.refused,
		clock_timestamp() - n.last_seen_at AS last_seen_age
	FROM sessauth.node_status() n
	WHERE (SELECT sessauth.reads_all());
COMMENT ON VIEW sessauth.nodes IS 'The nodes that ask for leases: what they have applied and when they last asked';
COMMENT ON COLUMN sessauth.nodes.incarnation IS 'New for every life of a process';
COMMENT ON COLUMN sessauth.nodes.mirror IS 'Null: the node asks over SQL. One that asks both ways has a row for each';
COMMENT ON COLUMN sessauth.nodes.behind IS 'Revocations that it had not yet applied when it last asked';
COMMENT ON COLUMN sessauth.nodes.refused IS 'It asks for a longer lease than sessauth.max_lease and gets none';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.mirrors SET (security_invoker = true);
		ALTER VIEW sessauth.nodes SET (security_invoker = true);
	END IF;
END
$$;

CREATE FUNCTION sessauth.worker_probe() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_worker_probe';
COMMENT ON FUNCTION sessauth.worker_probe() IS 'Asks the launcher to look at this database when the transaction has committed';

SELECT sessauth.worker_probe();

CREATE POLICY readers ON sessauth.mirror FOR SELECT USING ((SELECT sessauth.reads_all()));
CREATE POLICY readers ON sessauth.mirror_state FOR SELECT USING ((SELECT sessauth.reads_all()));

/* Chapter 75: who knows of a revocation, since when, and the log of them for those who listen. C: src/ledger/receipt.c, src/ledger/follow.c, src/ledger/packed.c, src/ledger/lease.c. */

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

-- Lifetimes and policies at work: OWASP ASVS 5.0, 7.3.1 (idle), 7.3.2 (absolute), 10.4.8 (refresh tokens expire).
SELECT sessauth.create_tenant('p_acme', '{"access_ttl": 60, "session_ttl": 3600, "idle_ttl": 600, "refresh_grace": 0}') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;
-- what is left of a session and its tokens, in seconds
CREATE FUNCTION pg_temp.left_of(sid uuid, OUT access int, OUT idle int, OUT absolute int) LANGUAGE sql AS $$
	SELECT extract(epoch FROM access_expires_at - date_trunc('second', refreshed_at)), extract(epoch FROM idle_expires_at - refreshed_at),
		extract(epoch FROM expires_at - created_at)
	FROM sessauth.session WHERE session_id = sid
$$;
-- lets a session age
CREATE FUNCTION pg_temp.age(sid uuid, by interval) RETURNS void LANGUAGE sql AS $$
	UPDATE sessauth.session SET refreshed_at = refreshed_at - by, expires_at = expires_at - by, idle_expires_at = idle_expires_at - by,
		access_expires_at = access_expires_at - by WHERE session_id = sid
$$;

-- how a policy is refused
CREATE FUNCTION pg_temp.refused(policy jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	PERFORM sessauth.set_policy('p_acme', policy);
	RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(hint, ''));
END
$$;

-- each lifetime is the policy's
SELECT * FROM sessauth.issue_session('p_acme', 'alice') \gset a_
SELECT * FROM pg_temp.left_of(:'a_session_id');
SELECT :'a_refresh_expires_at'::timestamptz - :'a_access_expires_at'::timestamptz BETWEEN '530 s' AND '550 s' AS refresh_token_until_idle;

-- activity puts off the idle end, never the absolute one
SELECT pg_temp.age(:'a_session_id', '500 s');
SELECT * FROM sessauth.refresh_session(:'a_refresh_token') \gset a2_
SELECT :'a2_outcome' AS outcome, idle FROM pg_temp.left_of(:'a_session_id');
SELECT pg_temp.age(:'a_session_id', '590 s');
SELECT * FROM sessauth.refresh_session(:'a2_refresh_token') \gset a3_
SELECT :'a3_outcome' AS outcome, expires_at < clock_timestamp() + interval '2520 s' AS not_put_off FROM sessauth.session WHERE session_id = :'a_session_id';
-- idle: the access token that is left does not save it, and no later refresh wakes it
SELECT pg_temp.age(:'a_session_id', '601 s');
SELECT outcome FROM sessauth.refresh_session(:'a3_refresh_token');
SELECT outcome FROM sessauth.verify(:'a3_access_token');
SELECT state FROM sessauth.sessions WHERE session_id = :'a_session_id';
SELECT count(*) FROM sessauth.list_sessions('p_acme', 'alice');
SELECT sessauth.introspect(:'a3_refresh_token') AS refresh, sessauth.introspect(:'a3_access_token') AS access;
-- absolute: however active
SELECT * FROM sessauth.issue_session('p_acme', 'bob') \gset b_
UPDATE sessauth.session SET expires_at = clock_timestamp() + interval '30 s' WHERE session_id = :'b_session_id';
SELECT * FROM sessauth.refresh_session(:'b_refresh_token') \gset b2_
SELECT :'b2_outcome' AS outcome, :'b2_access_expires_at'::timestamptz <= expires_at AS access_token_within,
	:'b2_refresh_expires_at'::timestamptz <= expires_at AS refresh_token_within FROM sessauth.session WHERE session_id = :'b_session_id';
UPDATE sessauth.session SET expires_at = clock_timestamp() WHERE session_id = :'b_session_id';
SELECT outcome FROM sessauth.refresh_session(:'b2_refresh_token');
SELECT outcome FROM sessauth.verify(:'b2_access_token');
SELECT state FROM sessauth.sessions WHERE session_id = :'b_session_id';

-- a change of policy acts on running sessions from their next refresh on; the absolute end only ever comes nearer
SELECT * FROM sessauth.issue_session('p_acme', 'carol') \gset c_
SELECT sessauth.set_policy('p_acme', '{"access_ttl": 30, "session_ttl": 1200, "idle_ttl": 300, "refresh_grace": 0}') IS NOT NULL AS shorter;
SELECT * FROM sessauth.refresh_session(:'c_refresh_token') \gset c2_
SELECT :'c2_outcome' AS outcome, * FROM pg_temp.left_of(:'c_session_id');
SELECT sessauth.set_policy('p_acme', '{"access_ttl": 90, "session_ttl": 7200, "idle_ttl": 900, "refresh_grace": 0}') IS NOT NULL AS longer;
SELECT * FROM sessauth.refresh_session(:'c2_refresh_token') \gset c3_
SELECT :'c3_outcome' AS outcome, * FROM pg_temp.left_of(:'c_session_id');
-- a shorter absolute lifetime ends what is older than it
SELECT * FROM sessauth.issue_session('p_acme', 'dave') \gset d_
SELECT sessauth.set_policy('p_acme', '{"session_ttl": 1, "idle_ttl": 900}') IS NOT NULL AS one_second;
DO $$ BEGIN WHILE sessauth.ledger_time() <= (SELECT max(refreshed_at) + interval '1 second' FROM sessauth.sessions WHERE tenant_id = 'p_acme') LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;
SELECT outcome FROM sessauth.refresh_session(:'d_refresh_token');
SELECT outcome FROM sessauth.verify(:'d_access_token');
SELECT state FROM sessauth.sessions WHERE session_id = :'d_session_id';
-- and so does a shorter idle one
SELECT sessauth.set_policy('p_acme', '{"idle_ttl": 900}') IS NOT NULL AS longer;
SELECT * FROM sessauth.issue_session('p_acme', 'dora') \gset d_
SELECT sessauth.set_policy('p_acme', '{"idle_ttl": 1}') IS NOT NULL AS one_second;
DO $$ BEGIN WHILE sessauth.ledger_time() <= (SELECT max(refreshed_at) + interval '1 second' FROM sessauth.sessions WHERE tenant_id = 'p_acme') LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;
SELECT outcome FROM sessauth.refresh_session(:'d_refresh_token');
SELECT state FROM sessauth.sessions WHERE session_id = :'d_session_id';
-- a lower limit does not log anybody out: it holds from the next login on
SELECT sessauth.set_policy('p_acme', '{}') IS NOT NULL AS defaults;
SELECT (sessauth.issue_session('p_acme', 'erin')).outcome FROM generate_series(1, 3);
SELECT sessauth.set_policy('p_acme', '{"max_sessions": 2}') ->> 'max_sessions' AS limit;
SELECT count(*) FROM sessauth.list_sessions('p_acme', 'erin');
SELECT outcome FROM sessauth.issue_session('p_acme', 'erin');
SELECT sessauth.set_policy('p_acme', '{"max_sessions": 2, "on_limit": "evict_oldest"}') ->> 'on_limit' AS on_limit;
SELECT outcome, cardinality(evicted) AS evicted FROM sessauth.issue_session('p_acme', 'erin');
SELECT count(*) FROM sessauth.list_sessions('p_acme', 'erin');

-- nonsense is refused, in a policy and in a setting
SELECT pg_temp.refused(value), value FROM unnest(ARRAY['{"access_ttl": "soon"}', '{"access_ttl": 0}', '{"access_ttl": 86401}', '{"access_ttl": 1.5}',
	'{"access_ttl": null}', '{"access_ttl": true}', '{"access_ttl": "1 month"}', '{"session_ttl": "100 years"}', '{"session_ttl": "infinity"}',
	'{"idle_ttl": -1}', '{"idle_ttl": {}}', '{"idle_ttl": 1e30}', '{"refresh_grace": "6 min"}', '{"refresh_grace": -1}', '{"max_sessions": -1}',
	'{"max_sessions": 100001}', '{"max_sessions": "5"}', '{"on_limit": null}', '{"on_limit": "Reject"}', '{"on_limit": 0}', '{"": 1}',
	'{"Access_TTL": 60}', '{"access_ttl ": 60}', '{"issuer": "x"}']::jsonb[]) value;
\set VERBOSITY sqlstate
ALTER SYSTEM SET sessauth.access_ttl = 0;	-- said differently from version 16 on
\set VERBOSITY default
ALTER SYSTEM SET sessauth.access_ttl = '2 days';
ALTER SYSTEM SET sessauth.idle_ttl = 'soon';
ALTER SYSTEM SET sessauth.max_sessions = -1;
ALTER SYSTEM SET sessauth.on_limit = 'explode';
SET sessauth.access_ttl = 60;

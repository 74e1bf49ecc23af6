-- Taking a person out of the ledger and its history.
SET client_min_messages = warning;
DROP ROLE IF EXISTS erase_app, erase_auditor;
CREATE ROLE erase_app; CREATE ROLE erase_auditor;
SELECT sessauth.create_tenant('er_acme') IS NOT NULL AS acme, sessauth.create_tenant('er_other') IS NOT NULL AS other;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT sessauth.grant_access('erase_app', 'service'), sessauth.grant_access('erase_auditor', 'auditor');
-- What still names the user, has one of the addresses, or says something of a device.
CREATE FUNCTION pg_temp.traces(tenant text) RETURNS TABLE (kind text, what text) LANGUAGE sql AS $$
	SELECT e.kind, t.what FROM sessauth.event e, regexp_matches(e::text, '\malice\M|192\.0\.2\.\d+|secret phone|Alice-Browser', 'gi') m, LATERAL (SELECT m[1]) t(what)
	WHERE tenant_id = tenant ORDER BY event_id, what
$$;
-- Waits until the worker has numbered an erasure, lets its revocation be forgotten at once, and completes it.
CREATE FUNCTION pg_temp.complete(erased bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3000 LOOP
		UPDATE sessauth.revocation_log SET until = sessauth.ledger_time() WHERE event_id = erased;
		PERFORM sessauth.finish_erasures();
		IF NOT EXISTS (SELECT FROM sessauth.erasure WHERE event_id = erased) THEN
			RETURN 'complete';
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN 'still pending';
END
$$;

SET ROLE erase_app;
SELECT * FROM sessauth.issue_session('er_acme', 'alice', 'secret phone', '192.0.2.7', 'Alice-Browser') \gset a_
SELECT * FROM sessauth.issue_session('er_acme', 'alice', 'PC', '192.0.2.8') \gset b_
SELECT outcome FROM sessauth.issue_session('er_acme', 'bob', 'PC', '198.51.100.1');
SELECT * FROM sessauth.issue_session('er_other', 'alice', 'PC', '198.51.100.2') \gset o_
SELECT sessauth.revoke_session('er_acme', :'b_session_id', 'lost by Alice', 'alice') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('er_acme', 'bob', 'reported by alice', 'alice') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('er_acme', 'bob', 'malice aforethought', 'alice.b@acme') IS NOT NULL AS revoked;
SELECT sessauth.block_user('er_acme', 'alice', 'alice left', 'hr') IS NOT NULL AS blocked;
RESET ROLE;
UPDATE sessauth.session SET user_agent = 'Alice-Browser 2', device = 'secret phone 2' WHERE session_id = :'a_session_id';
SELECT count(*) > 8 AS many_traces FROM pg_temp.traces('er_acme');

-- the erasure, itself recorded; until nobody needs the real id it alone has it
SELECT sessauth.erase_user('er_acme', 'alice', 'asked to be forgotten', 'dpo@acme') AS erased \gset
SELECT kind, revokes, user_id, epoch > :a_epoch AS raised, until > at AS remembered, actor, reason FROM sessauth.event WHERE event_id = :erased;
SELECT * FROM pg_temp.traces('er_acme');
SELECT kind, user_id ~ '^erased-[0-9a-f-]{36}$' AS pseudonym, actor = user_id AS by_the_same, ip,
	regexp_replace(reason, 'erased-[0-9a-f-]{36}', 'PSEUDONYM') AS reason, pg_catalog.jsonb_object_keys(coalesce(before, '{"nothing": 1}')) AS before
	FROM sessauth.history WHERE tenant_id = 'er_acme' AND event_id < :erased AND user_id IS DISTINCT FROM 'bob' ORDER BY event_id, before;
SELECT kind, ip, regexp_replace(actor, 'erased-[0-9a-f-]{36}', 'PSEUDONYM') AS actor, regexp_replace(reason, 'erased-[0-9a-f-]{36}', 'PSEUDONYM') AS reason
	FROM sessauth.history WHERE tenant_id = 'er_acme' AND user_id = 'bob' ORDER BY event_id;
SELECT count(DISTINCT m) AS pseudonyms FROM sessauth.event e, regexp_matches(e::text, 'erased-[0-9a-f-]{36}', 'g') m WHERE tenant_id = 'er_acme';
SELECT count(*) AS rows_left FROM (SELECT user_id FROM sessauth.tenant_user WHERE tenant_id = 'er_acme' AND user_id = 'alice'
	UNION ALL SELECT user_id FROM sessauth.session WHERE tenant_id = 'er_acme' AND user_id = 'alice') r;
SELECT outcome FROM sessauth.verify(:'a_access_token');
SELECT outcome FROM sessauth.refresh_session(:'a_refresh_token');
SELECT outcome AS other_tenant FROM sessauth.verify(:'o_access_token');
SELECT sessauth.finish_erasures() AS too_early;
SELECT user_id FROM sessauth.event WHERE event_id = :erased;

-- somebody who comes under the same id is somebody else
SELECT * FROM sessauth.issue_session('er_acme', 'alice', 'new PC', '203.0.113.1') \gset n_
SELECT :'n_outcome' AS outcome, :n_epoch > (SELECT epoch FROM sessauth.event WHERE event_id = :erased) AS higher;
SELECT (SELECT outcome FROM sessauth.verify(:'a_access_token')) AS old, (SELECT outcome FROM sessauth.verify(:'n_access_token')) AS new;
SELECT pg_temp.complete(:erased);
SELECT user_id ~ '^erased-' AS pseudonym, user_id = (SELECT min(user_id) FROM sessauth.event WHERE tenant_id = 'er_acme' AND user_id LIKE 'erased-%') AS the_same,
	actor, reason FROM sessauth.event WHERE event_id = :erased;
SELECT * FROM pg_temp.traces('er_acme');
SELECT (SELECT outcome FROM sessauth.verify(:'a_access_token')) AS old, (SELECT outcome FROM sessauth.verify(:'n_access_token')) AS new;

-- erased twice in a row: two people, two pseudonyms, and the first is complete with the second
SELECT sessauth.erase_user('er_acme', 'alice') AS second \gset
SELECT outcome FROM sessauth.issue_session('er_acme', 'alice');
SELECT sessauth.erase_user('er_acme', 'alice', 'alice again') AS third \gset
SELECT event_id = :third AS the_last_alone FROM sessauth.erasure WHERE tenant_id = 'er_acme';
SELECT count(DISTINCT user_id) AS people FROM sessauth.event WHERE tenant_id = 'er_acme' AND user_id LIKE 'erased-%';
SELECT pg_temp.complete(:third);
SELECT * FROM pg_temp.traces('er_acme');
SELECT count(DISTINCT user_id) AS people FROM sessauth.event WHERE tenant_id = 'er_acme' AND user_id LIKE 'erased-%';

-- names that are patterns, words within words, a user who was never seen, one of a tenant that is gone
SELECT outcome FROM sessauth.issue_session('er_acme', 'a.c*(e)@x');
SELECT sessauth.revoke_user('er_acme', 'bob', 'for a.c*(e)@x, not abcc(e)@x', 'A.C*(E)@X') IS NOT NULL AS revoked;
SELECT sessauth.erase_user('er_acme', 'a.c*(e)@x') IS NOT NULL AS erased;
SELECT regexp_replace(actor, 'erased-[0-9a-f-]{36}', 'PSEUDONYM') AS actor, regexp_replace(reason, 'erased-[0-9a-f-]{36}', 'PSEUDONYM') AS reason
	FROM sessauth.revocations WHERE tenant_id = 'er_acme' AND user_id = 'bob' ORDER BY at DESC LIMIT 1;
SELECT sessauth.erase_user('er_acme', 'never seen') IS NOT NULL AS erased;
SELECT sessauth.drop_tenant('er_other') IS NOT NULL AS dropped;
SELECT sessauth.erase_user('er_other', 'alice') AS gone \gset
SELECT pg_temp.complete(:gone);
SELECT * FROM pg_temp.traces('er_other');

-- refused
SELECT sessauth.erase_user('er_nowhere', 'alice');
SELECT sessauth.erase_user('er_acme', NULL);
SELECT sessauth.erase_user('er_acme', 'bob', repeat('x', 1025));
SET ROLE erase_app;
SELECT sessauth.erase_user('er_acme', 'bob');
SET ROLE erase_auditor;
SELECT sessauth.finish_erasures();
SELECT * FROM sessauth.erasure;
RESET ROLE;
TRUNCATE sessauth.erasure;
SELECT sessauth.revoke_access('erase_app', 'service'), sessauth.revoke_access('erase_auditor', 'auditor');
DROP ROLE erase_app, erase_auditor;

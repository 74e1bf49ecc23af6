-- The history: who, from where, why, before and after; read by those who may, changed by nobody.
SET client_min_messages = warning;
DROP ROLE IF EXISTS history_app, history_admin, history_auditor, history_writer, history_bypass;
CREATE ROLE history_app; CREATE ROLE history_admin; CREATE ROLE history_auditor; CREATE ROLE history_writer; CREATE ROLE history_bypass BYPASSRLS;
SELECT sessauth.create_tenant('hi_acme', '{"max_sessions": 2, "on_limit": "evict_oldest"}') IS NOT NULL AS acme,
	sessauth.create_tenant('hi_other') IS NOT NULL AS other;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT sessauth.grant_access('history_app', 'service');
SELECT sessauth.grant_access('history_admin', 'tenant_admin', 'hi_acme');
SELECT sessauth.grant_access('history_auditor', 'auditor', 'hi_other');
-- numbers of the sequence and times differ from run to run
CREATE FUNCTION pg_temp.told(side jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(key || '=' || CASE WHEN key LIKE '%epoch' THEN 'n' WHEN value::text ~ '^"\d{4}-\d\d-\d\dT.*\+00:00"$' THEN 'time' ELSE value::text END, ' ' ORDER BY key)
	FROM jsonb_each(side)
$$;
CREATE FUNCTION pg_temp.tells(tenant_id text, own text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
	IF tenant_id IS DISTINCT FROM own THEN
		RAISE WARNING 'seen: %', tenant_id;
	END IF;
	RETURN true;
END
$$;

-- what administrators do
SET ROLE history_app;
SELECT * FROM sessauth.issue_session('hi_acme', 'alice', 'PC', '192.0.2.1') \gset a_
SELECT * FROM sessauth.issue_session('hi_acme', 'alice', 'phone', '192.0.2.2') \gset b_
SELECT outcome FROM sessauth.issue_session('hi_acme', 'alice', 'tablet', '192.0.2.3');
SELECT outcome, refresh_token AS next FROM sessauth.refresh_session(:'b_refresh_token', '192.0.2.4') \gset r_
SELECT sessauth.revoke_session('hi_acme', :'b_session_id', 'sold it', 'alice') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('hi_acme', 'alice', 'laptop lost', 'admin@acme') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('hi_acme', 'nobody yet') IS NOT NULL AS revoked;
SELECT sessauth.block_user('hi_acme', 'alice', 'left', 'hr@acme') IS NOT NULL AS blocked;
SELECT sessauth.unblock_user('hi_acme', 'alice', 'came back') IS NOT NULL AS unblocked;
SELECT sessauth.revoke_tenant('hi_acme', 'incident 42') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('hi_other', 'alice', 'fired', 'hr@other') IS NOT NULL AS revoked;
RESET ROLE;
SELECT sessauth.suspend_tenant('hi_acme', 'unpaid') IS NOT NULL AS suspended;
SELECT sessauth.resume_tenant('hi_acme', 'paid') IS NOT NULL AS resumed;
SELECT sessauth.set_policy('hi_acme', '{"access_ttl": "10 min"}') IS NOT NULL AS changed;
SELECT sessauth.create_signing_key() AS stolen \gset
SELECT sessauth.revoke_signing_key(:'stolen') IS NOT NULL AS key_revoked;
SELECT sessauth.add_mirror('history', 'redis://127.0.0.1:1/0');
SELECT sessauth.remove_mirror('history');
-- and what a DBA does by hand
UPDATE sessauth.session SET device = 'the PC', refresh_hash = '\x00', client_claims = '{"secret": 1}' WHERE session_id = :'a_session_id';
DELETE FROM sessauth.session WHERE session_id = :'a_session_id';
INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('hi_acme', 'zoe');
DELETE FROM sessauth.tenant_user WHERE user_id = 'zoe';
INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('hi_acme', 'a "quoted" \name');
UPDATE sessauth.tenant_user SET blocked_at = 'infinity' WHERE user_id = 'a "quoted" \name';

SELECT kind, user_id, actor, ip, reason, pg_temp.told(before) AS before, pg_temp.told(after) AS after
	FROM sessauth.history WHERE tenant_id = 'hi_acme' ORDER BY event_id;
SELECT kind, before ->> 'sealed' AS sealed_before, after ->> 'sealed' AS sealed_after, after ? 'revoked_at' AS revoked_at
	FROM sessauth.history WHERE kid = :'stolen' ORDER BY event_id;
SELECT kind, pg_temp.told(before) AS before, pg_temp.told(after) AS after FROM sessauth.history WHERE kind LIKE 'mirror%' AND coalesce(before, after) ->> 'name' = 'history' ORDER BY event_id;
SELECT count(*) AS epochs_that_did_not_grow FROM sessauth.history
	WHERE tenant_id LIKE 'hi\_%' AND before ? 'epoch' AND after ? 'epoch' AND (after ->> 'epoch')::bigint <= (before ->> 'epoch')::bigint;
SELECT bool_and(client_addr IS NOT DISTINCT FROM inet_client_addr()) AS from_here, bool_and(role = session_user) AS by_me
	FROM sessauth.history WHERE tenant_id = 'hi_acme';

-- who logged whom out, when, why
SELECT kind, user_id, session_id = :'b_session_id' AS phone, actor, reason FROM sessauth.revocations WHERE tenant_id = 'hi_acme'
	ORDER BY at DESC;
SELECT kind, tenant_id, user_id FROM sessauth.revocations WHERE kid = :'stolen';
SET ROLE history_admin;
SELECT count(*) AS own, count(*) FILTER (WHERE tenant_id IS DISTINCT FROM 'hi_acme') AS foreign FROM sessauth.revocations;
-- a function that tells what it is shown is shown nothing of another tenant
SELECT count(*) > 0 AS own FROM sessauth.revocations WHERE pg_temp.tells(tenant_id, 'hi_acme');
SELECT count(*) > 0 AS own FROM sessauth.history WHERE pg_temp.tells(tenant_id, 'hi_acme');
SET ROLE history_auditor;
SELECT kind, user_id, actor, reason FROM sessauth.revocations;
SELECT count(*) > 0 AS own FROM sessauth.history WHERE pg_temp.tells(tenant_id, 'hi_other');
SET ROLE history_app;
SELECT count(*) FROM sessauth.revocations;
RESET ROLE;

-- nobody changes it: who has no right is refused, who was given it by hand finds no rows, or is refused past the policies
GRANT USAGE ON SCHEMA sessauth TO history_writer, history_bypass;
GRANT SELECT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA sessauth TO history_writer, history_bypass;
SELECT md5(string_agg(e::text, E'\n' ORDER BY event_id)) AS digest FROM sessauth.event e
	WHERE tenant_id = 'hi_acme' \gset
SET ROLE history_admin;
UPDATE sessauth.event SET reason = 'never happened';
DELETE FROM sessauth.history;
TRUNCATE sessauth.event;
SET ROLE history_writer;
UPDATE sessauth.event SET reason = 'never happened';
DELETE FROM sessauth.event WHERE tenant_id = 'hi_acme';
TRUNCATE sessauth.event;
SET ROLE history_bypass;
DO $$
DECLARE
	part regclass;
	statement text;
	filled boolean;
	hint text;
BEGIN
	FOR part IN SELECT relid FROM pg_partition_tree('sessauth.event') LOOP
		EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part) INTO filled;
		CONTINUE WHEN NOT filled;	-- nothing there to change
		FOREACH statement IN ARRAY ARRAY['UPDATE %s SET reason = ''never happened''', 'DELETE FROM %s', 'TRUNCATE %s'] LOOP
			BEGIN
				EXECUTE format(statement, part);
				RAISE WARNING 'done: %', format(statement, part);
			EXCEPTION WHEN insufficient_privilege OR feature_not_supported THEN
				GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
				IF hint !~ 'erase_user' THEN
					RAISE WARNING 'no hint: %', format(statement, part);
				END IF;
			END;
		END LOOP;
	END LOOP;
END
$$;
RESET ROLE;
SET session_replication_role = replica;
SET ROLE history_bypass;
\set VERBOSITY sqlstate
DELETE FROM sessauth.event WHERE tenant_id = 'hi_acme';
\set VERBOSITY default
DELETE FROM sessauth.event WHERE tenant_id = 'hi_acme' AND kind = 'policy_changed';
RESET ROLE;
RESET session_replication_role;
SELECT md5(string_agg(e::text, E'\n' ORDER BY event_id)) = :'digest' AS unchanged FROM sessauth.event e
	WHERE tenant_id = 'hi_acme';
-- a superuser can
BEGIN;
DELETE FROM sessauth.event WHERE tenant_id = 'hi_acme' AND kind = 'policy_changed';
ROLLBACK;
-- no table of the ledger is truncated, whoever asks
DO $$
DECLARE
	relation regclass;
BEGIN
	FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p') LOOP
		BEGIN
			EXECUTE format('TRUNCATE %s', relation);
			RAISE WARNING 'truncated: %', relation;
		EXCEPTION WHEN feature_not_supported THEN NULL;
		END;
	END LOOP;
END
$$;
TRUNCATE sessauth.event;
TRUNCATE sessauth.ledger_state;
SELECT sessauth.prepare_partition('sessauth.event_default');

REVOKE ALL ON ALL TABLES IN SCHEMA sessauth FROM history_writer, history_bypass;
REVOKE ALL ON SCHEMA sessauth FROM history_writer, history_bypass;
SELECT sessauth.revoke_access('history_app', 'service'), sessauth.revoke_access('history_admin', 'tenant_admin', 'hi_acme'),
	sessauth.revoke_access('history_auditor', 'auditor', 'hi_other');
DROP ROLE history_app, history_admin, history_auditor, history_writer, history_bypass;

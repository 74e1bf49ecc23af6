-- catalog.sql
--		The walls: row security and policies, what each access may call and read,
--		which triggers fire in replica mode, and what a dump carries.
BEGIN;
SET search_path = public, pg_catalog;
SELECT no_plan();

SELECT is(extversion, sessauth.library_version(), 'library and SQL are of one version') FROM pg_extension WHERE extname = 'sessauth';

SELECT policies_are('sessauth', t, ARRAY['readers'], format('%s has one policy', t))
	FROM unnest(ARRAY['tenant', 'tenant_user', 'session', 'event', 'signing_key', 'mirror', 'mirror_state', 'arrival']) t;
SELECT policies_are('sessauth', t, '{}'::name[], format('%s has no policy: nobody but the owner sees it', t))
	FROM unnest(ARRAY['secret', 'access', 'ledger_state', 'revocation_log', 'erasure', 'receipt_state']) t;
SELECT ok('security_invoker=true' = ANY (reloptions), format('view %s is an invoker', oid::regclass))
	FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind = 'v' ORDER BY relname;
SELECT is('security_barrier=true' = ANY (reloptions), relname NOT IN ('history', 'revocations'),
	format('view %s is a barrier, unless row security of its one table is', oid::regclass))
	FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind = 'v' ORDER BY relname;

-- row security on every table, partitions that are made later included; no policy lets anybody write
SELECT lives_ok($$CREATE TABLE sessauth.event_2097_01 PARTITION OF sessauth.event
	FOR VALUES FROM ('2097-01-01 00:00:00Z') TO ('2097-02-01 00:00:00Z')$$, 'a partition is made');
SELECT lives_ok($$SELECT sessauth.prepare_partition('sessauth.event_2097_01')$$, 'and prepared as the worker does it');
SELECT ok(relrowsecurity AND relforcerowsecurity, format('row security of %s is enabled and forced', oid::regclass))
	FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname;
SELECT is_empty($$SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'sessauth'
	AND (cmd <> 'SELECT' OR permissive <> 'PERMISSIVE' OR roles <> '{public}'
		OR qual !~ '^\( SELECT sessauth\.reads_all\(\) AS reads_all\)$|^\(\( SELECT sessauth\.reads_all\(\) AS reads_all\) OR \(tenant_id = ANY \(\( SELECT sessauth\.reads_tenants\(\) AS reads_tenants\)::text\[\]\)\)\)$|^\(sessauth\.in_reach\(tenant_id\) AND \(\( SELECT sessauth\.reads_all\(\) AS reads_all\) OR \(tenant_id = ANY \(\( SELECT sessauth\.reads_tenants\(\) AS reads_tenants\)::text\[\]\)\)\)\)$')$$,
	'every policy is for reading, and asks for the right to read everything or this tenant');
SELECT is_empty($$SELECT tablename FROM pg_policies WHERE schemaname = 'sessauth' AND qual !~ 'reads_tenants'
	AND tablename IN (SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE relnamespace = 'sessauth'::regnamespace AND attname = 'tenant_id')$$,
	'where rows belong to a tenant, its policy lets its readers read them');
SELECT is_empty($$SELECT c.oid::regclass, a.privilege_type FROM pg_class c, aclexplode(relacl) a
	WHERE relnamespace = 'sessauth'::regnamespace AND a.grantee <> relowner$$, 'before anything is granted, nobody has a privilege on a table, view or sequence');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
	WHERE pronamespace = 'sessauth'::regnamespace AND a.grantee <> proowner$$, 'nor on a function');
SELECT is_empty($$SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p') AND attacl IS NOT NULL$$, 'nor on a column');
SELECT is_empty($$SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p') AND relname ~ '^(tenant|tenant_user|session|event.*)$'
		AND attname IN ('tenant_id', 'user_id', 'session_id', 'device', 'ip', 'client_addr', 'user_agent', 'actor', 'reason', 'end_reason') AND attstattarget IS DISTINCT FROM 0$$,
	'the planner keeps no statistics that would tell a tenant''s readers about other tenants');

-- what each access may call
CREATE ROLE tap_service; CREATE ROLE tap_node; CREATE ROLE tap_admin; CREATE ROLE tap_auditor;
SELECT is(sessauth.create_tenant('tap') IS NOT NULL, true, 'a tenant for the grants');
SELECT lives_ok($$SELECT sessauth.grant_access('tap_service', 'service')$$, 'service is granted');
SELECT lives_ok($$SELECT sessauth.grant_access('tap_node', 'node')$$, 'node is granted');
SELECT lives_ok($$SELECT sessauth.grant_access('tap_admin', 'tenant_admin', 'tap')$$, 'tenant_admin is granted');
SELECT lives_ok($$SELECT sessauth.grant_access('tap_auditor', 'auditor')$$, 'auditor is granted');
CREATE TEMP TABLE matrix (access text, functions text[]);
INSERT INTO matrix VALUES
	('service', ARRAY['issue_session', 'refresh_session', 'verify', 'introspect', 'logout', 'list_sessions', 'jwks',
		'authenticate', 'current_tenant', 'current_user_id', 'current_session_id',
		'revoke_session', 'revoke_user', 'revoke_other_sessions', 'revoke_tenant', 'block_user', 'unblock_user',
		'receipt', 'await_receipt', 'revocations_since']),
	('node', ARRAY['revocations_since', 'lease', 'end_lease', 'revocations_packed', 'verify', 'introspect', 'jwks', 'link_key', 'authenticate', 'current_tenant', 'current_user_id', 'current_session_id']),
	('admin', ARRAY['jwks', 'list_sessions', 'revoke_session', 'revoke_user', 'revoke_other_sessions', 'revoke_tenant',
		'block_user', 'unblock_user', 'reads_all', 'reads_tenants', 'reads_from', 'reads_to', 'in_reach', 'session_state', 'receipt', 'await_receipt', 'revocations_since']),
	('auditor', ARRAY['jwks', 'reads_all', 'reads_tenants', 'reads_from', 'reads_to', 'in_reach', 'session_state', 'mirror_status', 'node_status', 'status', 'receipt', 'await_receipt', 'revocations_since']);
SELECT bag_eq(
	format($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace AND has_function_privilege('tap_%s', oid, 'EXECUTE')$$, access),
	format('SELECT unnest(%L::text[])', functions),
	format('%s may call exactly what the matrix says', access))
	FROM matrix;
SELECT is(count(*), 0::bigint, 'no access lets a role write to a table or hang a trigger on it')
	FROM pg_class c, unnest(ARRAY['tap_service', 'tap_node', 'tap_admin', 'tap_auditor']) r
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND has_table_privilege(r, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
SELECT is(count(*), 0::bigint, 'service and node read no table')
	FROM pg_class c, unnest(ARRAY['tap_service', 'tap_node']) r
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
	AND (has_any_column_privilege(r, c.oid, 'SELECT'));
SELECT ok(NOT has_column_privilege(r, 'sessauth.session', c, 'SELECT'), format('%s does not read session.%s', r, c))
	FROM unnest(ARRAY['tap_admin', 'tap_auditor']) r,
		unnest(ARRAY['refresh_hash', 'parent_hash', 'refresh_salt', 'client_claims']) c;
SELECT ok(NOT has_any_column_privilege(r, t, 'SELECT'), format('%s does not read %s', r, t))
	FROM unnest(ARRAY['tap_admin', 'tap_auditor']) r,
		unnest(ARRAY['sessauth.secret', 'sessauth.access', 'sessauth.ledger_state']) t;
SELECT ok(NOT has_column_privilege('tap_auditor', 'sessauth.signing_key', 'sealed', 'SELECT'), 'an auditor does not read private keys');
SELECT ok(NOT has_any_column_privilege('tap_admin', 'sessauth.signing_key', 'SELECT'), 'a tenant''s administrator does not read keys');

-- every trigger fires also in replica mode
SELECT is(tgenabled, 'A'::"char", format('trigger %s of %s fires always', tgname, tgrelid::regclass))
	FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
	WHERE relnamespace = 'sessauth'::regnamespace AND NOT tgisinternal AND tgparentid = 0 ORDER BY relname, tgname;

-- a dump carries the data and nothing that belongs to this cluster
SELECT bag_eq(
	$$SELECT c.relname::text FROM pg_extension e, unnest(e.extconfig) t JOIN pg_class c ON c.oid = t WHERE extname = 'sessauth'$$,
	ARRAY['epoch_seq', 'event_seq', 'tenant', 'tenant_user', 'session', 'event', 'event_default', 'erasure', 'signing_key', 'secret', 'access', 'mirror', 'arrival'],
	'the tables and sequences of the data are registered for dump');

SELECT * FROM finish();
ROLLBACK;

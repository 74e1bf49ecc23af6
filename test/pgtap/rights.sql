-- rights.sql
--		The walls, read from the catalog: row-level security on every table, nothing
--		for PUBLIC, no function that lends its owner's rights, a comment on everything.
BEGIN;
SELECT * FROM no_plan();

-- the first write call, after which there are partitions for this month and the next
CREATE ROLE pgtap_service;
CREATE ROLE pgtap_node;
SELECT sessauth.grant_access('pgtap_service', 'service');
SELECT sessauth.grant_access('pgtap_node', 'node');
SELECT cmp_ok((SELECT count(*) FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass), '>=', 2::bigint,
	'the history has partitions beside the default one');

-- the first wall: privileges
SELECT is_empty($$
	SELECT format('%s on %s', a.privilege_type, p.oid::regprocedure)
	FROM pg_proc p, LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'sessauth'::regnamespace AND a.grantee = 0$$,
	'PUBLIC may call no function');
SELECT is_empty($$
	SELECT format('%s on %s', a.privilege_type, c.oid::regclass)
	FROM pg_class c, LATERAL aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND a.grantee = 0$$,
	'PUBLIC may touch no table, view or sequence');
SELECT is_empty($$
	SELECT a.privilege_type FROM pg_namespace n, LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
	WHERE n.nspname = 'sessauth' AND a.grantee = 0$$,
	'PUBLIC may not even look into the schema');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'sessauth'::regnamespace AND p.prosecdef$$,
	'no function is SECURITY DEFINER');

-- the second wall: row-level security
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)$$,
	'every table has row-level security, also for its owner');
SELECT is_empty($$
	SELECT format('%s on %s', p.polname, p.polrelid::regclass) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
	WHERE c.relnamespace = 'sessauth'::regnamespace AND p.polcmd <> 'r'$$,
	'no policy lets anybody write');
SELECT is_empty($$
	SELECT p.polname FROM pg_policy p WHERE p.polrelid = 'sessauth.secret'::regclass
	UNION ALL
	SELECT a.grantee::regrole::name FROM pg_attribute t, aclexplode(t.attacl) a
	WHERE t.attrelid = 'sessauth.signing_key'::regclass AND t.attname = 'sealed'$$,
	'no policy shows a secret, no grant a private key');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind = 'v'
		AND NOT coalesce(c.reloptions @> '{security_barrier=true}', false)$$,
	'every view is a security barrier');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind = 'v' AND current_setting('server_version_num')::int >= 150000
		AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false)$$,
	'every view is read with the rights of its reader');

-- the history writes itself, whatever a session sets
SELECT is_empty($$
	SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'sessauth'::regnamespace AND NOT t.tgisinternal AND t.tgenabled <> 'A'$$,
	'every trigger fires in replica mode, too');
SELECT set_eq($$
	SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = 'sessauth.record'::regproc$$,
	ARRAY['sessauth.tenant', 'sessauth.tenant_user', 'sessauth.session', 'sessauth.signing_key', 'sessauth.access', 'sessauth.mirror'],
	'every table with something to tell has its trigger');

SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname NOT IN ('ledger_state', 'mirror_state')
		AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'sessauth.refuse_truncate'::regproc)$$,
	'no table of data can be truncated');

-- grants reach as far as they say
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p
	WHERE p.pronamespace = 'sessauth'::regnamespace AND has_function_privilege('pgtap_node', p.oid, 'EXECUTE')
		AND p.proname IN ('issue_session', 'refresh_session', 'revoke_session', 'revoke_user', 'revoke_other_sessions', 'revoke_tenant',
			'create_tenant', 'set_policy', 'create_signing_key', 'grant_access', 'add_mirror', 'link_key', 'jwks', 'verify')$$,
	ARRAY['link_key', 'jwks', 'verify'], 'access "node" verifies and mints nothing');
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p
	WHERE p.pronamespace = 'sessauth'::regnamespace AND has_function_privilege('pgtap_service', p.oid, 'EXECUTE')
		AND p.proname IN ('create_tenant', 'set_policy', 'create_signing_key', 'grant_access', 'revoke_access', 'add_mirror', 'remove_mirror', 'link_key')$$,
	ARRAY[]::text[], 'access "service" administers nothing and never sees the link key');
SELECT is_empty($$
	SELECT r.rolname, c.oid::regclass, v.privilege
	FROM pg_class c, pg_roles r, unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) v(privilege)
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND r.rolname IN ('pgtap_service', 'pgtap_node')
		AND has_table_privilege(r.oid, c.oid, v.privilege)$$,
	'no access writes a table');

-- nothing without a word of explanation
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'sessauth'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL$$,
	'every function has a comment');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
		AND c.relname !~ '^event_\d{4}_\d{2}$' AND obj_description(c.oid, 'pg_class') IS NULL$$,
	'every table, view and sequence has a comment (but for the monthly partitions)');

SELECT * FROM finish();
ROLLBACK;

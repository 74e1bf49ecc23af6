-- default_privileges.sql
--		ALTER DEFAULT PRIVILEGES is no way in: neither for what CREATE EXTENSION
--		makes nor for partitions that are made later.
BEGIN;
SET search_path = public, pg_catalog;
SELECT plan(5);

CREATE ROLE pgtap_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO pgtap_stranger, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO pgtap_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO pgtap_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO pgtap_stranger;
SET LOCAL client_min_messages = warning;
DROP EXTENSION sessauth CASCADE;
DROP SCHEMA IF EXISTS sessauth;
CREATE EXTENSION sessauth;
SELECT ok(sessauth.create_tenant('pgtap_first') IS NOT NULL, 'the first write call makes partitions');
SELECT cmp_ok((SELECT count(*) FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass), '>=', 3::bigint, 'which are there');

SELECT is_empty($$
	SELECT c.oid::regclass, a.grantee, a.privilege_type FROM pg_class c, aclexplode(relacl) a
	WHERE relnamespace = 'sessauth'::regnamespace AND a.grantee <> relowner$$, 'nobody has a privilege on a table, view or sequence');
SELECT is_empty($$
	SELECT p.oid::regprocedure, a.grantee FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
	WHERE pronamespace = 'sessauth'::regnamespace AND a.grantee <> proowner$$, 'nor on a function');
SELECT is_empty($$
	SELECT a.grantee FROM pg_namespace n, aclexplode(nspacl) a WHERE nspname = 'sessauth' AND a.grantee <> nspowner$$, 'nor on the schema');

SELECT * FROM finish();
ROLLBACK;

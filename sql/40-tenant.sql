/* Chapter 40: tenants and their policies. C: src/ledger/tenant.c, src/ledger/policy.c. */

CREATE FUNCTION sessauth.create_tenant(tenant_id text, policy jsonb DEFAULT '{}') RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_create_tenant';
COMMENT ON FUNCTION sessauth.create_tenant(text, jsonb) IS
	'Creates a tenant; returns the policy in force; throws 42710 when it exists, 22023 for a bad id or policy';

CREATE FUNCTION sessauth.set_policy(tenant_id text, policy jsonb) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_set_policy';
COMMENT ON FUNCTION sessauth.set_policy(text, jsonb) IS
	'Replaces a tenant''s policy; returns the policy in force; throws 42704 for an unknown tenant, 22023 for a bad policy';

CREATE FUNCTION sessauth.drop_tenant(tenant_id text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_drop_tenant';
COMMENT ON FUNCTION sessauth.drop_tenant(text) IS
	'Ends every session of a tenant and removes its rows; the history stays, with one event for all of it; returns its id';

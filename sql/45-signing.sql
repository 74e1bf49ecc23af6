/* Chapter 45: signing keys and the link key. C: src/ledger/signing.c. */

CREATE FUNCTION sessauth.create_signing_key(alg text DEFAULT 'ES256') RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_create_signing_key';
COMMENT ON FUNCTION sessauth.create_signing_key(text) IS
	'Makes a key (ES256, EdDSA or RS256) that signs from now on; returns its kid; throws F0000 without a usable master key';

CREATE FUNCTION sessauth.jwks() RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_jwks';
COMMENT ON FUNCTION sessauth.jwks() IS 'The public keys whose tokens are good, as a JWK set (RFC 7517)';

CREATE FUNCTION sessauth.link_key() RETURNS bytea
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_link_key';
COMMENT ON FUNCTION sessauth.link_key() IS
	'The secret that authenticates worker and nodes to each other through Redis; for access "node"';

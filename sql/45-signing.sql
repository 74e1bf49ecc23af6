/* Chapter 45: signing keys and the link key. C: src/ledger/signing.c. */

CREATE FUNCTION sessauth.create_signing_key(alg text DEFAULT 'ES256') RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_create_signing_key';
COMMENT ON FUNCTION sessauth.create_signing_key(text) IS
	'Makes a key (ES256, EdDSA or RS256) that signs from now on; returns its kid; throws F0000 without a usable master key';

CREATE FUNCTION sessauth.rotate_signing_key(alg text DEFAULT NULL) RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_rotate_signing_key';
COMMENT ON FUNCTION sessauth.rotate_signing_key(text) IS
	'A new key signs from now on, of the same algorithm unless named; the keys before it are retired; returns its kid';

CREATE FUNCTION sessauth.retire_signing_key(kid text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_retire_signing_key';
COMMENT ON FUNCTION sessauth.retire_signing_key(text) IS
	'The key signs no more, its tokens stay good; returns the event id, null when retired or revoked already';

CREATE FUNCTION sessauth.revoke_signing_key(kid text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_signing_key';
COMMENT ON FUNCTION sessauth.revoke_signing_key(text) IS
	'Every token that the key signed stops at once, everywhere; returns the event id, null when revoked already';

CREATE FUNCTION sessauth.jwks() RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_jwks';
COMMENT ON FUNCTION sessauth.jwks() IS 'The public keys whose tokens are good, as a JWK set (RFC 7517)';

CREATE FUNCTION sessauth.link_key() RETURNS bytea
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_link_key';
COMMENT ON FUNCTION sessauth.link_key() IS
	'The secret that authenticates worker and nodes to each other through Redis; for access "node"';

CREATE POLICY readers ON sessauth.signing_key FOR SELECT USING ((SELECT sessauth.reads_all()));

CREATE VIEW sessauth.keys WITH (security_barrier) AS
	SELECT k.kid, k.alg,
		CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.retired_at IS NOT NULL THEN 'retired'
			WHEN k.kid = first_value(k.kid) OVER (PARTITION BY k.retired_at IS NULL AND k.revoked_at IS NULL
				ORDER BY k.created_at DESC, k.kid) THEN 'signing' ELSE 'published' END AS state,
		k.created_at, k.retired_at, k.revoked_at
	FROM sessauth.signing_key k
	WHERE (SELECT sessauth.reads_all())
	ORDER BY k.created_at DESC;
COMMENT ON VIEW sessauth.keys IS 'The signing keys and what each is good for, without secrets';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.keys SET (security_invoker = true);
	END IF;
END
$$;

/*
 * Chapter 05: the library behind the SQL. Calling it first makes CREATE
 * EXTENSION fail early, with a hint, on a server that has not preloaded it.
 */

CREATE FUNCTION sessauth.library_version() RETURNS text
	LANGUAGE C STABLE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_library_version';
COMMENT ON FUNCTION sessauth.library_version() IS 'Version of the loaded library; throws 55000 when it was not preloaded';

SELECT sessauth.library_version();

CREATE FUNCTION sessauth.valid_id(id text, max integer) RETURNS boolean
	LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_valid_id';
COMMENT ON FUNCTION sessauth.valid_id(text, integer) IS '1 to max bytes of UTF-8 without control characters';

CREATE FUNCTION sessauth.ledger_time() RETURNS timestamptz
	LANGUAGE C VOLATILE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_ledger_time';
COMMENT ON FUNCTION sessauth.ledger_time() IS
	'The wall clock, except that it never goes back while the server runs: tokens and revocations live by it';

/* Chapter 80: what a doctor would look at. C: src/ledger/status.c. */

CREATE FUNCTION sessauth.status(OUT check_name text, OUT state text, OUT detail text, OUT hint text) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_status';
COMMENT ON FUNCTION sessauth.status() IS
	'What is in order (ok), should be looked at (warning) and does not work (error), each with a hint; works on a standby and when other calls do not';

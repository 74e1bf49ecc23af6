/* sessauth: joined by the Makefile from the numbered chapters in sql/. */

\echo Use "CREATE EXTENSION sessauth" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

/* A schema that somebody else made beforehand may hold traps: functions that look like ours. */
DO $$
BEGIN
	IF (SELECT nspowner::regrole::text FROM pg_catalog.pg_namespace WHERE nspname = 'sessauth') <> quote_ident(current_user)
		OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = 'sessauth'::regnamespace)
		OR EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = 'sessauth'::regnamespace) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
			MESSAGE = 'schema "sessauth" exists already and is not an empty one of the installing role',
			HINT = 'Look at what is in it, then drop it or rename it.';
	END IF;
END
$$;

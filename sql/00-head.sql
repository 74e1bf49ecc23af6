/* sessauth 0.1: joined by the Makefile from the numbered chapters in sql/. */

\echo Use "CREATE EXTENSION sessauth" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

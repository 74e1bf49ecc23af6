/*
 * sessauth 0.1 to 0.2: what "ALTER EXTENSION sessauth UPDATE" runs.
 *
 * Whoever changes a chapter in sql/ makes the same change here, until this version is released: test/t/upgrade.t
 * updates a ledger of 0.1 with data in it and compares its catalog with a fresh one's, to the letter.
 *
 * - New columns come last, here and in the chapter: the order is part of the comparison. What applies to
 *   sessauth.event_default applies to the monthly partitions as well; pg_inherits has their names.
 * - Take privileges on what is new from PUBLIC by name, never ON ALL: PostgreSQL would take the grants to roles for the
 *   extension's own, and no dump would have them any more. Nothing is granted here; the library does that afterwards.
 */

\echo Use "ALTER EXTENSION sessauth UPDATE TO '0.2'" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

/* Every call takes a share of this lock before any other: what runs now can end, and nothing new comes in between. */
LOCK TABLE sessauth.ledger_state IN ACCESS EXCLUSIVE MODE;

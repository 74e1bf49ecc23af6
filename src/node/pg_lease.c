/*
 * pg_lease.c
 *		One call of sessauth.lease(), from the claim to what came of it.
 *
 * t0 is read before the statement leaves. Each row counts as soon as it is read, because a revocation is true for ever; the grant, which
 * is the last row, counts only when every row before it was understood and applied.
 */
#include "node/pg_lease.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/apply.h"
#include "node/pg_backlog.h"
#include "node/pg_row.h"

#define CALL_US		3000000

/* What the rows of a call said. */
typedef struct Rows
{
	bool		understood;
	bool		fit;
	bool		has_grant;
	LeaseGrant	grant;
	char		g[SA_UUID_SIZE];	/* of the numbered ones; empty: there were none */
	int64_t		first;
	int64_t		last;
} Rows;

static PgCursor claim_of(SessauthNode *node, const PgCursor *cursor, int64_t *told_at);
static bool apply_rows(SessauthNode *node, const PGresult *result, int64_t received, Rows *rows);
static bool note_number(const SaEntry *entry, Rows *rows);
static void advance(SessauthNode *node, const Rows *rows, PgCursor *cursor);

PgOutcome
pg_lease_call(SessauthNode *node, PGconn *conn, int wake_fd, PgCursor *cursor, char *why, size_t size)
{
	PgOutcome	outcome = {0};
	int64_t		told_at;
	PgCursor	claim = claim_of(node, cursor, &told_at);
	PgCursor	next;
	Rows		rows;
	char		staleness[32];
	char		n[24];
	char		at[24];
	const char *parameters[] = {node->id, staleness, claim.g[0] ? claim.g : NULL, n, told_at >= 0 ? at : NULL};
	int64_t		t0;
	int64_t		received;
	PGresult   *result;

	snprintf(staleness, sizeof(staleness), "%" PRId64 " ms", node->max_staleness / 1000);
	snprintf(n, sizeof(n), "%" PRId64, claim.n);
	snprintf(at, sizeof(at), "%" PRId64, told_at);
	t0 = clock_now();
	result = postgres_query(conn, wake_fd, t0 + CALL_US, PG_ROW_SELECT " FROM sessauth.lease($1, $2, $3, $4, $5)", 5, parameters,
							&outcome.broken, why, size);
	if (result == NULL)
		return outcome;
	received = clock_now();
	if (!apply_rows(node, result, received, &rows))
		snprintf(why, size, "out of memory");
	else if (!rows.understood)
		snprintf(why, size, "PostgreSQL: sessauth.lease() says what this version does not understand");
	else if (!rows.has_grant)
		snprintf(why, size, "PostgreSQL: no lease: does the worker run, and is max_staleness within sessauth.max_lease?");
	else if (!rows.fit || !apply_grant(node, &rows.grant, t0, received))
		snprintf(why, size, "the memory for revocations is full");
	else
		outcome.granted = true;
	PQclear(result);

	/* A grant ends the joining, or has shown that the node lacks something of what it claimed: then it begins anew. */
	if (rows.has_grant)
		memset(cursor, 0, sizeof(*cursor));
	else
	{
		advance(node, &rows, cursor);
		if (rows.understood && rows.fit && cursor->g[0] != '\0')
			pg_backlog_read(node, conn, wake_fd, cursor, &outcome.broken);
	}
	next = claim_of(node, cursor, &told_at);
	outcome.advanced = (outcome.granted || !rows.has_grant) && (strcmp(next.g, claim.g) != 0 || next.n > claim.n);
	return outcome;
}

void
pg_lease_end(SessauthNode *node, PGconn *conn, int64_t deadline)
{
	const char *parameters[] = {node->id};
	bool		broken;
	char		why[8];

	if (postgres_drain(conn, deadline))
		PQclear(postgres_query(conn, -1, deadline, "SELECT sessauth.end_lease($1)", 1, parameters, &broken, why, sizeof(why)));
}

/* The most that is true: inside a generation that the node has not joined yet, how far it has come there. And when that last entry was; -1: not known. */
static PgCursor
claim_of(SessauthNode *node, const PgCursor *cursor, int64_t *told_at)
{
	PgCursor	claim;
	int64_t		reach;

	many_readers_read(&node->known_lock);
	lease_position(&node->lease, claim.g, &claim.n);
	reach = coverage_reach(&node->lease.cover, cursor->g, cursor->n);
	if (cursor->g[0] != '\0' && (strcmp(cursor->g, claim.g) != 0 || reach > claim.n))
	{
		claim = *cursor;
		claim.n = reach;
	}
	*told_at = claim.n > 0 && claim.n == node->newest.n && strcmp(claim.g, node->newest.g) == 0 ? node->newest.at : -1;
	many_readers_end_read(&node->known_lock);
	return claim;
}

/* False when memory is short. */
static bool
apply_rows(SessauthNode *node, const PGresult *result, int64_t received, Rows *rows)
{
	SaEntry    *batch = malloc(sizeof(*batch) * APPLY_MAX);
	int			count = 0;

	memset(rows, 0, sizeof(*rows));
	if (batch == NULL)
		return false;
	rows->understood = PQnfields(result) == PG_ROW_COLUMNS;
	rows->fit = true;
	for (int r = 0; rows->understood && r < PQntuples(result); r++)
	{
		SaField		columns[PG_ROW_COLUMNS];
		PgRowKind	kind;

		for (int c = 0; c < PG_ROW_COLUMNS; c++)
			columns[c] = PQgetisnull(result, r, c) ? SA_FIELD(NULL, 0) :
				SA_FIELD(PQgetvalue(result, r, c), (size_t) PQgetlength(result, r, c));
		kind = rows->has_grant ? PG_ROW_BAD : pg_row_read(columns, &batch[count], &rows->grant);	/* nothing follows a grant */
		if (kind == PG_ROW_BAD)
			rows->understood = false;
		else if (kind == PG_ROW_GRANT)
			rows->has_grant = true;
		else
		{
			rows->understood = note_number(&batch[count], rows);
			count++;
		}
		if (count == APPLY_MAX)
		{
			(void) apply_entries(node, batch, count, received, &rows->fit);
			count = 0;
		}
	}
	(void) apply_entries(node, batch, count, received, &rows->fit);
	free(batch);
	return true;
}

/* Where the numbered rows are. False when they are not of one generation in order, which is how they come. */
static bool
note_number(const SaEntry *entry, Rows *rows)
{
	if (entry->g[0] == '\0')
		return true;
	if (rows->g[0] == '\0')
	{
		memcpy(rows->g, entry->g, sizeof(rows->g));
		rows->first = rows->last = entry->n;
		return true;
	}
	if (strcmp(rows->g, entry->g) != 0 || entry->n <= rows->last)
		return false;
	rows->last = entry->n;
	return true;
}

/* After a page that was not the last: the ledger began it with the first number that matters to this node. */
static void
advance(SessauthNode *node, const Rows *rows, PgCursor *cursor)
{
	int64_t		reach;

	if (rows->g[0] == '\0')
		return;
	many_readers_read(&node->known_lock);
	reach = coverage_first_missing(&node->lease.cover, rows->g, rows->first, rows->last) - 1;
	many_readers_end_read(&node->known_lock);
	if (reach < rows->first)
		return;
	memcpy(cursor->g, rows->g, sizeof(cursor->g));
	cursor->n = reach;
}

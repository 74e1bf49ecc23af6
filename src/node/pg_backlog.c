/*
 * pg_backlog.c
 *		What a node lacks, by the ten thousand, over PostgreSQL.
 *
 * The next ones are asked for before the last ones are applied, so that the server and the node work at the same time. Nothing is acknowledged by
 * that: only the claim of a lease says what the node has.
 */
#include "node/pg_backlog.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/apply.h"

#define STATEMENT	"SELECT last, packed FROM sessauth.revocations_packed($1, $2)"
#define READ_US		3000000

static bool ask(PGconn *conn, int wake_fd, const char *g, int64_t n);
static bool read_last(const PGresult *result, int64_t *last);
static bool apply_packed(SessauthNode *node, const PGresult *result, const char *g, int64_t n, int64_t last);

void
pg_backlog_read(SessauthNode *node, PGconn *conn, int wake_fd, PgCursor *cursor, bool *broken)
{
	char		why[200];		/* the next call of the lease meets the same trouble, and says it */
	bool		asked = ask(conn, wake_fd, cursor->g, cursor->n);
	bool		ok = true;

	*broken = !asked;
	while (asked)
	{
		PGresult   *result = postgres_receive(conn, wake_fd, clock_now() + READ_US, broken, why, sizeof(why));
		int64_t		last;

		asked = false;
		if (ok && result && read_last(result, &last) && last > cursor->n)
		{
			asked = ask(conn, wake_fd, cursor->g, last);
			*broken = !asked;
			ok = apply_packed(node, result, cursor->g, cursor->n, last);
			if (ok)
				cursor->n = last;
		}
		PQclear(result);
	}
}

static bool
ask(PGconn *conn, int wake_fd, const char *g, int64_t n)
{
	char		number[24];
	char		why[200];
	const char *parameters[] = {g, number};

	snprintf(number, sizeof(number), "%" PRId64, n);
	return postgres_send(conn, wake_fd, clock_now() + READ_US, STATEMENT, 2, parameters, true, why, sizeof(why));
}

static bool
read_last(const PGresult *result, int64_t *last)
{
	uint64_t	value;

	if (PQntuples(result) != 1 || PQnfields(result) != 2 || PQgetisnull(result, 0, 0) || PQgetisnull(result, 0, 1) ||
		PQgetlength(result, 0, 0) != sizeof(value))
		return false;
	memcpy(&value, PQgetvalue(result, 0, 0), sizeof(value));
	*last = (int64_t) be64toh(value);
	return true;
}

/* False when it is not exactly the entries n + 1 to last, or they do not fit. Those before the trouble are applied: they are true for ever. */
static bool
apply_packed(SessauthNode *node, const PGresult *result, const char *g, int64_t n, int64_t last)
{
	const char *at = PQgetvalue(result, 0, 1);
	const char *end = at + PQgetlength(result, 0, 1);
	SaEntry    *batch = malloc(sizeof(*batch) * APPLY_MAX);
	int64_t		received = clock_now();
	bool		understood = batch != NULL;
	bool		fit = true;
	int			count = 0;

	while (understood && n < last)
	{
		SaEntry    *entry = &batch[count];

		understood = sa_page_take(&at, end, entry);
		if (understood)
		{
			memcpy(entry->g, g, sizeof(entry->g));
			entry->n = ++n;
			count++;
		}
		if (count == APPLY_MAX || n == last || !understood)
		{
			(void) apply_entries(node, batch, count, received, &fit);
			count = 0;
		}
	}
	free(batch);
	return understood && fit && at == end;
}

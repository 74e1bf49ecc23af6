/*
 * test_pg_row.c
 *		Rows of sessauth.lease(): each kind is read, and what is not exactly a row is none.
 */
#include "node/pg_row.h"
#include "tap.h"

#define G		"aaaaaaaa-0000-4000-8000-000000000001"
#define SID		"11111111-2222-4333-8444-555555555555"

static SaEntry entry;
static LeaseGrant grant;
static const char *row[PG_ROW_COLUMNS];

static PgRowKind
read_row(void)
{
	SaField		columns[PG_ROW_COLUMNS];

	for (int i = 0; i < PG_ROW_COLUMNS; i++)
		columns[i] = row[i] ? SA_FIELD_STR(row[i]) : SA_FIELD(NULL, 0);
	return pg_row_read(columns, &entry, &grant);
}

static PgRowKind
read_with(const char *const *of, int column, const char *value)
{
	memcpy(row, of, sizeof(row));
	row[column] = value;
	return read_row();
}

/*										 kind		g	number	tenant	user	session	kid		epoch	event	at		until	low */
static const char *const session_row[] = {"session", G, "7", "acme", "alice", SID, NULL, NULL, "9", "1000", "2000", NULL};
static const char *const user_row[] = {"user", G, "8", "acme", "alice", NULL, NULL, "12", "9", "1000", "2000", NULL};
static const char *const tenant_row[] = {"tenant", G, "9", "acme", NULL, NULL, NULL, "13", "9", "1000", "2000", NULL};
static const char *const key_row[] = {"key", NULL, NULL, NULL, NULL, NULL, "k1", NULL, NULL, "1000", "2000", NULL};
static const char *const lease_row[] = {"lease", G, "20", NULL, NULL, NULL, NULL, NULL, NULL, "1000", NULL, "15"};

static void
test_kinds(void)
{
	ok(read_with(session_row, 0, "session") == PG_ROW_REVOCATION && entry.kind == SA_KIND_SESSION && strcmp(entry.g, G) == 0 && entry.n == 7 &&
	   strcmp(entry.tid, "acme") == 0 && strcmp(entry.uid, "alice") == 0 && strcmp(entry.sid, SID) == 0 && entry.kid[0] == '\0' &&
	   entry.epoch == 0 && entry.eid == 9 && entry.at == 1000 && entry.until == 2000, "a session, every column");
	ok(read_with(user_row, 0, "user") == PG_ROW_REVOCATION && entry.kind == SA_KIND_USER && entry.epoch == 12 && entry.sid[0] == '\0', "a user, with an epoch");
	ok(read_with(tenant_row, 0, "tenant") == PG_ROW_REVOCATION && entry.kind == SA_KIND_TENANT && entry.epoch == 13 && entry.uid[0] == '\0', "a tenant");
	ok(read_with(key_row, 0, "key") == PG_ROW_REVOCATION && entry.kind == SA_KIND_KEY && strcmp(entry.kid, "k1") == 0 && entry.g[0] == '\0' && entry.n == 0,
	   "a key, here without a number");
	ok(read_with(lease_row, 0, "lease") == PG_ROW_GRANT && strcmp(grant.g, G) == 0 && grant.n == 20 && grant.low == 15 && grant.at == 1000, "the lease");
	ok(read_with(lease_row, 11, "21") == PG_ROW_GRANT, "where nothing matters any more, low is behind the last number");
}

static void
refuse(const char *const *of, int column, const char *value, const char *what)
{
	ok(read_with(of, column, value) == PG_ROW_BAD, "refused: %s", what);
}

static void
test_refused(void)
{
	char		text[300];

	refuse(session_row, 0, NULL, "no kind");
	refuse(session_row, 0, "beat", "a beat");
	refuse(session_row, 0, "Session", "a kind that does not exist");
	refuse(session_row, 1, NULL, "a number without a generation");
	refuse(session_row, 2, NULL, "a generation without a number");
	refuse(session_row, 2, "0", "the number 0");
	refuse(session_row, 2, "-7", "a negative number");
	refuse(session_row, 2, "7.0", "a fraction");
	refuse(session_row, 2, "9223372036854775808", "a number that does not fit");
	refuse(session_row, 1, "AAAAAAAA-0000-4000-8000-000000000001", "a generation in another form");
	refuse(session_row, 3, NULL, "a session without a tenant");
	refuse(session_row, 4, "", "a session without a user");
	refuse(session_row, 4, "a\nb", "control characters");
	refuse(session_row, 4, "\xff", "bytes that are no UTF-8");
	refuse(session_row, 5, NULL, "a session without its id");
	refuse(session_row, 5, "x", "an id that is none");
	refuse(session_row, 6, "k", "a session with a key");
	refuse(session_row, 7, "1", "a session with an epoch");
	refuse(session_row, 9, NULL, "no time");
	refuse(session_row, 10, NULL, "no end");
	refuse(session_row, 10, "-1", "an end before 1970");
	refuse(session_row, 11, "1", "low where it has no place");
	refuse(user_row, 5, SID, "a user with a session");
	refuse(tenant_row, 4, "alice", "a tenant with a user");
	refuse(key_row, 3, "acme", "a key with a tenant");
	refuse(key_row, 6, NULL, "a key without its id");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	refuse(user_row, 4, text, "a user that is too long");
	refuse(user_row, 3, text, "a tenant that is too long");
	refuse(key_row, 6, text, "a key id that is too long");
	refuse(lease_row, 1, NULL, "a lease without a generation");
	refuse(lease_row, 2, NULL, "a lease without a number");
	refuse(lease_row, 9, NULL, "a lease without a time");
	refuse(lease_row, 11, NULL, "a lease without low");
	refuse(lease_row, 11, "0", "a low of 0");
	refuse(lease_row, 11, "22", "a low beyond what it could be");
	refuse(lease_row, 3, "acme", "a lease of a tenant");
	refuse(lease_row, 10, "2000", "a lease with an end");
}

static void
test_nul(void)
{
	SaField		columns[PG_ROW_COLUMNS];

	for (int i = 0; i < PG_ROW_COLUMNS; i++)
		columns[i] = user_row[i] ? SA_FIELD_STR(user_row[i]) : SA_FIELD(NULL, 0);
	columns[4] = SA_FIELD("ali\0ce", 6);
	ok(pg_row_read(columns, &entry, &grant) == PG_ROW_BAD, "refused: a user with a NUL inside");
}

int
main(void)
{
	test_kinds();
	test_refused();
	test_nul();
	return tap_done();
}

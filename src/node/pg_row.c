/*
 * pg_row.c
 *		One row of sessauth.lease(), as text.
 *
 * The server is trusted, but it may be of another version, and what is behind the name may be somebody else's function. So a
 * row that is not exactly what it should be is none: then the call proves nothing.
 */
#include "node/pg_row.h"

#include <string.h>

enum
{
	C_KIND, C_G, C_NUMBER, C_TENANT, C_USER, C_SESSION, C_KID, C_EPOCH, C_EVENT, C_AT, C_UNTIL, C_LOW
};

static bool text(const SaField *column, char *out, size_t size);
static bool number(const SaField *column, int64_t *out);
static bool uuid(const SaField *column, char out[SA_UUID_SIZE]);
static bool is_null(const SaField *columns, int from, int to);
static bool read_grant(const SaField *columns, LeaseGrant *grant);
static bool read_revocation(const SaField *columns, SaEntry *entry);

PgRowKind
pg_row_read(const SaField columns[PG_ROW_COLUMNS], SaEntry *entry, LeaseGrant *grant)
{
	const SaField *kind = &columns[C_KIND];

	if (kind->data == NULL)
		return PG_ROW_BAD;
	if (kind->len == strlen("lease") && memcmp(kind->data, "lease", kind->len) == 0)
		return read_grant(columns, grant) ? PG_ROW_GRANT : PG_ROW_BAD;
	return read_revocation(columns, entry) ? PG_ROW_REVOCATION : PG_ROW_BAD;
}

static bool
read_grant(const SaField *columns, LeaseGrant *grant)
{
	memset(grant, 0, sizeof(*grant));
	return uuid(&columns[C_G], grant->g) && grant->g[0] != '\0' &&
		columns[C_NUMBER].data && number(&columns[C_NUMBER], &grant->n) &&
		columns[C_LOW].data && number(&columns[C_LOW], &grant->low) &&
		columns[C_AT].data && number(&columns[C_AT], &grant->at) &&
		grant->low >= 1 && grant->low - 1 <= grant->n &&
		is_null(columns, C_TENANT, C_EVENT) && is_null(columns, C_UNTIL, C_UNTIL);
}

static bool
read_revocation(const SaField *columns, SaEntry *entry)
{
	memset(entry, 0, sizeof(*entry));
	return sa_kind_parse(columns[C_KIND].data, columns[C_KIND].len, &entry->kind) &&
		uuid(&columns[C_G], entry->g) &&
		number(&columns[C_NUMBER], &entry->n) && (entry->g[0] == '\0') == (columns[C_NUMBER].data == NULL) &&
		(entry->g[0] == '\0' || entry->n >= 1) &&
		text(&columns[C_TENANT], entry->tid, sizeof(entry->tid)) &&
		text(&columns[C_USER], entry->uid, sizeof(entry->uid)) &&
		uuid(&columns[C_SESSION], entry->sid) &&
		text(&columns[C_KID], entry->kid, sizeof(entry->kid)) &&
		number(&columns[C_EPOCH], &entry->epoch) &&
		number(&columns[C_EVENT], &entry->eid) &&
		columns[C_AT].data && number(&columns[C_AT], &entry->at) &&
		columns[C_UNTIL].data && number(&columns[C_UNTIL], &entry->until) &&
		is_null(columns, C_LOW, C_LOW) &&
		sa_revocation_valid(entry);
}

/* Null is empty. */
static bool
text(const SaField *column, char *out, size_t size)
{
	if (column->len >= size || (column->len > 0 && memchr(column->data, '\0', column->len)))
		return false;
	if (column->len > 0)
		memcpy(out, column->data, column->len);
	out[column->len] = '\0';
	return true;
}

/* Null is 0. */
static bool
number(const SaField *column, int64_t *out)
{
	*out = 0;
	return column->data == NULL || sa_number_parse(column->data, column->len, out);
}

/* Null is empty. */
static bool
uuid(const SaField *column, char out[SA_UUID_SIZE])
{
	unsigned char bytes[16];

	return column->data == NULL || (sa_uuid_decode(column->data, column->len, bytes) && text(column, out, SA_UUID_SIZE));
}

static bool
is_null(const SaField *columns, int from, int to)
{
	for (int i = from; i <= to; i++)
		if (columns[i].data != NULL)
			return false;
	return true;
}

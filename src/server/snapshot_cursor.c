/*
 * snapshot_cursor.c
 *		A position in the history: everything that was visible in a snapshot.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/xid8.h"

#include "server/snapshot_cursor.h"

static uint64 number(const char **text, char end);
static int	add_range(Datum *first, Datum *last, int count, uint64 a, uint64 b);
static bool in_progress(const SnapshotCursor *cursor, uint64 xid);
static Datum xid8_array(Datum *xids, int count);

SnapshotCursor *
snapshot_cursor_make(const char *text)
{
	size_t		len = strlen(text);
	size_t		room = 1;
	const char *p = text;
	SnapshotCursor *cursor;
	char	   *copy;

	for (const char *c = text; *c; c++)
		room += *c == ',';
	cursor = palloc0(offsetof(SnapshotCursor, xip) + room * sizeof(uint64) + len + 1);
	copy = (char *) &cursor->xip[room];
	memcpy(copy, text, len + 1);
	cursor->text = copy;

	(void) number(&p, ':');		/* xmin: the first of xip, or xmax */
	cursor->xmax = number(&p, ':');
	while (*p)
		cursor->xip[cursor->nxip++] = number(&p, ',');
	return cursor;
}

/* Reads digits up to the end character or the end of the text, and steps over it. */
static uint64
number(const char **text, char end)
{
	uint64		value = 0;
	const char *p = *text;

	while (*p >= '0' && *p <= '9')
		value = value * 10 + (*p++ - '0');
	if (p == *text || (*p != end && *p != '\0'))
		elog(ERROR, "invalid snapshot");
	*text = *p == '\0' ? p : p + 1;
	return value;
}

int
snapshot_cursor_ranges(const SnapshotCursor *from, const SnapshotCursor *to, Datum *first, Datum *last)
{
	int			room = from->nxip + to->nxip + 1;
	Datum	   *firsts = palloc(sizeof(Datum) * room);
	Datum	   *lasts = palloc(sizeof(Datum) * room);
	uint64		next = from->xmax;
	int			count = 0;

	for (int i = 0; i < from->nxip; i++)
		if (from->xip[i] < to->xmax && !in_progress(to, from->xip[i]))
			count = add_range(firsts, lasts, count, from->xip[i], from->xip[i]);
	for (int i = 0; i < to->nxip; i++)
	{
		if (to->xip[i] < next)
			continue;
		count = add_range(firsts, lasts, count, next, to->xip[i] - 1);
		next = to->xip[i] + 1;
	}
	if (to->xmax > next)
		count = add_range(firsts, lasts, count, next, to->xmax - 1);

	*first = xid8_array(firsts, count);
	*last = xid8_array(lasts, count);
	return count;
}

static int
add_range(Datum *first, Datum *last, int count, uint64 a, uint64 b)
{
	if (a > b)
		return count;
	first[count] = FullTransactionIdGetDatum(FullTransactionIdFromU64(a));
	last[count] = FullTransactionIdGetDatum(FullTransactionIdFromU64(b));
	return count + 1;
}

static bool
in_progress(const SnapshotCursor *cursor, uint64 xid)
{
	for (int i = 0; i < cursor->nxip; i++)
		if (cursor->xip[i] == xid)
			return true;
	return false;
}

static Datum
xid8_array(Datum *xids, int count)
{
	return PointerGetDatum(construct_array(xids, count, XID8OID, sizeof(FullTransactionId), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

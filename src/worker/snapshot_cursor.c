/*
 * snapshot_cursor.c
 *		A position in the history: everything that was visible in a snapshot.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/xid8.h"

#include "worker/snapshot_cursor.h"

static uint64 number(const char **text, char end);

SnapshotCursor *
snapshot_cursor_make(const char *text)
{
	size_t		len = strlen(text);
	size_t		count = 0;
	Size		array_size;
	const char *p = text;
	SnapshotCursor *cursor;
	FullTransactionId *xip;

	for (const char *c = text; *c; c++)
		count += *c == ',';
	count++;					/* room for all of the list; it may be empty */

	array_size = ARR_OVERHEAD_NONULLS(1) + count * sizeof(FullTransactionId);
	cursor = palloc0(MAXALIGN(sizeof(SnapshotCursor)) + MAXALIGN(array_size) + len + 1);
	cursor->xip = (ArrayType *) ((char *) cursor + MAXALIGN(sizeof(SnapshotCursor)));
	cursor->text = (char *) cursor->xip + MAXALIGN(array_size);
	memcpy(cursor->text, text, len + 1);

	(void) number(&p, ':');
	cursor->xmax = number(&p, ':');

	xip = (FullTransactionId *) ((char *) cursor->xip + ARR_OVERHEAD_NONULLS(1));
	count = 0;
	while (*p)
		xip[count++] = FullTransactionIdFromU64(number(&p, ','));

	SET_VARSIZE(cursor->xip, ARR_OVERHEAD_NONULLS(1) + count * sizeof(FullTransactionId));
	cursor->xip->ndim = 1;
	cursor->xip->dataoffset = 0;
	cursor->xip->elemtype = XID8OID;
	ARR_DIMS(cursor->xip)[0] = count;
	ARR_LBOUND(cursor->xip)[0] = 1;
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

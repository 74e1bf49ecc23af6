/*
 * marks.h
 *		Since when everything up to a number was somewhere.
 *
 * Only the last ones are kept, and fewer the older they are: they say how long something took, and decide nothing.
 */
#ifndef SESSAUTH_WORKER_MARKS_H
#define SESSAUTH_WORKER_MARKS_H

#include "core/encoding.h"
#include "datatype/timestamp.h"

#define MARKS_MAX 256

typedef struct Mark
{
	int64		n;
	TimestampTz at;
} Mark;

/* All zero: none. */
typedef struct Marks
{
	char		generation[SA_UUID_SIZE];
	int			count;
	Mark		marks[MARKS_MAX];	/* ascending */
} Marks;

extern void marks_add(Marks *marks, const char *generation, int64 n, TimestampTz at);

/* Nobody asks for numbers up to this one any more. */
extern void marks_forget(Marks *marks, int64 upto);

/* How many there are of that generation. */
extern int	marks_count(const Marks *marks, const char *generation);

#endif							/* SESSAUTH_WORKER_MARKS_H */

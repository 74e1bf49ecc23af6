/*
 * marks.c
 *		Since when everything up to a number was somewhere. See marks.h.
 */
#include "postgres.h"

#include "worker/marks.h"

void
marks_add(Marks *marks, const char *generation, int64 n, TimestampTz at)
{
	if (strcmp(marks->generation, generation) != 0)
	{
		strlcpy(marks->generation, generation, sizeof(marks->generation));
		marks->count = 0;
	}
	if (marks->count > 0 && marks->marks[marks->count - 1].n >= n)
		return;
	if (marks->count == MARKS_MAX)
	{
		for (int i = 0; i < MARKS_MAX / 2; i++)
			marks->marks[i] = marks->marks[2 * i + 1];
		marks->count = MARKS_MAX / 2;
	}
	marks->marks[marks->count++] = (Mark) {n, at};
}

void
marks_forget(Marks *marks, int64 upto)
{
	int			kept = 0;

	for (int i = 0; i < marks->count; i++)
		if (marks->marks[i].n > upto)
			marks->marks[kept++] = marks->marks[i];
	marks->count = kept;
}

int
marks_count(const Marks *marks, const char *generation)
{
	return strcmp(marks->generation, generation) == 0 ? marks->count : 0;
}

/*
 * lease_book.c
 *		What one node has been promised, and what it has acknowledged. See lease_book.h.
 */
#include "postgres.h"

#include "server/lease_book.h"

static void drop_over(LeaseBook *book, int64_t now);
static void turn(LeaseBook *book, const char *g);
static void make_room(LeaseBook *book);

/* An old acknowledgement may be replayed: it says less than what is here already. */
void
lease_book_acknowledge(LeaseBook *book, const char *g, int64_t n)
{
	if (strcmp(book->generation, g) != 0)
	{
		strlcpy(book->generation, g, sizeof(book->generation));
		book->acknowledged = n;
	}
	book->acknowledged = Max(book->acknowledged, n);
}

void
lease_book_promise(LeaseBook *book, const char *g, int64_t n, int64_t now, int64_t until)
{
	drop_over(book, now);
	if (strcmp(book->leased, g) != 0)
		turn(book, g);
	while (book->count > 0 && book->lines[book->count - 1].n >= n)
	{
		book->count--;
		until = Max(until, book->lines[book->count].until);
	}
	if (book->count == LEASE_LINES)
		make_room(book);
	book->lines[book->count++] = (LeaseLine) {n, until};
}

bool
lease_book_is_out(LeaseBook *book, int64_t now)
{
	drop_over(book, now);
	return book->count > 0;
}

int64_t
lease_book_held_back_from(LeaseBook *book, const char *g, int64_t n, int64_t now)
{
	/* Who knows more than there is knows something else. */
	int64_t		acknowledged = strcmp(book->generation, g) == 0 && book->acknowledged <= n ? book->acknowledged : 0;

	drop_over(book, now);
	if (book->count == 0)
		return HOLDS_NOTHING;
	if (strcmp(book->leased, g) != 0)
		return acknowledged;
	return Max(acknowledged, book->lines[0].n);
}

/* Not every lease is as long as the one before: what lacks least need not be over last. */
static void
drop_over(LeaseBook *book, int64_t now)
{
	int			kept = 0;

	for (int i = 0; i < book->count; i++)
		if (book->lines[i].until > now)
			book->lines[kept++] = book->lines[i];
	book->count = kept;
}

/* Leases of another generation lack all of this one. */
static void
turn(LeaseBook *book, const char *g)
{
	for (int i = 0; i < book->count; i++)
	{
		book->lines[0].until = Max(book->lines[0].until, book->lines[i].until);
		book->lines[0].n = 0;
	}
	book->count = Min(book->count, 1);
	strlcpy(book->leased, g, sizeof(book->leased));
}

static void
make_room(LeaseBook *book)
{
	for (int i = 0; i < LEASE_LINES / 2; i++)
	{
		book->lines[i].n = book->lines[2 * i].n;
		book->lines[i].until = Max(book->lines[2 * i].until, book->lines[2 * i + 1].until);
	}
	book->count = LEASE_LINES / 2;
}

/*
 * lease_book.h
 *		What one node has been promised, and what it has acknowledged.
 *
 * What must never happen is that a node seems to hold nothing back while it may decide without some revocation. So every
 * lease is entered before it can reach the node, and where room is short two of them become one that lacks as much as
 * either, for as long as both.
 */
#ifndef SESSAUTH_SERVER_LEASE_BOOK_H
#define SESSAUTH_SERVER_LEASE_BOOK_H

#include "core/encoding.h"

/* Until when a node may decide without what is above n. */
typedef struct LeaseLine
{
	int64_t		n;
	int64_t		until;			/* ms of clock_boot() */
} LeaseLine;

#define LEASE_LINES 16

/* How long a lease may last by this machine's clock, should it run slower than the node's. */
#define LEASE_WITH_MARGIN(ms)	((ms) + (ms) / 64 + 50)

#define FORGET_LEASES	10		/* a node that is silent for so many times sessauth.max_lease is forgotten */

/* All zero: nothing yet. */
typedef struct LeaseBook
{
	char		generation[SA_UUID_SIZE];	/* of the number that it has acknowledged */
	int64_t		acknowledged;
	int			count;
	LeaseLine	lines[LEASE_LINES];	/* ascending by n; n says nothing in another generation than leased */
	char		leased[SA_UUID_SIZE];
} LeaseBook;

#define HOLDS_NOTHING	INT64_MAX

/* It has applied everything of g up to n. */
extern void lease_book_acknowledge(LeaseBook *book, const char *g, int64_t n);

/* A lease until then is about to be given, with everything of g up to n. */
extern void lease_book_promise(LeaseBook *book, const char *g, int64_t n, int64_t now, int64_t until);

/* There may be a lease at the node. */
extern bool lease_book_is_out(LeaseBook *book, int64_t now);

/* The highest number of g that this node does not hold back; HOLDS_NOTHING when it has no lease. */
extern int64_t lease_book_held_back_from(LeaseBook *book, const char *g, int64_t n, int64_t now);

#endif							/* SESSAUTH_SERVER_LEASE_BOOK_H */

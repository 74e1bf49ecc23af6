/*
 * rows.h
 *		Single rows of the ledger's tables by primary key, without a statement.
 *
 * What every login, refresh, check and revocation does with one row goes
 * through here: found, locked, inserted or updated by the same calls that the executor makes, with the
 * same triggers and constraints, but with no plan to set up and tear down. The caller must
 * have authorised the role: no privileges and no row-level security are checked.
 */
#ifndef SESSAUTH_LEDGER_ROWS_H
#define SESSAUTH_LEDGER_ROWS_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define ROW_COLUMNS_MAX 24

/*
 * A table of the schema sessauth, and those of its columns that its users
 * name, by their position here. The key comes first: one or two columns of text, uuid or boolean.
 */
typedef struct LedgerTable
{
	const char *name;
	const char *columns[ROW_COLUMNS_MAX + 1];	/* NULL ends it */
	int			nkeys;

	/* Of this process; zero at first. */
	Oid			relid;
	AttrNumber	attnums[ROW_COLUMNS_MAX];
} LedgerTable;

/* A row as it was found. Lives in the memory context of the call. */
typedef struct LedgerRow
{
	const LedgerTable *table;
	TupleDesc	desc;
	HeapTuple	tuple;
} LedgerRow;

/* What the snapshot shows; false when there is no such row. */
extern bool row_find(LedgerTable *table, Snapshot snapshot, const Datum *keys, LedgerRow *out);

/*
 * Locks the newest version until the transaction ends, waiting for whoever holds it, and gives it. False when there is none,
 * or when it was deleted meanwhile.
 */
extern bool row_lock(LedgerTable *table, const Datum *keys, LedgerRow *out);

/* Columns that the table does not name are null. Triggers fire, constraints hold; the next snapshot sees it. */
extern void row_insert(LedgerTable *table, const Datum *values, const bool *nulls);

/* Changes columns of a row that row_lock gave; those whose "change" is false stay. The key never changes. */
extern void row_update(LedgerTable *table, const LedgerRow *row, const Datum *values, const bool *nulls, const bool *change);

/*
 * Inserts into the partition that the value of column "by" (a timestamptz) belongs to. Neither constraints are checked nor
 * triggers fired: for rows that the ledger makes itself.
 */
extern void row_append(LedgerTable *table, int by, const Datum *values, const bool *nulls);

/* Columns of a row that was found. */
extern Datum ledger_row_datum(const LedgerRow *row, int column, bool *isnull);
extern int64 ledger_row_int8(const LedgerRow *row, int column);	/* 0 when null */
extern bool ledger_row_is_null(const LedgerRow *row, int column);
extern char *ledger_row_text(const LedgerRow *row, int column);	/* palloc'ed; NULL when null */

/* nextval of a sequence of the schema. */
extern int64 sequence_next(const char *name);

#endif							/* SESSAUTH_LEDGER_ROWS_H */

/*
 * worker_tx.h
 *		A transaction of the worker, and statements in it.
 */
#ifndef SESSAUTH_WORKER_WORKER_TX_H
#define SESSAUTH_WORKER_WORKER_TX_H

#include "executor/spi.h"
#include "utils/timestamp.h"

#include "server/extension.h"

typedef enum WorkerTx
{
	WORKER_TX_OPEN,
	WORKER_TX_BUSY,				/* somebody is changing the extension: try again later */
	WORKER_TX_ABSENT,			/* the database has no extension (any more) */
	WORKER_TX_OTHER_VERSION		/* its SQL is of another version than this library */
} WorkerTx;

/*
 * Begins a transaction with one snapshot for all its statements, as the
 * extension's owner, with SPI connected. Unless the result is WORKER_TX_OPEN nothing is open.
 */
extern WorkerTx worker_tx_begin(void);

/* The extension as the last transaction found it. */
extern const Extension *worker_tx_extension(void);

/* The same with a snapshot for each statement, and a lock_timeout in ms: for what waits for nobody, and may find a row changed. */
extern WorkerTx worker_tx_begin_upkeep(int lock_timeout);

/* Commits. If it has written anything, all that it has seen is durable when this returns. */
extern void worker_tx_commit(void);

/* After an error: aborts and forgets it. The caller has switched out of ErrorContext. */
extern void worker_tx_abort(void);

/* In PG_CATCH: logs the error, unless it is the same as in "told" already, and aborts. */
extern void worker_tx_failed(const char *what, char told[256]);

/*
 * A statement that is planned once per process. Declare it static. Returns
 * SPI_processed; rows are in SPI_tuptable until the next one.
 */
#define WORKER_ARGS_MAX 10
typedef struct WorkerQuery
{
	const char *sql;
	int			nargs;
	Oid			types[WORKER_ARGS_MAX];
	SPIPlanPtr	plan;
} WorkerQuery;

extern uint64 worker_query(WorkerQuery *query, const Datum *values, const bool *nulls);

/* Column "column" (from 1) of row "row" (from 0). */
extern bool row_isnull(uint64 row, int column);
extern Datum row_datum(uint64 row, int column); /* 0 when null */
extern int64 row_int8(uint64 row, int column);	/* 0 when null */
extern int64 row_unix_ms(uint64 row, int column);	/* of a timestamptz; 0 when null */

/* Text, or "" when null; the first also when it does not fit, the second copies into the current context. */
extern void row_copy_text(uint64 row, int column, char *out, size_t size);
extern char *row_text(uint64 row, int column);

extern int64 unix_ms(TimestampTz t);

#endif							/* SESSAUTH_WORKER_WORKER_TX_H */

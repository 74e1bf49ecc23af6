/*
 * detail.h
 *		What a change was, for the history.
 */
#ifndef SESSAUTH_LEDGER_DETAIL_H
#define SESSAUTH_LEDGER_DETAIL_H

#include "access/htup.h"
#include "access/tupdesc.h"

/*
 * {"before": {…}, "after": {…}} as a jsonb: of an UPDATE the columns that differ, of an INSERT
 * (old is NULL) only "after", of a DELETE (new is NULL) only "before", each without nulls and without what the
 * event's own columns say. palloc'ed; 0 when there is nothing to tell. Never contains a hash, salt, key or claim.
 */
extern Datum change_detail(TupleDesc desc, HeapTuple old, HeapTuple new);

#endif							/* SESSAUTH_LEDGER_DETAIL_H */

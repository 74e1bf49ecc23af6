/*
 * rowset.h
 *		The result of a function that returns a set of rows.
 */
#ifndef SESSAUTH_SERVER_ROWSET_H
#define SESSAUTH_SERVER_ROWSET_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/tuplestore.h"

/*
 * Rows put into the tuplestore (tuplestore_putvalues) are what the function returns, which itself returns 0. Throws
 * ERRCODE_FEATURE_NOT_SUPPORTED where a set cannot be returned; "columns" must be how many the function is declared with.
 */
extern Tuplestorestate *rowset_begin(FunctionCallInfo fcinfo, int columns, TupleDesc *desc);

#endif							/* SESSAUTH_SERVER_ROWSET_H */

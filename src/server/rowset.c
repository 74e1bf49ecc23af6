/*
 * rowset.c
 *		See rowset.h.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"

#include "server/rowset.h"

Tuplestorestate *
rowset_begin(FunctionCallInfo fcinfo, int columns, TupleDesc *desc)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;
	Tuplestorestate *rows;

	if (info == NULL || !IsA(info, ReturnSetInfo) || !(info->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set"),
				 errhint("Call it in FROM.")));
	old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, desc) != TYPEFUNC_COMPOSITE || (*desc)->natts != columns)
		elog(ERROR, "sessauth: the function's result type is not what the library was built for");
	rows = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0, false, work_mem);
	info->returnMode = SFRM_Materialize;
	info->setResult = rows;
	info->setDesc = *desc;
	MemoryContextSwitchTo(old);
	return rows;
}

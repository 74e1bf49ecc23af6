/*
 * reach.c
 *		The range of tenants that a role may read, as something an index can use.
 *
 * Row security as a mere filter would let a reader of one tenant ask an index for
 * another one's rows, and tell by the time, or by EXPLAIN (ANALYZE), how many it threw away. A range
 * that contradicts the question is noticed before the index is searched. It comes by way of a function whose planner
 * support makes it, because a range written out would make the planner expect far too few rows.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "parser/parse_func.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "core/token.h"
#include "ledger/ledger.h"

#define BOUND_TIMES 8

/* Of one query. */
typedef struct Reach
{
	bool		any;
	char		first[SA_TENANT_ID_MAX + 8];
	char		last[SA_TENANT_ID_MAX + 8];
} Reach;

static void find_reach(Reach *out);
static Datum bound(const Reach *reach, const char *value);
static Expr *comparison(SupportRequestIndexCondition *request, StrategyNumber strategy, const char *name);

PG_FUNCTION_INFO_V1(sessauth_reads_from);

/* reads_from() → text[]: the first tenant that the current user may read, several times; empty when there is none. For policies. */
Datum
sessauth_reads_from(PG_FUNCTION_ARGS)
{
	Reach		reach;

	find_reach(&reach);
	return bound(&reach, reach.first);
}

PG_FUNCTION_INFO_V1(sessauth_reads_to);

/* reads_to() → text[]: the last one. */
Datum
sessauth_reads_to(PG_FUNCTION_ARGS)
{
	Reach		reach;

	find_reach(&reach);
	return bound(&reach, reach.last);
}

/* Several times the same: the planner takes it for that many chances, and so expects that hardly a row is outside. */
static Datum
bound(const Reach *reach, const char *value)
{
	Datum		elements[BOUND_TIMES];

	for (int i = 0; reach->any && i < BOUND_TIMES; i++)
		elements[i] = CStringGetTextDatum(value);
	return PointerGetDatum(construct_array(elements, reach->any ? BOUND_TIMES : 0, TEXTOID, -1, false, TYPALIGN_INT));
}

PG_FUNCTION_INFO_V1(sessauth_in_reach);

/* in_reach(tenant) → boolean. Says what the index conditions that are made of it say, no more and no less. */
Datum
sessauth_in_reach(PG_FUNCTION_ARGS)
{
	Reach	   *reach = fcinfo->flinfo->fn_extra;
	const char *bytes;
	size_t		len;
	int			order;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	bytes = VARDATA_ANY(PG_GETARG_TEXT_PP(0));
	len = VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0));
	if (reach == NULL)
	{
		reach = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(Reach));
		find_reach(reach);
		fcinfo->flinfo->fn_extra = reach;
	}
	if (!reach->any)
		PG_RETURN_BOOL(false);
	order = memcmp(bytes, reach->first, Min(len, strlen(reach->first)));
	if (order < 0 || (order == 0 && len < strlen(reach->first)))
		PG_RETURN_BOOL(false);
	order = memcmp(bytes, reach->last, Min(len, strlen(reach->last)));
	PG_RETURN_BOOL(order < 0 || (order == 0 && len <= strlen(reach->last)));
}

static void
find_reach(Reach *out)
{
	const char *first = "";
	const char *last;
	char		beyond[sizeof(out->last)] = "";

	/* Longer than an id, of the greatest character that the encoding is sure to have. */
	for (int i = 0; i < SA_TENANT_ID_MAX + 4; i += 4)
		memcpy(beyond + i, GetDatabaseEncoding() == PG_UTF8 ? "\xF4\x8F\xBF\xBF" : "\xFF\xFF\xFF\xFF", 4);

	last = beyond;
	out->any = access_is_unlimited(GetUserId(), ACCESS_AUDITOR) ||
		access_range(GetUserId(), ACCESS_AUDITOR | ACCESS_TENANT_ADMIN, &first, &last);
	if (!out->any)
		return;
	strlcpy(out->first, first, sizeof(out->first));
	strlcpy(out->last, last, sizeof(out->last));
}

PG_FUNCTION_INFO_V1(sessauth_in_reach_support);

/* in_reach_support(internal) → internal: the planner asks; see nodes/supportnodes.h. */
Datum
sessauth_in_reach_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	/* Whoever reads asks for rows that he may read. */
	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}

	/* For somebody who may read everything, the range would be a detour. */
	if (IsA(request, SupportRequestIndexCondition) && !access_is_unlimited(GetUserId(), ACCESS_AUDITOR))
	{
		SupportRequestIndexCondition *index = (SupportRequestIndexCondition *) request;
		Expr	   *from = comparison(index, BTGreaterEqualStrategyNumber, "reads_from");
		Expr	   *to = comparison(index, BTLessEqualStrategyNumber, "reads_to");

		if (from != NULL && to != NULL)
		{
			index->lossy = true;	/* the function is asked again: that costs little */
			PG_RETURN_POINTER(list_make2(from, to));
		}
	}
	PG_RETURN_POINTER(NULL);
}

/* "tenant_id >= ANY (reads_from())" and the like; NULL when the index has no such operator, or another order. */
static Expr *
comparison(SupportRequestIndexCondition *request, StrategyNumber strategy, const char *name)
{
	Oid			operator = get_opfamily_member(request->opfamily, TEXTOID, TEXTOID, strategy);
	ScalarArrayOpExpr *result;
	Oid			function;

	if (!OidIsValid(operator) || request->indexcollation != C_COLLATION_OID || request->indexarg != 0 || !is_funcclause(request->node))
		return NULL;
	function = LookupFuncName(list_make2(makeString("sessauth"), makeString(unconstify(char *, name))), 0, NULL, false);
	result = makeNode(ScalarArrayOpExpr);
	result->opno = operator;
	result->opfuncid = get_opcode(operator);
	result->useOr = true;
	result->inputcollid = C_COLLATION_OID;
	result->args = list_make2(linitial(((FuncExpr *) request->node)->args),
							  makeFuncExpr(function, TEXTARRAYOID, NIL, C_COLLATION_OID, InvalidOid, COERCE_EXPLICIT_CALL));
	result->location = -1;
	return (Expr *) result;
}

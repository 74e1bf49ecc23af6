/*
 * detail.c
 *		What a change was, for the history. See detail.h.
 *
 * It is written as text and read by jsonb's own input function, because the
 * C interface that builds a jsonb is not the same in every version of PostgreSQL.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "ledger/detail.h"
#include "ledger/ledger.h"

#define HIDDEN "(hidden)"

typedef enum Told
{
	TOLD_ALWAYS,
	TOLD_HIDDEN,				/* that it changed, but not what it is */
	TOLD_WHEN_CHANGED,			/* names the row: the event has it in a column of its own */
	TOLD_UNLESS_NEW,			/* a new row's is in a column of the event */
	TOLD_NEVER					/* changes with every change, or means nothing in another cluster */
} Told;

static Told told(const char *column);
static void append_member(StringInfo out, const char *name, Form_pg_attribute att, Datum value, bool isnull, bool hidden);
static void append_value(StringInfo out, Form_pg_attribute att, Datum value);

Datum
change_detail(TupleDesc desc, HeapTuple old, HeapTuple new)
{
	StringInfoData before;
	StringInfoData after;
	StringInfoData json;

	initStringInfo(&before);
	initStringInfo(&after);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = NameStr(att->attname);
		Told		how = told(name);
		Datum		was = 0;
		Datum		is = 0;
		bool		was_null = true;
		bool		is_null = true;

		if (att->attisdropped || how == TOLD_NEVER)
			continue;
		if ((old == NULL || new == NULL) && how == TOLD_WHEN_CHANGED)
			continue;
		if (old == NULL && how == TOLD_UNLESS_NEW)
			continue;
		if (old)
			was = heap_getattr(old, i + 1, desc, &was_null);
		if (new)
			is = heap_getattr(new, i + 1, desc, &is_null);
		if (was_null && is_null)
			continue;
		if (!was_null && !is_null && datum_image_eq(was, is, att->attbyval, att->attlen))
			continue;
		if (old)
			append_member(&before, name, att, was, was_null, how == TOLD_HIDDEN);
		if (new)
			append_member(&after, name, att, is, is_null, how == TOLD_HIDDEN);
	}
	if (before.len == 0 && after.len == 0)
		return (Datum) 0;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	if (old)
		appendStringInfo(&json, "\"before\":{%s}", before.data);
	if (old && new)
		appendStringInfoChar(&json, ',');
	if (new)
		appendStringInfo(&json, "\"after\":{%s}", after.data);
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

static Told
told(const char *column)
{
	static const struct
	{
		const char *column;
		Told		told;
	}			map[] = {
		{"tenant_id", TOLD_WHEN_CHANGED},
		{"user_id", TOLD_WHEN_CHANGED},
		{"session_id", TOLD_WHEN_CHANGED},
		{"kid", TOLD_WHEN_CHANGED},
		{"epoch", TOLD_UNLESS_NEW},
		{"tenant_epoch", TOLD_UNLESS_NEW},
		{"created_at", TOLD_UNLESS_NEW},
		{"granted_at", TOLD_UNLESS_NEW},
		{"version", TOLD_NEVER},
		{"role_id", TOLD_NEVER},
		{"refresh_hash", TOLD_HIDDEN},
		{"parent_hash", TOLD_HIDDEN},
		{"refresh_salt", TOLD_HIDDEN},
		{"client_claims", TOLD_HIDDEN},
		{"sealed", TOLD_HIDDEN},
	};

	for (int i = 0; i < lengthof(map); i++)
		if (strcmp(map[i].column, column) == 0)
			return map[i].told;
	return TOLD_ALWAYS;
}

static void
append_member(StringInfo out, const char *name, Form_pg_attribute att, Datum value, bool isnull, bool hidden)
{
	if (out->len > 0)
		appendStringInfoChar(out, ',');
	escape_json(out, name);
	appendStringInfoChar(out, ':');
	if (isnull)
		appendStringInfoString(out, "null");
	else if (hidden)
		escape_json(out, HIDDEN);
	else
		append_value(out, att, value);
}

static void
append_value(StringInfo out, Form_pg_attribute att, Datum value)
{
	switch (att->atttypid)
	{
		case INT8OID:
			appendStringInfo(out, INT64_FORMAT, DatumGetInt64(value));
			break;
		case JSONBOID:
			{
				Jsonb	   *jsonb = DatumGetJsonbP(value);

				(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
				break;
			}
		case INTERVALOID:		/* in seconds: its text follows the session's settings */
			{
				appendStringInfo(out, INT64_FORMAT, interval_us(DatumGetIntervalP(value)) / USECS_PER_SEC);
				break;
			}
		case TIMESTAMPTZOID:
			{
				char		text[MAXDATELEN + 1];
				int			utc = 0;

				JsonEncodeDateTime(text, value, TIMESTAMPTZOID, &utc);
				escape_json(out, text);
				break;
			}
		default:
			{
				Oid			output;
				bool		is_varlena;

				getTypeOutputInfo(att->atttypid, &output, &is_varlena);
				escape_json(out, OidOutputFunctionCall(output, value));
				break;
			}
	}
}

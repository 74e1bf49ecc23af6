/*
 * guard.c
 *		What no statement may do to the ledger, whoever runs it.
 *
 * Row triggers before INSERT and UPDATE keep the invariants that everything
 * else builds on: epochs come from one growing sequence and never go down, an
 * ended session never comes back, a session never changes its owner or its birth epochs, and
 * each change of a session has a new version. Rows that arrive from a dump
 * (the ledger is dormant) are taken as they are.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "ledger/ledger.h"
#include "ledger/policy.h"
#include "ledger/tables.h"

static HeapTuple replace(HeapTuple row, TupleDesc desc, const char *name, Datum value);
static int64 raised_epoch(FunctionCallInfo fcinfo, int64 above);
static Datum get(HeapTuple row, TupleDesc desc, const char *name, bool *isnull);
static void refuse_change(TriggerData *tg, const char *column);

PG_FUNCTION_INFO_V1(sessauth_guard_session);

/* guard_session() → trigger: BEFORE UPDATE, FOR EACH ROW. */
Datum
sessauth_guard_session(PG_FUNCTION_ARGS)
{
	static const char *const fixed[] = {"session_id", "tenant_id", "user_id", "epoch", "tenant_epoch", "created_at"};
	TriggerData *tg = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	bool		isnull;
	int64		version;

	require_trigger(fcinfo);
	desc = RelationGetDescr(tg->tg_relation);
	for (int i = 0; i < lengthof(fixed); i++)
	{
		int			attnum = SPI_fnumber(desc, fixed[i]);
		Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
		Datum		old = heap_getattr(tg->tg_trigtuple, attnum, desc, &isnull);
		Datum		new = heap_getattr(tg->tg_newtuple, attnum, desc, &isnull);

		if (!datumIsEqual(old, new, att->attbyval, att->attlen))
			refuse_change(tg, fixed[i]);
	}
	(void) get(tg->tg_trigtuple, desc, "ended_at", &isnull);
	if (!isnull)
	{
		(void) get(tg->tg_newtuple, desc, "ended_at", &isnull);
		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("an ended session cannot be brought back"),
					 errhint("Let the user log in again.")));
	}
	if (ledger_action.unseen)
		return PointerGetDatum(tg->tg_newtuple);
	version = DatumGetInt64(get(tg->tg_trigtuple, desc, "version", &isnull));
	return PointerGetDatum(replace(tg->tg_newtuple, desc, "version", Int64GetDatum(version + 1)));
}

PG_FUNCTION_INFO_V1(sessauth_guard_epoch);

/*
 * guard_epoch() → trigger: BEFORE INSERT OR UPDATE, FOR EACH ROW, on tenant and tenant_user.
 * Whatever number a statement writes, the row gets the next one of the sequence; a smaller one than it has is refused.
 */
Datum
sessauth_guard_epoch(PG_FUNCTION_ARGS)
{
	TriggerData *tg = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	old;
	HeapTuple	row;
	const char *stop;
	int64		epoch;
	int64		before = 0;
	Interval	ttl = {0};
	bool		is_tenant;
	bool		isnull;

	require_trigger(fcinfo);
	desc = RelationGetDescr(tg->tg_relation);
	is_tenant = strcmp(RelationGetRelationName(tg->tg_relation), "tenant") == 0;
	stop = is_tenant ? "suspended_at" : "blocked_at";
	old = TRIGGER_FIRED_BY_UPDATE(tg->tg_event) ? tg->tg_trigtuple : NULL;
	row = TRIGGER_FIRED_BY_UPDATE(tg->tg_event) ? tg->tg_newtuple : tg->tg_trigtuple;
	epoch = DatumGetInt64(get(row, desc, "epoch", &isnull));
	if (isnull)
		return PointerGetDatum(row);	/* NOT NULL says it better */

	ledger_check_library();
	if (!ledger_is_active())
		return PointerGetDatum(row);
	if (old)
	{
		bool		was_stopped;
		bool		stopped;

		before = DatumGetInt64(get(old, desc, "epoch", &isnull));
		(void) get(old, desc, stop, &isnull);
		was_stopped = !isnull;
		(void) get(row, desc, stop, &isnull);
		stopped = !isnull;

		if (!datumIsEqual(get(old, desc, "tenant_id", &isnull), get(row, desc, "tenant_id", &isnull), false, -1))
			refuse_change(tg, "tenant_id");
		if (!is_tenant && !datumIsEqual(get(old, desc, "user_id", &isnull), get(row, desc, "user_id", &isnull), false, -1))
			refuse_change(tg, "user_id");
		if (epoch < before)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("an epoch can only grow"),
					 errdetail("It is " INT64_FORMAT ".", before),
					 errhint("To log everybody out, raise it: UPDATE ... SET epoch = epoch + 1.")));
		if (epoch != before || (stopped && !was_stopped))
			epoch = raised_epoch(fcinfo, before);
	}
	else if (ledger_action.kind == NULL)
		epoch = raised_epoch(fcinfo, 0);	/* a DBA's INSERT: no number of its own choice */
	if (is_tenant)
	{
		Jsonb	   *policy = DatumGetJsonbP(get(row, desc, "policy", &isnull));
		Policy		effective;

		if (!isnull)
		{
			policy_check(policy);
			policy_read(policy, &effective);
			ttl.time = (TimeOffset) effective.access_ttl * USECS_PER_SEC;
		}
		if (old)
			ttl.time = Max(ttl.time, interval_us(DatumGetIntervalP(get(old, desc, "access_ttl_max", &isnull))));
	}
	if (is_tenant)
		row = replace(row, desc, "access_ttl_max", IntervalPGetDatum(&ttl));
	return PointerGetDatum(replace(row, desc, "epoch", Int64GetDatum(epoch)));
}

PG_FUNCTION_INFO_V1(sessauth_guard_history);

/* guard_history() → trigger: BEFORE UPDATE OR DELETE, FOR EACH ROW, on the history and so on its partitions. The worker is a superuser. */
Datum
sessauth_guard_history(PG_FUNCTION_ARGS)
{
	TriggerData *tg = (TriggerData *) fcinfo->context;

	require_trigger(fcinfo);
	if (!superuser() && !ledger_action.erases)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the history cannot be changed"),
				 errdetail("Its rows are written once, by what happens."),
				 errhint("A superuser takes a person out of it with sessauth.erase_user().")));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(tg->tg_event) ? tg->tg_newtuple : tg->tg_trigtuple);
}

/*
 * An insert takes its epoch before it waits for another transaction that made the same row. When that one deletes it
 * again, the deletion is published with a newer epoch, and nodes would refuse every session of the row that comes next.
 */
bool
renumber_inserted(FunctionCallInfo fcinfo)
{
	static LedgerQuery newest = {"SELECT last_value FROM sessauth.epoch_seq"};
	TriggerData *tg = (TriggerData *) fcinfo->context;
	TupleDesc	desc = RelationGetDescr(tg->tg_relation);
	bool		is_tenant = strcmp(RelationGetRelationName(tg->tg_relation), "tenant") == 0;
	LedgerTable *table = is_tenant ? &table_tenant : &table_user;
	int			column = is_tenant ? TC_EPOCH : UC_EPOCH;
	LedgerCall	call;
	LedgerRow	row;
	Snapshot	snapshot;
	Datum		keys[2];
	Datum		values[ROW_COLUMNS_MAX] = {0};
	bool		nulls[ROW_COLUMNS_MAX] = {false};
	bool		change[ROW_COLUMNS_MAX] = {false};
	bool		isnull;
	int64		epoch = DatumGetInt64(get(tg->tg_trigtuple, desc, "epoch", &isnull));
	bool		is_newest;

	if (!ledger_is_active())
		return false;
	ledger_begin(&call, fcinfo);
	ledger_run(&newest, NULL, NULL);
	is_newest = ledger_int8(0, 1) == epoch;
	ledger_end(&call);
	if (is_newest)
		return false;

	keys[0] = get(tg->tg_trigtuple, desc, "tenant_id", &isnull);
	if (!is_tenant)
		keys[1] = get(tg->tg_trigtuple, desc, "user_id", &isnull);
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());

	/* The statement may have gone on to change its own row; then that has raised the epoch, or deleted it. */
	if (!row_find(table, snapshot, keys, &row) || !ItemPointerEquals(&row.tuple->t_self, &tg->tg_trigtuple->t_self))
	{
		UnregisterSnapshot(snapshot);
		return false;
	}
	UnregisterSnapshot(snapshot);
	values[column] = Int64GetDatum(epoch + 1);
	change[column] = true;
	ledger_action.renumbers = true;
	row_update(table, &row, values, nulls, change);
	ledger_action.renumbers = false;
	return true;
}

/*
 * The sequence is ahead of every epoch unless somebody wrote one while the
 * ledger was dormant, or reset the sequence; then it is moved past it.
 */
static int64
raised_epoch(FunctionCallInfo fcinfo, int64 above)
{
	static LedgerQuery move = {
		"SELECT setval('sessauth.epoch_seq', greatest($1, (SELECT last_value FROM sessauth.epoch_seq)) + 1)", 1, {INT8OID}
	};
	int64		epoch = sequence_next("epoch_seq");

	if (epoch <= above)
	{
		LedgerCall	call;
		Datum		value = Int64GetDatum(above);

		ledger_begin(&call, fcinfo);
		ledger_run(&move, &value, NULL);
		epoch = ledger_int8(0, 1);
		ledger_end(&call);
	}
	return epoch;
}

static HeapTuple
replace(HeapTuple row, TupleDesc desc, const char *name, Datum value)
{
	int			attnum = SPI_fnumber(desc, name);
	bool		isnull = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &attnum, &value, &isnull);
}

static Datum
get(HeapTuple row, TupleDesc desc, const char *name, bool *isnull)
{
	return heap_getattr(row, SPI_fnumber(desc, name), desc, isnull);
}

static void
refuse_change(TriggerData *tg, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of table \"%s\" cannot be changed", column, RelationGetRelationName(tg->tg_relation)),
			 errhint("End the session and let the user log in again.")));
}

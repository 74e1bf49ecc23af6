/*
 * rows.c
 *		See rows.h.
 *
 * A prepared statement costs ten to thirty microseconds to set up and tear
 * down, several times what it does here. The sequence of calls is that of logical replication's
 * apply worker, which changes single rows by key as well.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "ledger/ledger.h"
#include "ledger/rows.h"
#include "server/compat.h"

static Relation open_table(LedgerTable *table, LOCKMODE lock);
static bool find_tuple(Relation rel, const LedgerTable *table, Snapshot snapshot, const Datum *keys, LedgerRow *out);
static void keep(const LedgerTable *table, Relation rel, TupleTableSlot *slot, LedgerRow *out);
static EState *begin_change(Relation rel, ResultRelInfo *target);
static void end_change(EState *estate);
static TupleTableSlot *fill_slot(const LedgerTable *table, Relation rel, const Datum *values, const bool *nulls);
static Relation open_partition(Relation parent, Datum value);
static Oid	partition_for(Relation parent, Datum value);

bool
row_find(LedgerTable *table, Snapshot snapshot, const Datum *keys, LedgerRow *out)
{
	Relation	rel = open_table(table, AccessShareLock);
	bool		found = find_tuple(rel, table, snapshot, keys, out);

	table_close(rel, NoLock);
	return found;
}

bool
row_lock(LedgerTable *table, const Datum *keys, LedgerRow *out)
{
	Relation	rel = open_table(table, RowShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		found = find_tuple(rel, table, snapshot, keys, out);

	if (found)
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		ItemPointerData tid = out->tuple->t_self;
		TM_FailureData failure;
		TM_Result	result;

		result = table_tuple_lock(rel, &tid, snapshot, slot, GetCurrentCommandId(false), LockTupleNoKeyExclusive,
								  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
		if (result != TM_Ok && result != TM_Deleted)
			elog(ERROR, "could not lock a row of \"%s\": %u", table->name, result);
		found = result == TM_Ok;
		if (found)
			keep(table, rel, slot, out);
		ExecDropSingleTupleTableSlot(slot);
	}
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

void
row_insert(LedgerTable *table, const Datum *values, const bool *nulls)
{
	Relation	rel = open_table(table, RowExclusiveLock);
	ResultRelInfo *target = makeNode(ResultRelInfo);
	EState	   *estate;
	TupleTableSlot *slot;

	PushActiveSnapshot(GetLatestSnapshot());
	estate = begin_change(rel, target);
	slot = fill_slot(table, rel, values, nulls);
	ExecSimpleRelationInsert(target, estate, slot);
	ExecDropSingleTupleTableSlot(slot);
	ExecCloseIndices(target);
	end_change(estate);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
row_update(LedgerTable *table, const LedgerRow *row, const Datum *values, const bool *nulls, const bool *change)
{
	Relation	rel = open_table(table, RowExclusiveLock);
	ResultRelInfo *target = makeNode(ResultRelInfo);
	EState	   *estate;
	EPQState	epq;
	TupleTableSlot *old;
	TupleTableSlot *new;

	PushActiveSnapshot(GetLatestSnapshot());
	estate = begin_change(rel, target);
	EvalPlanQualInit(&epq, estate, NULL, NIL, -1
#if PG_VERSION_NUM >= 160000
					 ,NIL
#endif
		);

	old = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row->tuple, old, false);
	slot_getallattrs(old);
	new = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	ExecClearTuple(new);
	memcpy(new->tts_values, old->tts_values, sizeof(Datum) * RelationGetDescr(rel)->natts);
	memcpy(new->tts_isnull, old->tts_isnull, sizeof(bool) * RelationGetDescr(rel)->natts);
	for (int i = 0; table->columns[i] != NULL; i++)
		if (change[i])
		{
			new->tts_values[table->attnums[i] - 1] = values[i];
			new->tts_isnull[table->attnums[i] - 1] = nulls[i];
		}
	ExecStoreVirtualTuple(new);

	EvalPlanQualSetSlot(&epq, new);
	ExecSimpleRelationUpdate(target, estate, &epq, old, new);
	EvalPlanQualEnd(&epq);
	ExecDropSingleTupleTableSlot(old);
	ExecDropSingleTupleTableSlot(new);
	ExecCloseIndices(target);
	end_change(estate);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

void
row_append(LedgerTable *table, int by, const Datum *values, const bool *nulls)
{
	Relation	parent = open_table(table, RowExclusiveLock);
	Relation	rel = open_partition(parent, values[by]);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	TupleDesc	desc = RelationGetDescr(rel);
	TupleTableSlot *slot;

	/* A partition that somebody attached by hand may have its columns in another order. */
	for (int i = 0; table->columns[i] != NULL; i++)
		if (table->attnums[i] > desc->natts || strcmp(NameStr(TupleDescAttr(desc, table->attnums[i] - 1)->attname), table->columns[i]) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("partition \"%s\" does not have the columns of \"%s\" in their order", RelationGetRelationName(rel), table->name),
					 errhint("Make it with CREATE TABLE ... (LIKE sessauth.%s), or detach it.", table->name)));

	InitResultRelInfo(target, rel, 0, NULL, 0);
	ExecOpenIndices(target, false);
	slot = fill_slot(table, rel, values, nulls);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	if (target->ri_NumIndices > 0)
		list_free(ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL
#if PG_VERSION_NUM >= 160000
										,false
#endif
										));
	ExecDropSingleTupleTableSlot(slot);
	ExecCloseIndices(target);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
	table_close(parent, NoLock);
}

Datum
ledger_row_datum(const LedgerRow *row, int column, bool *isnull)
{
	return heap_getattr(row->tuple, row->table->attnums[column], row->desc, isnull);
}

int64
ledger_row_int8(const LedgerRow *row, int column)
{
	bool		isnull;
	Datum		value = ledger_row_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

bool
ledger_row_is_null(const LedgerRow *row, int column)
{
	return heap_attisnull(row->tuple, row->table->attnums[column], row->desc);
}

char *
ledger_row_text(const LedgerRow *row, int column)
{
	bool		isnull;
	Datum		value = ledger_row_datum(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

int64
sequence_next(const char *name)
{
	Oid			relid = ledger_relid(name);

	if (!OidIsValid(relid))
		elog(ERROR, "sequence \"%s\" is gone", name);
	return nextval_internal(relid, false);
}

/* The lock stays until the transaction ends, as with a statement. */
static Relation
open_table(LedgerTable *table, LOCKMODE lock)
{
	Oid			relid = ledger_relid(table->name);
	Relation	rel;

	if (!OidIsValid(relid))
		elog(ERROR, "table \"%s\" is gone", table->name);
	rel = table_open(relid, lock);
	if (table->relid != relid)
	{
		table->relid = InvalidOid;
		for (int i = 0; table->columns[i] != NULL; i++)
		{
			table->attnums[i] = get_attnum(relid, table->columns[i]);
			if (table->attnums[i] == InvalidAttrNumber)
				elog(ERROR, "table \"%s\" has no column \"%s\"", table->name, table->columns[i]);
		}
		table->relid = relid;
	}
	return rel;
}

static bool
find_tuple(Relation rel, const LedgerTable *table, Snapshot snapshot, const Datum *keys, LedgerRow *out)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData scankeys[2];
	bool		found;

	(void) RelationGetIndexList(rel);	/* finds the primary key */
	index = index_open(rel->rd_pkindex, AccessShareLock);
	for (int i = 0; i < table->nkeys; i++)
	{
		Oid			type = TupleDescAttr(RelationGetDescr(rel), table->attnums[i] - 1)->atttypid;

		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   type == TEXTOID ? C_COLLATION_OID : InvalidOid,
							   type == TEXTOID ? F_TEXTEQ : type == UUIDOID ? F_UUID_EQ : F_BOOLEQ, keys[i]);
	}
	scan = compat_index_beginscan(rel, index, snapshot, table->nkeys);
	index_rescan(scan, scankeys, table->nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		keep(table, rel, slot, out);
	index_endscan(scan);
	index_close(index, NoLock);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

static void
keep(const LedgerTable *table, Relation rel, TupleTableSlot *slot, LedgerRow *out)
{
	out->table = table;
	out->desc = RelationGetDescr(rel);
	out->tuple = ExecCopySlotHeapTuple(slot);
	out->tuple->t_self = slot->tts_tid;
}

static EState *
begin_change(Relation rel, ResultRelInfo *target)
{
	EState	   *estate = CreateExecutorState();

	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	InitResultRelInfo(target, rel, 0, NULL, 0);
	ExecOpenIndices(target, false);
	AfterTriggerBeginQuery();
	return estate;
}

static void
end_change(EState *estate)
{
	AfterTriggerEndQuery(estate);
	ExecCloseResultRelations(estate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

static TupleTableSlot *
fill_slot(const LedgerTable *table, Relation rel, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * RelationGetDescr(rel)->natts);
	memset(slot->tts_values, 0, sizeof(Datum) * RelationGetDescr(rel)->natts);
	for (int i = 0; table->columns[i] != NULL; i++)
	{
		slot->tts_values[table->attnums[i] - 1] = values[i];
		slot->tts_isnull[table->attnums[i] - 1] = nulls[i];
	}
	return ExecStoreVirtualTuple(slot);
}

/* While we waited for the lock, the partition may have been detached, or another one have been attached beside the default one. */
static Relation
open_partition(Relation parent, Datum value)
{
	for (;;)
	{
		Oid			relid = partition_for(parent, value);
		Relation	rel = table_open(relid, RowExclusiveLock);

		if (partition_for(parent, value) == relid)
			return rel;
		table_close(rel, RowExclusiveLock);
	}
}

/* Partitioned by range of one column. */
static Oid
partition_for(Relation parent, Datum value)
{
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionDesc partitions = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = partitions->boundinfo;
	int			index = -1;

	if (bounds != NULL)
	{
		bool		equal;
		int			offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, bounds, 1, &value, &equal);

		index = bounds->indexes[offset + 1];
		if (index < 0)
			index = bounds->default_index;
	}
	if (index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("no partition of \"%s\" is for this time", RelationGetRelationName(parent)),
				 errhint("Restore the default partition.")));
	return partitions->oids[index];
}

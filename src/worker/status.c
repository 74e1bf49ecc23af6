/*
 * status.c
 *		What DBAs see of mirrors and nodes: written by the worker into shared
 *		memory, read by the views.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "ledger/ledger.h"
#include "server/rowset.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "server/sql_nodes.h"
#include "server/wake.h"
#include "worker/worker.h"

static MirrorStatus *find_mirror(const char *name);
static NodeStatusKey make_key(const char *mirror, const char *node);
static Tuplestorestate *begin_rows(FunctionCallInfo fcinfo, TupleDesc *desc, int columns);
static void put_node(Tuplestorestate *rows, TupleDesc desc, const NodeStatus *status);
static Datum uuid_or_null(const char *text, bool *isnull);
static Datum text_or_null(const char *text, bool *isnull);
static Datum time_or_null(TimestampTz time, bool *isnull);

/* NULL error or warning: leave it as it is; empty: none. */
void
status_mirror(const Mirror *mirror, const char *state, const char *error, const char *warning)
{
	MirrorStatus *status;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	status = find_mirror(mirror->name);
	if (status)
	{
		status->last_beat_at = mirror->last_beat_at;
		strlcpy(status->state, state, sizeof(status->state));
		strlcpy(status->generation, mirror->generation, sizeof(status->generation));
		status->n = mirror->n;
		status->behind = mirror->behind;
		if (error && error[0] != '\0')
		{
			strlcpy(status->error, error, sizeof(status->error));
			status->error_at = GetCurrentTimestamp();
		}
		if (warning)
			strlcpy(status->warning, warning, sizeof(status->warning));
	}
	LWLockRelease(shared->lock);
}

void
status_reconcile(const Mirror *mirror)
{
	static const char *const phases[] = {NULL, "mirror", "ledger"};
	const Reconcile *reconcile = &mirror->reconcile;
	MirrorStatus *status;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	status = find_mirror(mirror->name);
	if (status)
	{
		status->reconcile_phase = phases[reconcile->phase];
		status->reconcile_checked = reconcile->checked;
		if (reconcile->phase == RECONCILE_REST && reconcile->began_at != 0)
		{
			int64		found[RECONCILE_COUNTS] = {reconcile->checked, reconcile->missing, reconcile->stale, reconcile->foreign, reconcile->ahead};

			status->reconciled_at = GetCurrentTimestamp();
			memcpy(status->found, found, sizeof(found));
		}
	}
	LWLockRelease(shared->lock);
}

void
status_node(const Mirror *mirror, const KnownNode *node, const SaNonce *nonce, bool refused)
{
	NodeStatusKey key = make_key(mirror->name, node->node);
	NodeStatus *status;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	status = hash_search(shared_nodes, &key,
						 hash_get_num_entries(shared_nodes) < setting_max_nodes ? HASH_ENTER_NULL : HASH_FIND, NULL);

	/* No room loses statistics and nothing else: mirrors share it. */
	if (status)
	{
		strlcpy(status->generation, nonce->g, sizeof(status->generation));
		status->n = nonce->n;
		status->behind = strcmp(nonce->g, mirror->generation) == 0 ? mirror->n - nonce->n : mirror->n;
		status->max_staleness = nonce->max_staleness;
		status->refused = refused;
		status->seen_at = GetCurrentTimestamp();
	}
	LWLockRelease(shared->lock);
}

void
status_node_forget(const Mirror *mirror, const char *node)
{
	NodeStatusKey key = make_key(mirror->name, node);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	hash_search(shared_nodes, &key, HASH_REMOVE, NULL);
	LWLockRelease(shared->lock);
}

void
status_forget(const char *mirror)
{
	HASH_SEQ_STATUS seq;
	NodeStatus *node;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MIRROR_STATUS_MAX; i++)
		if (shared->mirrors[i].database == MyDatabaseId && (mirror == NULL || strcmp(shared->mirrors[i].name, mirror) == 0))
			memset(&shared->mirrors[i], 0, sizeof(MirrorStatus));
	hash_seq_init(&seq, shared_nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		if (node->key.database == MyDatabaseId && (mirror == NULL || strcmp(node->key.mirror, mirror) == 0))
			hash_search(shared_nodes, &node->key, HASH_REMOVE, NULL);
	LWLockRelease(shared->lock);
}

/* Finds or makes the entry; NULL when there is no room, which loses statistics and nothing else. */
static MirrorStatus *
find_mirror(const char *name)
{
	MirrorStatus *free = NULL;

	for (int i = 0; i < MIRROR_STATUS_MAX; i++)
	{
		MirrorStatus *status = &shared->mirrors[i];

		if (status->database == MyDatabaseId && strcmp(status->name, name) == 0)
			return status;
		if (!OidIsValid(status->database) && free == NULL)
			free = status;
	}
	if (free)
	{
		free->database = MyDatabaseId;
		strlcpy(free->name, name, sizeof(free->name));
	}
	return free;
}

static NodeStatusKey
make_key(const char *mirror, const char *node)
{
	NodeStatusKey key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	strlcpy(key.mirror, mirror, sizeof(key.mirror));
	strlcpy(key.node, node, sizeof(key.node));
	return key;
}

PG_FUNCTION_INFO_V1(sessauth_mirror_status);

/* mirror_status() → rows: what the worker of this database last said of its mirrors; none for who does not audit every tenant. */
Datum
sessauth_mirror_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Tuplestorestate *rows = begin_rows(fcinfo, &desc, 12 + RECONCILE_COUNTS);
	MirrorStatus *copy = palloc(sizeof(shared->mirrors));

	if (!access_is_unlimited(GetUserId(), ACCESS_AUDITOR))
		return (Datum) 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	memcpy(copy, shared->mirrors, sizeof(shared->mirrors));
	LWLockRelease(shared->lock);
	for (int i = 0; i < MIRROR_STATUS_MAX; i++)
	{
		MirrorStatus *status = &copy[i];
		Datum		values[12 + RECONCILE_COUNTS];
		bool		nulls[12 + RECONCILE_COUNTS] = {false};

		if (status->database != MyDatabaseId)
			continue;
		values[0] = CStringGetTextDatum(status->name);
		values[1] = CStringGetTextDatum(status->state);
		values[2] = uuid_or_null(status->generation, &nulls[2]);
		values[3] = Int64GetDatum(status->n);
		values[4] = Int64GetDatum(status->behind);
		values[5] = time_or_null(status->last_beat_at, &nulls[5]);
		values[6] = text_or_null(status->error, &nulls[6]);
		values[7] = time_or_null(status->error_at, &nulls[7]);
		values[8] = text_or_null(status->warning, &nulls[8]);
		values[9] = text_or_null(status->reconcile_phase ? status->reconcile_phase : "", &nulls[9]);
		values[10] = Int64GetDatum(status->reconcile_checked);
		nulls[10] = status->reconcile_phase == NULL;
		values[11] = time_or_null(status->reconciled_at, &nulls[11]);
		for (int c = 0; c < RECONCILE_COUNTS; c++)
		{
			values[12 + c] = Int64GetDatum(status->found[c]);
			nulls[12 + c] = status->reconciled_at == 0;
		}
		tuplestore_putvalues(rows, desc, values, nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(sessauth_node_status);

/* node_status() → rows: the nodes that ask for leases, over a mirror or (null mirror) over SQL; none for who does not audit every tenant. */
Datum
sessauth_node_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Tuplestorestate *rows = begin_rows(fcinfo, &desc, 9);
	NodeStatus *copy;
	SqlNode    *over_sql;
	HASH_SEQ_STATUS seq;
	NodeStatus *node;
	int			count = 0;

	if (!access_is_unlimited(GetUserId(), ACCESS_AUDITOR))
		return (Datum) 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	copy = palloc(sizeof(NodeStatus) * (hash_get_num_entries(shared_nodes) + 1));
	hash_seq_init(&seq, shared_nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		if (node->key.database == MyDatabaseId)
			copy[count++] = *node;
	LWLockRelease(shared->lock);
	for (int i = 0; i < count; i++)
		put_node(rows, desc, &copy[i]);
	count = sql_nodes_copy(&over_sql);
	for (int i = 0; i < count; i++)
	{
		NodeStatus	status = {.n = over_sql[i].book.acknowledged, .behind = over_sql[i].behind,
		.max_staleness = over_sql[i].max_staleness, .seen_at = over_sql[i].seen_at};

		strlcpy(status.key.node, over_sql[i].key.node, sizeof(status.key.node));
		strlcpy(status.generation, over_sql[i].book.generation, sizeof(status.generation));
		put_node(rows, desc, &status);
	}
	return (Datum) 0;
}

static void
put_node(Tuplestorestate *rows, TupleDesc desc, const NodeStatus *status)
{
	const char *slash = strchr(status->key.node, '/');
	Datum		values[9];
	bool		nulls[9] = {false};
	Interval	staleness = {.time = status->max_staleness * 1000};

	if (slash == NULL)
		return;
	values[0] = PointerGetDatum(cstring_to_text_with_len(status->key.node, slash - status->key.node));
	values[1] = CStringGetTextDatum(slash + 1);
	values[2] = text_or_null(status->key.mirror, &nulls[2]);
	values[3] = uuid_or_null(status->generation, &nulls[3]);
	values[4] = Int64GetDatum(status->n);
	values[5] = Int64GetDatum(status->behind);
	values[6] = IntervalPGetDatum(&staleness);
	values[7] = BoolGetDatum(status->refused);
	values[8] = time_or_null(status->seen_at, &nulls[8]);
	tuplestore_putvalues(rows, desc, values, nulls);
}

static Tuplestorestate *
begin_rows(FunctionCallInfo fcinfo, TupleDesc *desc, int columns)
{
	if (shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sessauth must be loaded by shared_preload_libraries"),
				 errhint("Set shared_preload_libraries = 'sessauth' in postgresql.conf and restart the server.")));
	return rowset_begin(fcinfo, columns, desc);
}

static Datum
uuid_or_null(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : DirectFunctionCall1(uuid_in, CStringGetDatum(text));
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
time_or_null(TimestampTz time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

PG_FUNCTION_INFO_V1(sessauth_worker_probe);

/* worker_probe() → void: asks the launcher to look at this database once the transaction has committed. */
Datum
sessauth_worker_probe(PG_FUNCTION_ARGS)
{
	wake_worker_at_commit();
	PG_RETURN_VOID();
}

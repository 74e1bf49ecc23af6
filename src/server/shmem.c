/*
 * shmem.c
 *		Setting up the shared memory of shmem.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"

#include "server/compat.h"
#include "server/settings.h"
#include "server/shmem.h"

#define TRANCHE "sessauth"

SharedState *shared = NULL;
HTAB	   *shared_nodes = NULL;
HTAB	   *shared_sql_nodes = NULL;

static CompatRequestHook previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;
static bool preloaded = false;

static void request(void);
static void startup(void);
static HTAB *make_table(const char *name, Size key, Size entry);

void
shmem_init(void)
{
	previous_request = compat_previous_request();
	compat_request_shmem(request);
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
	preloaded = true;
}

bool
sessauth_preloaded(void)
{
	return preloaded && shared != NULL;
}

static void
request(void)
{
	if (previous_request)
		previous_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SharedState)));
	RequestAddinShmemSpace(hash_estimate_size(setting_max_nodes, sizeof(NodeStatus)));
	RequestAddinShmemSpace(hash_estimate_size(setting_max_nodes, sizeof(SqlNode)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
startup(void)
{
	bool		found;

	if (previous_startup)
		previous_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("sessauth", sizeof(SharedState), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(SharedState));
		shared->lock = &(GetNamedLWLockTranche(TRANCHE))->lock;
		shared->probe_all = true;
		ConditionVariableInit(&shared->receipts);
		pg_atomic_init_u64(&shared->clock_offset, (uint64) PG_INT64_MIN);
	}
	shared_nodes = make_table("sessauth nodes", sizeof(NodeStatusKey), sizeof(NodeStatus));
	shared_sql_nodes = make_table("sessauth nodes over SQL", sizeof(SqlNodeKey), sizeof(SqlNode));
	LWLockRelease(AddinShmemInitLock);
}

static HTAB *
make_table(const char *name, Size key, Size entry)
{
	HASHCTL		control = {.keysize = key, .entrysize = entry};

	return ShmemInitHash(name, setting_max_nodes, setting_max_nodes, &control, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

/* A latch outlives its process: that of a successor is set in vain, no more. */
void
shmem_wake_worker(WorkerSlot *slot)
{
	if (pg_atomic_read_u32(&slot->wake_database) != InvalidOid)
		SetLatch(compat_latch_of(pg_atomic_read_u32(&slot->wake_process)));
}

void
shmem_request_probe(Oid database)
{
	bool		stored = false;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS_MAX && OidIsValid(database) && !stored; i++)
		stored = shared->probe[i] == database;
	for (int i = 0; i < SLOTS_MAX && OidIsValid(database) && !stored; i++)
		if (!OidIsValid(shared->probe[i]))
		{
			shared->probe[i] = database;
			stored = true;
		}
	if (!stored)
		shared->probe_all = true;
	if (shared->launcher_latch)
		SetLatch(shared->launcher_latch);
	LWLockRelease(shared->lock);
}

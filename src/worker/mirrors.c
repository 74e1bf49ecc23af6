/*
 * mirrors.c
 *		Which mirrors there are, and the link key that they share.
 *
 * The list is read in every transaction: mirrors come, go, and move by plain rows of a table.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "server/keyring.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

Mirror	   *mirrors[MIRRORS_MAX];
int			mirror_count = 0;
const unsigned char *mirror_link_key = NULL;

static bool mirrors_wait_for_key = false;

static void load_link_key(void);
static Mirror *mirror_find(const char *name);
static Mirror *mirror_new(const char *name);
static void mirror_remove(int i);

/* Inside the transaction: the list of mirrors, and the link key. */
void
mirrors_load(const LedgerState *state)
{
	static WorkerQuery query = {
		"SELECT m.name, m.url, m.password_file, s.resync_at, s.reconcile_at FROM sessauth.mirror m JOIN sessauth.mirror_state s ON s.name = m.name"
		" ORDER BY m.created_at, m.name"
	};
	static bool told = false;
	uint64		count = worker_query(&query, NULL, NULL);

	if (count > MIRRORS_MAX && !told)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("sessauth serves %d mirrors per database, and there are more", MIRRORS_MAX)));
	told = count > MIRRORS_MAX;
	count = Min(count, MIRRORS_MAX);
	/* Room is made first. */
	for (int i = mirror_count - 1; i >= 0; i--)
	{
		bool		listed = false;

		for (uint64 row = 0; row < count; row++)
			listed |= strcmp(row_text(row, 1), mirrors[i]->name) == 0;
		if (!listed && !ownership_release(mirrors[i], state->ledger_id))
			mirror_remove(i);
		else if (listed && mirrors[i]->phase == MIRROR_RELEASED)
			mirror_fail(mirrors[i], NULL);	/* it has come back */
	}
	for (uint64 row = 0; row < count; row++)
	{
		char	   *name = row_text(row, 1);
		char	   *url = row_text(row, 2);
		char	   *password_file = row_text(row, 3);
		Mirror	   *mirror = mirror_find(name);

		if (mirror == NULL)
			mirror = mirror_new(name);
		mirror->resync_asked = row_isnull(row, 4) ? 0 : DatumGetTimestampTz(row_datum(row, 4));
		reconcile_request(mirror, row_isnull(row, 5) ? 0 : DatumGetTimestampTz(row_datum(row, 5)));
		if (strcmp(mirror->url, url) != 0 || strcmp(mirror->password_file, password_file) != 0)
		{
			const char *why = sa_redis_url_parse(url, &mirror->where);

			strlcpy(mirror->url, url, sizeof(mirror->url));
			strlcpy(mirror->password_file, password_file, sizeof(mirror->password_file));
			mirror_fail(mirror, why);
			mirror->retry_at = why ? INSTANT_NEVER : 0;
		}
	}
	for (int i = 0; i < mirror_count; i++)
		if (!mirrors[i]->loaded)
			keys_load(mirrors[i]);
	if (mirror_count > 0 && mirror_link_key == NULL)
		load_link_key();
}

/*
 * A missing master key must not stop the numbering of revocations, which
 * needs none, so its error is caught here and becomes the mirrors' state.
 */
static void
load_link_key(void)
{
	static unsigned char key[SA_KEY_LEN];
	static Instant tried_at = 0;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	const char *volatile why = NULL;

	if (!instant_is_past(tried_at, clock_boot(), 1000))
		return;
	tried_at = clock_boot();
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		if (keyring_open_secret("link", key))
			mirror_link_key = key;
		else
			why = "there is no link key yet: create a signing key first";
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		why = error->message;
		if (!mirrors_wait_for_key)
			ereport(LOG,
					(errmsg("sessauth: the mirrors wait for the link key: %s", error->message),
					 error->hint ? errhint("%s", error->hint) : 0));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	mirrors_wait_for_key = why != NULL;
	for (int i = 0; i < mirror_count && why; i++)
		status_mirror(mirrors[i], "waiting", why, NULL);
}

void
mirrors_close(void)
{
	while (mirror_count > 0)
		mirror_remove(mirror_count - 1);
}

static Mirror *
mirror_find(const char *name)
{
	for (int i = 0; i < mirror_count; i++)
		if (strcmp(mirrors[i]->name, name) == 0)
			return mirrors[i];
	return NULL;
}

static Mirror *
mirror_new(const char *name)
{
	Mirror	   *mirror = MemoryContextAllocZero(TopMemoryContext, sizeof(Mirror));
	HASHCTL		control = {.keysize = SA_NODE_ID_SIZE, .entrysize = sizeof(KnownNode)};

	strlcpy(mirror->name, name, sizeof(mirror->name));
	link_init(&mirror->link);
	mirror->cursors = AllocSetContextCreate(TopMemoryContext, "sessauth cursors", ALLOCSET_SMALL_SIZES);
	mirror->nodes = hash_create("sessauth nodes", 64, &control, HASH_ELEM | HASH_STRINGS);
	mirror->known_n = -1;		/* not read yet */
	receipts_hold(mirror);
	mirrors[mirror_count++] = mirror;
	return mirror;
}

static void
mirror_remove(int i)
{
	Mirror	   *mirror = mirrors[i];

	receipts_hold(NULL);
	link_close(&mirror->link);
	status_forget(mirror->name);
	hash_destroy(mirror->nodes);
	MemoryContextDelete(mirror->cursors);
	reconcile_reset(mirror);
	if (mirror->pending)
		pfree(mirror->pending);
	if (mirror->link.replies)
		pfree(mirror->link.replies);
	if (mirror->remembered)
		pfree(mirror->remembered);
	pfree(mirror->link.out.data);
	pfree(mirror);
	memmove(&mirrors[i], &mirrors[i + 1], sizeof(Mirror *) * (mirror_count - i - 1));
	mirror_count--;
}

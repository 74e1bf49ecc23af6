/*
 * pages.c
 *		Pages: what has been appended to the stream, once more by the thousand, for nodes that join.
 *
 * A node that reads the stream pays for each entry's twelve named fields and its MAC; a page costs it one. Nothing depends on
 * pages: one that is missing is read from the stream. A page is written where the stream ends with it, so that its reader knows
 * where to read on.
 */
#include "postgres.h"

#include "worker/redis_scripts.h"
#include "worker/worker.h"

#define KEPT_MS		60000		/* as other keys, for what Redis's clock may be ahead */

static void queue(Mirror *mirror, const LedgerState *state, const char *body, size_t len);

int
page_left(int64 n)
{
	return (int) (SA_PAGE_FIRST(n) + SA_PAGE_ENTRIES - n);
}

/* The page that ends with the last of these entries, mirror->next_n; those of it that are not among them were appended before. */
void
page_plan(Mirror *mirror, const LedgerState *state, const SaEntry *entries, int count)
{
	SaEntry    *read = NULL;
	const SaEntry *first = entries + count - SA_PAGE_ENTRIES;

	if (count < SA_PAGE_ENTRIES)
	{
		count = log_entries_read(state, mirror->next_n - SA_PAGE_ENTRIES, SA_PAGE_ENTRIES, &read);
		first = read;
	}

	/* The log may have forgotten its beginning. */
	if (count >= SA_PAGE_ENTRIES && first->n == mirror->next_n - SA_PAGE_ENTRIES + 1)
	{
		char	   *body = palloc(SA_PAGE_ENTRIES * SA_PAGE_ENTRY_MAX);
		size_t		len = 0;

		for (int i = 0; i < SA_PAGE_ENTRIES; i++)
		{
			size_t		n = sa_page_put(&first[i], body + len);

			if (n == 0)
				elog(ERROR, "sessauth: the revocation log has an entry that cannot be");
			len += n;
			mirror->pages_until = Max(mirror->pages_until, first[i].until);
		}
		queue(mirror, state, body, len);
		pfree(body);
	}
	if (read)
		pfree(read);
}

/*
 * A page is needed as long as its last number is not below low, so as long as any revocation before that matters: pages_until is
 * the latest of them all that this worker has seen.
 */
static void
queue(Mirror *mirror, const LedgerState *state, const char *body, size_t len)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	char		page[SA_REDIS_KEY_SIZE];
	char		mac[SA_MAC_TEXT_LEN + 1];
	char		n[24];
	char		low[24];
	char		until[24];
	SaField		argv[11];

	sa_name_mirror(mirror->where.prefix, mirror_key);
	sa_name_stream(mirror->where.prefix, stream);
	if (sa_name_page(mirror->where.prefix, mirror->generation, SA_PAGE_FIRST(mirror->next_n), page) == 0 ||
		!sa_page_mac(mirror_link_key, page, body, len, mac))
		elog(ERROR, "sessauth: could not authenticate a page");
	snprintf(n, sizeof(n), INT64_FORMAT, mirror->next_n);
	snprintf(low, sizeof(low), INT64_FORMAT, state->low);
	snprintf(until, sizeof(until), INT64_FORMAT, mirror->pages_until + KEPT_MS);
	argv[0] = SA_FIELD_STR(mirror_key);
	argv[1] = SA_FIELD_STR(stream);
	argv[2] = SA_FIELD_STR(page);
	argv[3] = SA_FIELD_STR(state->ledger_id);
	argv[4] = SA_FIELD_STR(mirror->generation);
	argv[5] = SA_FIELD_STR(n);
	argv[6] = SA_FIELD_STR(mirror->next_tail);
	argv[7] = SA_FIELD_STR(low);
	argv[8] = SA_FIELD_STR(until);
	argv[9] = SA_FIELD_STR(mac);
	argv[10] = SA_FIELD(body, len);
	mirror_script(mirror, SCRIPT_PAGE, 3, 11, argv);
}

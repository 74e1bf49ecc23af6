/*
 * reconcile.c
 *		Compares a mirror with the ledger, and repairs it, now and then and on request.
 *
 * What must never happen:
 *
 *	- something genuine that the ledger has lost is overwritten before the ledger has adopted and committed it;
 *	- something without a good MAC reaches the ledger;
 *	- a repair undoes what was written meanwhile, or revives what has ended;
 *	- revocations, beats or logins wait for it.
 *
 * So first the mirror's keys are walked (SCAN) and held against the ledger: what is foreign is replaced or deleted, if it
 * still is what was read; what would expire at another time than it should, gets that; what is ahead is adopted, in a transaction of its own that commits before anything is written. Then the ledger's
 * rows are walked, and written by the guarded script that writes every key, which says what was missing or stale.
 * A slice goes out only behind everything that its snapshot has seen, so what is merely on its way is not counted; the
 * counts are of what was found wrong. Slices are small and paced; a mirror that is behind is left alone.
 *
 * A crash or an outage anywhere leaves a mirror that was repaired in part, and the next reconciliation begins at its start.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "server/settings.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define SLICE			256
#define SLICE_TEXT		"256"
#define PACE_MS			10			/* between slices */
#define FIRST_MS		1000		/* after a mirror has come: a restart of everything is busy enough */

static Instant due_at(const Reconcile *reconcile);
static bool may_go_on(const Mirror *mirror);
static void finish(Mirror *mirror, Instant now);
static void glob(const char *prefix, char *out);

void
reconcile_reset(Mirror *mirror)
{
	Reconcile  *reconcile = &mirror->reconcile;

	if (reconcile->context)
		MemoryContextDelete(reconcile->context);
	reconcile->context = NULL;
	if (reconcile->phase != RECONCILE_REST)
		reconcile->ended_at = 0;
	reconcile->phase = RECONCILE_REST;
}

/* The ledger's row asks for one, at that time. */
void
reconcile_request(Mirror *mirror, TimestampTz asked_at)
{
	if (asked_at > mirror->reconcile_asked)
	{
		mirror->reconcile_asked = asked_at;
		mirror->reconcile.next_at = clock_boot();
	}
}

static Instant
due_at(const Reconcile *reconcile)
{
	if (reconcile->next_at != 0)
		return reconcile->next_at;
	return setting_reconcile_interval == 0 ? INSTANT_NEVER :
		instant_after(reconcile->ended_at, setting_reconcile_interval * INT64CONST(1000));
}

static bool
may_go_on(const Mirror *mirror)
{
	return mirror->phase == MIRROR_STREAMING && mirror->exchange == EXCHANGE_NONE && mirror->behind == 0 &&
		mirror->synced_at != 0 && !mirror->nonces_read;
}

/* Outside transactions: queues the next question, if it is time for one. */
bool
reconcile_ask(Mirror *mirror, Instant now)
{
	Reconcile  *reconcile = &mirror->reconcile;
	char		pattern[2 * SA_PREFIX_MAX + 2];

	if (!may_go_on(mirror))
		return false;
	if (reconcile->phase == RECONCILE_REST)
	{
		MemoryContext context = reconcile->context;

		if (reconcile->ended_at == 0 && reconcile->next_at == 0)
			reconcile->next_at = instant_after(now, FIRST_MS);
		if (now < due_at(reconcile))
			return false;
		memset(reconcile, 0, sizeof(*reconcile));
		reconcile->context = context;
		reconcile->phase = RECONCILE_MIRROR;
		reconcile->step = STEP_SCAN;
		reconcile->began_at = now;
		mirror->look_at = 0;
		strlcpy(reconcile->cursor, "0", sizeof(reconcile->cursor));
		status_reconcile(mirror);
	}
	if (reconcile->phase != RECONCILE_MIRROR || now < reconcile->slice_at)
		return false;
	if (reconcile->step == STEP_SCAN)
	{
		glob(mirror->where.prefix, pattern);
		link_command(&mirror->link, 6, (SaField[]) {SA_FIELD("SCAN", 4), SA_FIELD_STR(reconcile->cursor), SA_FIELD("MATCH", 5),
					 SA_FIELD_STR(pattern), SA_FIELD("COUNT", 5), SA_FIELD(SLICE_TEXT, strlen(SLICE_TEXT))});
		return true;
	}
	if (reconcile->step == STEP_READ)
	{
		for (int i = 0; i < reconcile->count; i++)
		{
			link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(reconcile->keys[i].name)});
			link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("PEXPIRETIME", 11), SA_FIELD_STR(reconcile->keys[i].name)});
		}
		return true;
	}
	return false;
}

void
reconcile_take(Mirror *mirror)
{
	Reconcile  *reconcile = &mirror->reconcile;
	RedisLink  *link = &mirror->link;

	if (reconcile->step == STEP_SCAN)
	{
		const redisReply *reply = link->replies[0];
		MemoryContext old;

		if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
			reply->element[1]->type != REDIS_REPLY_ARRAY)
		{
			/* It may be a user without the right to. All else goes on. */
			status_mirror(mirror, "streaming", "it cannot be compared with the ledger: the server does not list its keys", NULL);
			reconcile->phase = RECONCILE_REST;
			reconcile->began_at = 0;
			reconcile->ended_at = clock_boot();
			status_reconcile(mirror);
			link_finish(link);
			return;
		}
		strlcpy(reconcile->cursor, reply->element[0]->str, sizeof(reconcile->cursor));
		reconcile->last = strcmp(reconcile->cursor, "0") == 0;
		if (reconcile->context == NULL)
			reconcile->context = AllocSetContextCreate(TopMemoryContext, "sessauth reconcile", ALLOCSET_DEFAULT_SIZES);
		MemoryContextReset(reconcile->context);
		old = MemoryContextSwitchTo(reconcile->context);
		reconcile->keys = palloc(sizeof(FoundKey) * (reply->element[1]->elements + 1));
		reconcile->count = found_names(mirror->where.prefix, reply->element[1], reconcile->keys);
		MemoryContextSwitchTo(old);
		reconcile->step = reconcile->count > 0 ? STEP_READ : STEP_REPAIR;
		reconcile->repair_count = reconcile->expiry_count = 0;
	}
	else
	{
		for (int i = 0; i < reconcile->count; i++)
		{
			found_value(&reconcile->keys[i], link->replies[2 * i]);
			found_expiry(&reconcile->keys[i], link->replies[2 * i + 1]);
		}
		reconcile->step = STEP_COMPARE;
	}
	link_finish(link);
}

/* The ledger is to be asked. */
bool
reconcile_pending(const Mirror *mirror, Instant now)
{
	const Reconcile *reconcile = &mirror->reconcile;

	return may_go_on(mirror) && now >= reconcile->slice_at &&
		((reconcile->phase == RECONCILE_MIRROR && reconcile->step >= STEP_COMPARE) || reconcile->phase == RECONCILE_LEDGER);
}

/* When the next slice, or reconciliation, is due. */
Instant
reconcile_next(const Mirror *mirror)
{
	const Reconcile *reconcile = &mirror->reconcile;

	return !may_go_on(mirror) ? INSTANT_NEVER : reconcile->phase == RECONCILE_REST ? due_at(reconcile) : reconcile->slice_at;
}

/* Transactions of their own, before the one that writes: what is ahead is adopted and committed. */
void
reconcile_compare(void)
{
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];
		Reconcile  *reconcile = &mirror->reconcile;
		Reconcile	before = *reconcile;
		MemoryContext old;

		if (!reconcile_pending(mirror, clock_boot()) || reconcile->phase != RECONCILE_MIRROR || reconcile->step != STEP_COMPARE)
			continue;
		if (worker_tx_begin() != WORKER_TX_OPEN)
			return;
		old = MemoryContextSwitchTo(reconcile->context);
		PG_TRY();
		{
			compare_found(reconcile);
		}
		PG_CATCH();
		{
			*reconcile = before;
			PG_RE_THROW();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(old);
		worker_tx_commit();
		if (reconcile->ahead > before.ahead)
			ereport(LOG,
					(errmsg("sessauth: mirror \"%s\" was ahead of the ledger in %lld keys", mirror->name, (long long) (reconcile->ahead - before.ahead)),
					 errhint("What had been revoked is adopted; the history has it as revocation_adopted.")));
		reconcile->step = STEP_REPAIR;
	}
}

/* In the transaction that writes, behind everything that it has queued. */
void
reconcile_plan(Mirror *mirror, const LedgerState *state)
{
	Reconcile  *reconcile = &mirror->reconcile;
	Instant		now = clock_boot();
	KeyItem    *items;
	int			count = 0;

	/* Nonces that have been read do not forbid it: this goes out with their beat. */
	if (mirror->phase != MIRROR_STREAMING || reconcile->phase == RECONCILE_REST || now < reconcile->slice_at || mirror->synced_at == 0 ||
		mirror->next_n != state->n || feed_has_more(&mirror->ahead))
		return;
	if (reconcile->phase == RECONCILE_MIRROR && reconcile->step != STEP_REPAIR)
		return;
	reconcile->slice_at = instant_after(now, PACE_MS);
	items = palloc(sizeof(KeyItem) * Max(SLICE, reconcile->repair_count));
	if (reconcile->phase == RECONCILE_MIRROR)
	{
		keys_delete(mirror, state, reconcile->repairs, reconcile->repair_count);
		for (int i = 0; i < reconcile->repair_count; i++)
			if (reconcile->repairs[i].rewrite && reconcile->repairs[i].name != NULL)
				items[count++] = reconcile->repairs[i].item;
		keys_write(mirror, state, items, count, KEYS_PLAIN);
		count = 0;
		for (int i = 0; i < reconcile->repair_count; i++)
			if (reconcile->repairs[i].rewrite && reconcile->repairs[i].name == NULL)
				items[count++] = reconcile->repairs[i].item;
		keys_write(mirror, state, items, count, KEYS_COUNTED);
		keys_expire(mirror, state, reconcile->expiries, reconcile->expiry_count);
		reconcile->repair_count = reconcile->expiry_count = 0;
		reconcile->step = STEP_SCAN;
		if (reconcile->last)
		{
			reconcile->phase = RECONCILE_LEDGER;
			reconcile->walk.sync = FEED_SYNC_TENANTS;
		}
	}
	else if (reconcile->walk.sync == FEED_SYNC_LAST)
		finish(mirror, now);
	else
	{
		reconcile->walk.news = ledger_news;
		count = feed_read(&reconcile->walk, state, mirror->cursors, SLICE, items);
		keys_write(mirror, state, items, count, KEYS_COUNTED);
		reconcile->checked += count;
	}
	status_reconcile(mirror);
}

/* What the script has found: "missing,stale". */
void
reconcile_tally(Mirror *mirror, const char *counts)
{
	long long	missing = 0;
	long long	stale = 0;

	(void) sscanf(counts, "%lld,%lld", &missing, &stale);
	mirror->reconcile.missing += missing;
	mirror->reconcile.stale += stale;
}

static void
finish(Mirror *mirror, Instant now)
{
	Reconcile  *reconcile = &mirror->reconcile;

	reconcile->phase = RECONCILE_REST;
	reconcile->ended_at = now;
	if (reconcile->began_at >= mirror->claimed_at)
		mirror->keys_compared = true;
	if (reconcile->missing + reconcile->stale + reconcile->foreign + reconcile->ahead > 0)
		ereport(LOG,
				(errmsg("sessauth: mirror \"%s\" was repaired: of %lld keys %lld were missing, %lld stale, %lld foreign, %lld ahead",
						mirror->name, (long long) reconcile->checked, (long long) reconcile->missing, (long long) reconcile->stale,
						(long long) reconcile->foreign, (long long) reconcile->ahead)));
}

/* SCAN's pattern for everything under the prefix. */
static void
glob(const char *prefix, char *out)
{
	for (; *prefix; prefix++)
	{
		if (strchr("*?[]\\^-", *prefix) != NULL)
			*out++ = '\\';
		*out++ = *prefix;
	}
	*out++ = '*';
	*out = '\0';
}

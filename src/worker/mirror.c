/*
 * mirror.c
 *		One mirror: its connection, and what it is ready for.
 *
 *	down → handshake → check → (adopt → check → claim) → streaming
 *
 * The handshake reads what the mirror says it is; the check, in a transaction,
 * compares that with the log. Where the mirror agrees, streaming goes on from where it is; where it
 * is empty, older or unknown, it is claimed and everything that still matters is sent again; but first the ledger adopts what only the mirror
 * remembers. A mirror that belongs to another ledger is not written to as long as that one lives.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"

#include "worker/worker.h"

#define CONNECT_TIMEOUT_MS	2000
#define EXCHANGE_TIMEOUT_MS 2000
#define BACKOFF_FIRST_MS	100
#define BACKOFF_MAX_MS		5000

static void advance_safely(Mirror *mirror, Instant now);
static void advance(Mirror *mirror, Instant now);
static void connect_now(Mirror *mirror, Instant now);
static void begin(Mirror *mirror, MirrorExchange exchange, Instant now);
static void done(Mirror *mirror, Instant now);
static const char *phase_name(const Mirror *mirror);

void
mirrors_advance(Instant now)
{
	for (int i = 0; i < mirror_count; i++)
		advance_safely(mirrors[i], now);
}

/* What a mirror cannot digest is its own trouble, not that of the others. */
static void
advance_safely(Mirror *mirror, Instant now)
{
	PG_TRY();
	{
		advance(mirror, now);
	}
	PG_CATCH();
	{
		MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sessauth error", ALLOCSET_SMALL_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		ErrorData  *error = CopyErrorData();

		FlushErrorState();
		HOLD_CANCEL_INTERRUPTS();	/* the error has reset it */
		MemoryContextSwitchTo(old);
		mirror_fail(mirror, error->message);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
}

static void
advance(Mirror *mirror, Instant now)
{
	if (mirror->phase == MIRROR_DOWN && mirror_link_key != NULL && now >= mirror->retry_at)
		connect_now(mirror, now);
	if (mirror->link.state == LINK_CLOSED)
		return;
	switch (link_progress(&mirror->link, now))
	{
		case LINK_CONNECTED:
			if (handshake_ask(mirror))
				begin(mirror, EXCHANGE_HANDSHAKE, now);
			break;
		case LINK_DONE:
			done(mirror, now);
			break;
		case LINK_FAILED:
			mirror_fail(mirror, mirror->link.error);
			break;
		case LINK_WAIT:
			break;
	}

	if (mirror->phase == MIRROR_ADOPT && mirror->exchange == EXCHANGE_NONE && mirror->remembered_count == 0 &&
		mirror->adopt_from[0] != '\0')
	{
		adopt_ask(mirror);
		begin(mirror, EXCHANGE_ADOPT, now);
	}

	if (now < mirror->next_beat && reconcile_ask(mirror, now))
		begin(mirror, EXCHANGE_RECONCILE, now);

	/* A beat begins with the nonces, which must be read before the transaction that it vouches for. */
	if (mirror->phase == MIRROR_STREAMING && mirror->exchange == EXCHANGE_NONE && !mirror->nonces_read &&
		now >= mirror->next_beat)
	{
		nonces_ask(mirror);
		handshake_look_ask(mirror, now);
		begin(mirror, EXCHANGE_NONCES, now);
	}
}

bool
mirrors_need_transaction(void)
{
	for (int i = 0; i < mirror_count; i++)
		if (publish_may_add(mirrors[i]) ? publish_has_more(mirrors[i]) :
			mirrors[i]->exchange == EXCHANGE_NONE &&
			(mirrors[i]->phase == MIRROR_CHECK || mirrors[i]->phase == MIRROR_RELEASED ||
			 adopt_pending(mirrors[i], clock_boot()) || reconcile_pending(mirrors[i], clock_boot()) ||
			 (mirrors[i]->phase == MIRROR_STREAMING &&
			  (mirrors[i]->nonces_read || mirrors[i]->behind > 0 || keys_pending(mirrors[i])))))
			return true;
	return false;
}

/* When mirrors_advance must be called again although nothing has arrived; what waits for a transaction waits for next_round. */
Instant
mirrors_next_event(Instant now, Instant next_round)
{
	Instant		next = INSTANT_NEVER;

	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		if (mirror->exchange == EXCHANGE_NONE &&
			(mirror->phase == MIRROR_CHECK || (mirror->phase == MIRROR_STREAMING && mirror->nonces_read)))
			next = Min(next, next_round);
		else if (mirror->phase == MIRROR_ADOPT && mirror->exchange == EXCHANGE_NONE)
			next = Min(next, Max(mirror->adopt_retry_at, next_round));
		else if (mirror->phase == MIRROR_DOWN && mirror_link_key != NULL)
			next = Min(next, mirror->retry_at);
		else if (publish_may_add(mirror) && publish_has_more(mirror))
			next = Min(next, now);
		else if (mirror->exchange != EXCHANGE_NONE || mirror->link.state == LINK_CONNECTING)
			next = Min(next, link_next_event(&mirror->link));
		else if (mirror->phase == MIRROR_STREAMING)
			next = Min(next, mirrors_need_transaction() ? next_round : Min(mirror->next_beat, Max(reconcile_next(mirror), now)));
	}
	return next;
}

/* Inside the transaction: what each mirror that has an ear for it will be sent. */
void
mirrors_plan(LedgerState *state)
{
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		if (publish_may_add(mirror))
			publish_more(mirror, state);
		if (mirror->exchange != EXCHANGE_NONE || mirror->link.state != LINK_READY)
			continue;
		if (mirror->phase == MIRROR_CHECK)
			publish_check(mirror, state);
		if (mirror->phase == MIRROR_STREAMING && mirror->resync_asked > mirror->sync_began_at)
			keys_sync(mirror, state);
		if (mirror->phase == MIRROR_STREAMING)
			publish_plan(mirror, state);
	}
}

void
mirrors_send(Instant now)
{
	for (int i = 0; i < mirror_count; i++)
	{
		if (mirrors[i]->adding)
			link_extend(&mirrors[i]->link, instant_after(now, EXCHANGE_TIMEOUT_MS));
		publish_added(mirrors[i], true);
		if (mirrors[i]->exchange == EXCHANGE_NONE && mirrors[i]->link.state == LINK_READY && mirrors[i]->link.expected > 0)
			begin(mirrors[i], mirrors[i]->phase == MIRROR_CLAIM ? EXCHANGE_CLAIM :
				  mirrors[i]->phase == MIRROR_RELEASED ? EXCHANGE_RELEASE : EXCHANGE_PUBLISH, now);
	}
}

void
mirrors_discard(void)
{
	for (int i = 0; i < mirror_count; i++)
	{
		mirrors[i]->store_feed |= mirrors[i]->storing;
		mirrors[i]->storing = false;
		publish_added(mirrors[i], false);
		if (mirrors[i]->exchange == EXCHANGE_NONE && mirrors[i]->link.state == LINK_READY)
		{
			link_finish(&mirrors[i]->link);
			keys_settle(mirrors[i], false);
			reconcile_reset(mirrors[i]);
			if (mirrors[i]->phase == MIRROR_CLAIM)
				mirrors[i]->phase = MIRROR_CHECK;
			if (mirrors[i]->phase == MIRROR_RELEASED)
				mirrors[i]->phase = MIRROR_STREAMING;
		}
	}
}

void
mirror_script(Mirror *mirror, int script, int nkeys, int argc, const SaField *argv)
{
	SaField    *args = palloc(sizeof(SaField) * (argc + 3));
	char	   *keys = psprintf("%d", nkeys);

	args[0] = SA_FIELD("EVALSHA", 7);
	args[1] = SA_FIELD(mirror->script_sha[script], 40);
	args[2] = SA_FIELD_STR(keys);
	memcpy(args + 3, argv, sizeof(SaField) * argc);
	link_command(&mirror->link, argc + 3, args);
	mirror->publishing++;
	pfree(args);
	pfree(keys);
}

static void
begin(Mirror *mirror, MirrorExchange exchange, Instant now)
{
	mirror->exchange = exchange;
	link_begin(&mirror->link, instant_after(now, EXCHANGE_TIMEOUT_MS));
}

static void
connect_now(Mirror *mirror, Instant now)
{
	mirror->phase = MIRROR_HANDSHAKE;
	mirror->adopted = false;
	if (!link_connect(&mirror->link, &mirror->where, instant_after(now, CONNECT_TIMEOUT_MS)))
		mirror_fail(mirror, mirror->link.error);
}

static void
done(Mirror *mirror, Instant now)
{
	MirrorExchange exchange = mirror->exchange;
	const char *why;

	mirror->exchange = EXCHANGE_NONE;
	switch (exchange)
	{
		case EXCHANGE_HANDSHAKE:
			why = handshake_take(mirror);
			link_finish(&mirror->link);
			if (why)
				mirror_fail(mirror, why);
			else
				mirror->phase = MIRROR_CHECK;
			break;
		case EXCHANGE_ADOPT:
			adopt_take(mirror, mirror->link.replies[0]);
			link_finish(&mirror->link);
			break;
		case EXCHANGE_CLAIM:
			if (mirror->link.replies[0]->type == REDIS_REPLY_STRING && strcmp(mirror->link.replies[0]->str, "OK") == 0)
			{
				link_finish(&mirror->link);
				mirror_recovered(mirror);
			}
			else if (mirror->link.replies[0]->type == REDIS_REPLY_ERROR)
			{
				char		text[LINK_ERROR_SIZE];

				link_error_text(mirror->link.replies[0]->str, text, sizeof(text));
				mirror_fail(mirror, text);
			}
			else
				mirror_fail(mirror, "the mirror belongs to another ledger");
			break;
		case EXCHANGE_NONCES:
			nonces_take(mirror, mirror->link.replies[0], now);
			if (mirror->link.count > 1)
				handshake_look_take(mirror, mirror->link.replies[1]);
			link_finish(&mirror->link);
			break;
		case EXCHANGE_PUBLISH:
			publish_done(mirror, now);
			break;
		case EXCHANGE_RECONCILE:
			reconcile_take(mirror);
			break;
		case EXCHANGE_RELEASE:
			link_finish(&mirror->link);
			break;
		case EXCHANGE_NONE:
			break;
	}
}

/* Connected and in agreement with the log. */
void
mirror_recovered(Mirror *mirror)
{
	mirror->phase = MIRROR_STREAMING;
	mirror->lost = false;
	mirror->next_beat = 0;
	mirror->nonces_read = false;
	if (mirror->outage)
		ereport(LOG, (errmsg("sessauth: mirror \"%s\" is back", mirror->name)));
	mirror->outage = false;
	status_mirror(mirror, "streaming", "", NULL);
}

/* Closes the link and plans the next try; one log line for each outage. A NULL error is a change of settings. */
void
mirror_fail(Mirror *mirror, const char *error)
{
	char		text[LINK_ERROR_SIZE];

	strlcpy(text, error ? error : "", sizeof(text));	/* it may live in the link that is closed now */
	link_close(&mirror->link);
	mirror->adding = false;
	keys_settle(mirror, false);
	reconcile_reset(mirror);
	mirror->phase = MIRROR_DOWN;
	mirror->exchange = EXCHANGE_NONE;
	mirror->nonces_read = false;
	mirror->backoff = mirror->backoff == 0 ? BACKOFF_FIRST_MS : Min(mirror->backoff * 2, BACKOFF_MAX_MS);
	mirror->retry_at = instant_after(clock_boot(), mirror->backoff / 2 + (int) (random() % (mirror->backoff / 2 + 1)));
	if (error && !mirror->outage)
	{
		ereport(LOG,
				(errmsg("sessauth: mirror \"%s\" is down: %s", mirror->name, text),
				 errhint("Logins and revocations go on; what the mirror misses is sent when it is back.")));
		mirror->outage = true;
	}
	status_mirror(mirror, "down", error ? text : "", NULL);
}

void
mirrors_show(void)
{
	static char shown[128];
	char		text[128];
	int			streaming = 0;
	int			syncing = 0;

	for (int i = 0; i < mirror_count; i++)
	{
		if (mirrors[i]->phase != MIRROR_DOWN)
			status_mirror(mirrors[i], phase_name(mirrors[i]), NULL, NULL);
		if (mirrors[i]->phase == MIRROR_STREAMING)
			(*(mirrors[i]->feed.sync != FEED_SYNC_NONE ? &syncing : &streaming))++;
	}

	/* For pg_stat_activity. */
	snprintf(text, sizeof(text), "mirrors: %d streaming, %d syncing, %d not connected", streaming, syncing, mirror_count - streaming - syncing);
	if (strcmp(shown, text) == 0)
		return;
	strlcpy(shown, text, sizeof(shown));
	pgstat_report_activity(STATE_IDLE, text);
}

static const char *
phase_name(const Mirror *mirror)
{
	switch (mirror->phase)
	{
		case MIRROR_DOWN:
			return "down";
		case MIRROR_STREAMING:
			return mirror->feed.sync != FEED_SYNC_NONE ? "syncing" : "streaming";
		default:
			return "connecting";
	}
}

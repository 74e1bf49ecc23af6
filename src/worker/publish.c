/*
 * publish.c
 *		The stream of a mirror: entries, beats, answers.
 *
 * Order is everything here (doc/protocol.md, section 4): nonces are read, then
 * a snapshot is taken and what it sees is numbered, then entries are appended, then the beat and the
 * answers go out. One pipeline carries entries, the beat and keys; each script checks that the mirror
 * is exactly where we left it, so when one of them finds otherwise those behind it do nothing. That is why
 * more can be added to a pipeline before its first replies are here: Redis works on one batch while we read the next.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "server/settings.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define ENTRIES_PER_ROUND	2000
#define ENTRIES_PER_SCRIPT	100
#define UNANSWERED_MAX		48		/* scripts: about one round's */
#define SCRIPTS_MAX			2000	/* of one exchange: its end is when they count as arrived */
#define REMOVALS_PER_BEAT	64
#define SCHEMA				"1"
#define BLAME_FIRST_MS		1000	/* how long a mirror that was found ahead of the ledger is not believed again */
#define BLAME_MAX_MS		300000
#define BLAME_FORGET_MS		3600000

static bool may_blame(Mirror *mirror);
static bool tail_is_ours(const Mirror *mirror, const LedgerState *state);
static bool is_older(const char *a, const char *b);
static void claim(Mirror *mirror, const LedgerState *state, bool drop_stream);
static bool plan_entries(Mirror *mirror, const LedgerState *state);
static bool is_dense(const SaEntry *entries, int count, int64 first);
static void plan_beat(Mirror *mirror, const LedgerState *state);
static SaField number(int64 value);

/*
 * Compares what the mirror says it is with the log. Redis may have lost anything:
 *
 *	nothing there		flushed or new: everything that matters is sent, into a new stream
 *	another owner		left alone while it lives
 *	another generation	ours from before: the same, behind what is there
 *	behind us			an older copy: the same entries again, under the same numbers
 *	ahead of us			the ledger has gone back in time: its numbers would repeat, so a new generation
 *
 * Keys say nothing about what is missing. Another life of the Redis process, another database or prefix, or a stream
 * that ends before what it has confirmed, means that some may be.
 */
void
publish_check(Mirror *mirror, LedgerState *state)
{
	bool		keys_lost = !mirror->found_synced || mirror->feed.seen == NULL ||
		strcmp(mirror->place, mirror->feed_place) != 0 ||
		(mirror->id[0] != '\0' && is_older(mirror->found_id, mirror->id));

	bool		foreign = mirror->found && strcmp(mirror->found_owner, state->ledger_id) != 0;
	bool		known = mirror->found && !foreign && strcmp(mirror->found_generation, state->generation) == 0;
	bool		ahead = known && (mirror->found_n > state->n || !tail_is_ours(mirror, state));

	mirror->keys_n = -1;
	if (foreign && !ownership_lapsed(mirror))
		return;
	if (!known)
		mirror->lost = false;
	if (ahead && (mirror->adopted || clock_boot() < mirror->blame_after) && !may_blame(mirror))
		return;
	if ((!known || ahead || mirror->lost) && !mirror->adopted)
	{
		adopt_begin(mirror);
		return;
	}
	if (ahead)
	{
		open_generation(state, "a mirror remembers more than this ledger: its storage went back in time");
		find_low(state);
	}

	strlcpy(mirror->generation, state->generation, sizeof(mirror->generation));
	if (!known || ahead)
		claim(mirror, state, !mirror->found && mirror->found_generation[0] == '\0');
	else if (mirror->lost)
	{
		/* It says what it should, but the stream is not what it says. */
		if (keys_lost)
			keys_sync(mirror, state);
		claim(mirror, state, true);
	}
	else
	{
		if (keys_lost)
			keys_sync(mirror, state);
		mirror->n = mirror->found_n;
		strlcpy(mirror->tail, mirror->found_tail, sizeof(mirror->tail));
		strlcpy(mirror->id, mirror->found_id, sizeof(mirror->id));
		mirror_recovered(mirror);
	}
}

/*
 * Anybody who can write to that Redis can make it claim to be ahead. It is believed, because the other choice would be to
 * use numbers twice, but less and less often: a new generation costs every mirror and every node a full round.
 */
static bool
may_blame(Mirror *mirror)
{
	Instant		now = clock_boot();

	if (now < mirror->blame_after)
	{
		mirror_fail(mirror, "it claims again to be ahead of the ledger");
		mirror->retry_at = mirror->blame_after;
		return false;
	}
	if (instant_is_past(mirror->blame_after, now, BLAME_FORGET_MS))
		mirror->blames = 0;
	mirror->blame_after = instant_after(now, Min(BLAME_FIRST_MS << Min(mirror->blames, 16), BLAME_MAX_MS));
	mirror->blames++;
	return true;
}

/* What the log has forgotten no token can need; there is nothing to compare with. Nor is there in a stream that was begun anew. */
static bool
tail_is_ours(const Mirror *mirror, const LedgerState *state)
{
	SaEntry		entry;
	SaEntryStore store;
	SaField		args[SA_ENTRY_ARGS];
	char		stream[SA_REDIS_KEY_SIZE];

	if (mirror->found_tail[0] == '\0')
		return true;
	if (!log_entry_read(state, mirror->found_n, &entry))
		return mirror->found_n < state->low;
	sa_name_stream(mirror->where.prefix, stream);
	return sa_entry_args(mirror_link_key, stream, &entry, &store, args) > 0 && strcmp(store.mac, mirror->found_tail) == 0;
}

/* Stream ids are "milliseconds-sequence"; what is not one is older than any. */
static bool
is_older(const char *a, const char *b)
{
	unsigned long long ams = 0,
				aseq = 0,
				bms = 0,
				bseq = 0;

	(void) sscanf(a, "%llu-%llu", &ams, &aseq);
	(void) sscanf(b, "%llu-%llu", &bms, &bseq);
	return ams < bms || (ams == bms && aseq < bseq);
}

/*
 * Writes our name and starts from what still matters. A stream of another
 * generation stays: nodes may not have read all of it, and a revocation is true for ever.
 */
static void
claim(Mirror *mirror, const LedgerState *state, bool drop_stream)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	SaField		argv[13];
	bool		foreign = mirror->found && strcmp(mirror->found_owner, state->ledger_id) != 0;

	receipts_hold(mirror);
	if (!mirror->lost)
		keys_sync(mirror, state);
	mirror->n = state->low - 1;
	mirror->claimed_at = clock_boot();
	mirror->keys_compared = false;
	mirror->pages_until = 0;
	mirror->tail[0] = mirror->id[0] = '\0';
	sa_name_mirror(mirror->where.prefix, mirror_key);
	sa_name_stream(mirror->where.prefix, stream);
	argv[0] = SA_FIELD_STR(mirror_key);
	argv[1] = SA_FIELD_STR(stream);
	argv[2] = SA_FIELD_STR(state->ledger_id);
	argv[3] = SA_FIELD_STR(mirror->generation);
	argv[4] = number(mirror->n);
	argv[5] = number(state->timeline);
	argv[6] = SA_FIELD_STR(SCHEMA);
	argv[7] = number(state->low);
	argv[8] = SA_FIELD(drop_stream ? "1" : "0", 1);
	argv[9] = mirror->synced_at == 0 ? SA_FIELD("", 0) : number(unix_ms(mirror->synced_at));
	argv[10] = number(receipts_longest(mirror));
	argv[11] = foreign ? SA_FIELD_STR(mirror->found_owner) : SA_FIELD("", 0);
	argv[12] = foreign ? SA_FIELD_STR(mirror->found_id) : SA_FIELD("", 0);
	mirror_script(mirror, SCRIPT_CLAIM, 2, 13, argv);
	mirror->phase = MIRROR_CLAIM;
}

void
publish_plan(Mirror *mirror, LedgerState *state)
{
	mirror->publishing = 0;
	mirror->beating = false;
	mirror->next_n = mirror->n;
	strlcpy(mirror->next_tail, mirror->tail, sizeof(mirror->next_tail));
	mirror->ahead = mirror->feed;
	if (strcmp(mirror->generation, state->generation) == 0 && !plan_entries(mirror, state))
	{
		/* Somebody has deleted rows of it, or written into it. Dense numbers are what nodes go by. */
		link_finish(&mirror->link);
		open_generation(state, "somebody has changed the revocation log");
		find_low(state);
	}
	if (strcmp(mirror->generation, state->generation) != 0)
	{
		/* As we left it: what it has of before may be more than the ledger that goes on has. */
		mirror->found = true;
		strlcpy(mirror->found_owner, state->ledger_id, sizeof(mirror->found_owner));
		strlcpy(mirror->found_generation, mirror->generation, sizeof(mirror->found_generation));
		adopt_begin(mirror);
		return;
	}
	if (mirror->nonces_read && mirror->next_n == state->n)
		plan_beat(mirror, state);
	keys_plan(mirror, state);
	reconcile_plan(mirror, state);
	if (mirror->publishing == 0)
		keys_settle(mirror, true);
}

bool
publish_may_add(const Mirror *mirror)
{
	int			unanswered = link_unanswered(&mirror->link);

	/* Nonces, a beat and the end of a full sync have their place at the beginning or the end of an exchange. */
	return mirror->phase == MIRROR_STREAMING && mirror->exchange == EXCHANGE_PUBLISH && !mirror->beating &&
		mirror->ahead.sync != FEED_SYNC_LAST && (mirror->nonces_read || clock_boot() < mirror->next_beat) &&
		unanswered > 0 && unanswered <= UNANSWERED_MAX && mirror->link.expected <= SCRIPTS_MAX;
}

bool
publish_has_more(const Mirror *mirror)
{
	return mirror->behind > mirror->next_n - mirror->n || feed_has_more(&mirror->ahead);
}

/* What cannot be said in the generation of the exchange under way waits for its end. */
void
publish_more(Mirror *mirror, const LedgerState *state)
{
	if (strcmp(mirror->generation, state->generation) != 0)
		return;
	mirror->adding = true;
	mirror->kept_n = mirror->next_n;
	strlcpy(mirror->kept_tail, mirror->next_tail, sizeof(mirror->kept_tail));
	mirror->kept_ahead = mirror->ahead;
	if (!plan_entries(mirror, state))
	{
		publish_added(mirror, false);
		return;
	}
	if (mirror->nonces_read && mirror->next_n == state->n)
		plan_beat(mirror, state);
	keys_plan(mirror, state);
}

void
publish_added(Mirror *mirror, bool committed)
{
	if (!mirror->adding)
		return;
	mirror->adding = false;
	if (committed)
		return;
	link_drop(&mirror->link);
	mirror->next_n = mirror->kept_n;
	strlcpy(mirror->next_tail, mirror->kept_tail, sizeof(mirror->next_tail));
	mirror->ahead = mirror->kept_ahead;
	mirror->beating = false;
}

/* False when the log has a hole, or an entry that cannot be said; what is queued then must not be sent. */
static bool
plan_entries(Mirror *mirror, const LedgerState *state)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	SaEntry    *entries = NULL;
	int64		after = Max(mirror->next_n, Min(state->low, state->n) - 1); /* below low nothing matters any more */
	int			count = mirror->next_n < state->n ? log_entries_read(state, after, ENTRIES_PER_ROUND, &entries) : 0;

	mirror->behind = state->n - mirror->n;
	if (mirror->next_n < state->n && !is_dense(entries, count, after + 1))
		return false;

	sa_name_mirror(mirror->where.prefix, mirror_key);
	sa_name_stream(mirror->where.prefix, stream);
	for (int i = 0, n; i < count; i += n)
	{
		SaField    *argv = palloc(sizeof(SaField) * (7 + ENTRIES_PER_SCRIPT * SA_ENTRY_ARGS));
		SaEntryStore *stores = palloc(sizeof(SaEntryStore) * ENTRIES_PER_SCRIPT);

		n = Min(Min(ENTRIES_PER_SCRIPT, count - i), page_left(entries[i].n));
		argv[0] = SA_FIELD_STR(mirror_key);
		argv[1] = SA_FIELD_STR(stream);
		argv[2] = SA_FIELD_STR(state->ledger_id);
		argv[3] = SA_FIELD_STR(mirror->generation);
		argv[4] = number(mirror->next_n);
		argv[5] = SA_FIELD_STR(mirror->next_tail);
		argv[6] = number(state->low);
		for (int j = 0; j < n; j++)
			if (sa_entry_args(mirror_link_key, stream, &entries[i + j], &stores[j], argv + 7 + j * SA_ENTRY_ARGS) != SA_ENTRY_ARGS)
				return false;
		mirror_script(mirror, SCRIPT_APPEND, 2, 7 + n * SA_ENTRY_ARGS, argv);
		mirror->next_n = entries[i + n - 1].n;
		strlcpy(mirror->next_tail, stores[n - 1].mac, sizeof(mirror->next_tail));
		if (page_left(mirror->next_n) == 1)
			page_plan(mirror, state, entries, i + n);
	}
	mirror->since_trim += count;
	return true;
}

static bool
is_dense(const SaEntry *entries, int count, int64 first)
{
	for (int i = 0; i < count; i++)
		if (entries[i].n != first + i)
			return false;
	return count > 0;
}

static void
plan_beat(Mirror *mirror, const LedgerState *state)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	char		answers[SA_REDIS_KEY_SIZE];
	char		nodes[SA_REDIS_KEY_SIZE];
	SaEntry		beat = {.kind = SA_KIND_BEAT};
	SaEntryStore store;
	SaField    *argv = palloc(sizeof(SaField) * (13 + SA_BEAT_FIELDS * 2 + mirror->pending_count * 2 + REMOVALS_PER_BEAT));
	HASH_SEQ_STATUS seq;
	KnownNode  *node;
	int			argc;
	int			removals = 0;

	strlcpy(beat.g, mirror->generation, sizeof(beat.g));
	beat.n = state->n;
	beat.b = mirror->beats + 1;
	beat.low = state->low;
	beat.at = state->now_ms;
	if (!salvage_allows_leases())
		nonces_put_off(mirror);
	sa_name_mirror(mirror->where.prefix, mirror_key);
	sa_name_stream(mirror->where.prefix, stream);
	sa_name_answers(mirror->where.prefix, answers);
	sa_name_nodes(mirror->where.prefix, nodes);
	argv[0] = SA_FIELD_STR(mirror_key);
	argv[1] = SA_FIELD_STR(stream);
	argv[2] = SA_FIELD_STR(answers);
	argv[3] = SA_FIELD_STR(nodes);
	argv[4] = SA_FIELD_STR(state->ledger_id);
	argv[5] = SA_FIELD_STR(mirror->generation);
	argv[6] = number(mirror->next_n);
	argv[7] = SA_FIELD_STR(mirror->next_tail);
	argv[8] = number(state->low);
	argv[9] = number(100 + 2 * Min(mirror->since_trim, ENTRIES_PER_ROUND));
	argv[10] = number(receipts_longest(mirror));
	argv[11] = mirror->keys_n < 0 ? SA_FIELD("", 0) : number(mirror->keys_n);
	if (sa_entry_args(mirror_link_key, stream, &beat, &store, argv + 12) != SA_BEAT_FIELDS * 2)
		elog(ERROR, "sessauth: could not authenticate a beat");
	argc = 12 + SA_BEAT_FIELDS * 2;

	argv[argc++] = number(mirror->pending_count);
	for (int i = 0; i < mirror->pending_count; i++)
	{
		PendingNonce *pending = &mirror->pending[i];
		SaAnswer	answer = {.n = beat.n, .low = beat.low, .b = beat.b, .at = beat.at};
		char	   *line = palloc(SA_LINE_SIZE);
		size_t		len;

		receipts_answering(mirror, state, pending);
		strlcpy(answer.nonce, pending->nonce.nonce, sizeof(answer.nonce));
		strlcpy(answer.g, mirror->generation, sizeof(answer.g));
		len = sa_answer_write(mirror_link_key, answers, pending->node, &answer, line);
		if (len == 0)
			elog(ERROR, "sessauth: could not authenticate an answer");
		argv[argc++] = SA_FIELD_STR(pending->node);
		argv[argc++] = SA_FIELD(line, len);
	}
	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		if (node->leaving && removals++ < REMOVALS_PER_BEAT)
			argv[argc++] = SA_FIELD_STR(node->node);
	mirror_script(mirror, SCRIPT_BEAT, 4, argc, argv);
	mirror->beating = true;
}

/* Everything has arrived, or something was not as expected: then the handshake finds out what. */
void
publish_done(Mirror *mirror, Instant now)
{
	RedisLink  *link = &mirror->link;
	bool		beaten = mirror->beating;

	for (int i = 0; i < link->count; i++)
	{
		redisReply *reply = link->replies[i];
		const char *text = reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_ERROR ? reply->str : "?";
		char		why[LINK_ERROR_SIZE];

		if (reply->type != REDIS_REPLY_ERROR && strncmp(text, "OK", 2) == 0)
		{
			/* "OK" and the id of the stream's last entry. */
			if (text[2] == ' ')
				strlcpy(mirror->id, text + 3, sizeof(mirror->id));
			else if (text[2] == '=')
				reconcile_tally(mirror, text + 3);
			continue;
		}
		if (reply->type == REDIS_REPLY_ERROR)
			link_error_text(text, why, sizeof(why));
		else
		{
			char		said[LINK_ERROR_SIZE];

			link_error_text(text, said, sizeof(said));
			snprintf(why, sizeof(why), "it is not as it was left (%.20s)", said);
			mirror->lost = strcmp(text, "stream") == 0 || strcmp(text, "trimmed") == 0;
		}
		mirror_fail(mirror, why);
		return;
	}
	link_finish(link);

	mirror->backoff = 0;
	mirror->behind -= mirror->next_n - mirror->n;
	mirror->n = mirror->next_n;
	strlcpy(mirror->tail, mirror->next_tail, sizeof(mirror->tail));
	receipts_published();
	if (mirror->beating)
	{
		nonces_answered(mirror);
		mirror->beating = false;
		mirror->beats++;
		mirror->last_beat_at = GetCurrentTimestamp();
		mirror->since_trim = 0;
		mirror->next_beat = instant_after(now, setting_heartbeat_interval);
	}
	keys_settle(mirror, true);

	/*
	 * Said with the next beat: only now it is certain that no key of this round is missing. Before the first comparison a key may be there
	 * that is ahead of a ledger which has gone back in time, and then no write of ours replaces it.
	 */
	if (beaten && mirror->keys_compared && !keys_pending(mirror))
		mirror->keys_n = mirror->n;
}

/* Decimal text in the round's memory. */
static SaField
number(int64 value)
{
	char	   *text = psprintf(INT64_FORMAT, value);

	return SA_FIELD_STR(text);
}

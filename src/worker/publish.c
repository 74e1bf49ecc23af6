/*
 * publish.c
 *		What a mirror is sent.
 *
 * Order is everything here (doc/protocol.md, section 4): nonces are read, then
 * a snapshot is taken and what it sees is numbered, then entries are appended, then the beat and the
 * answers go out. One pipeline carries keys, entries and the beat; each script checks that the mirror
 * is exactly where we left it, so when one of them finds otherwise those behind it do nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "server/settings.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"

#define ENTRIES_PER_ROUND	2000
#define ENTRIES_PER_SCRIPT	100
#define KEYS_PER_ROUND		1000
#define KEY_SLACK_S			60	/* keys outlive their last token by this */
#define FORGET_LEASES		10	/* a node silent for so many times sessauth.max_lease is forgotten */

static void claim(Mirror *mirror, const LedgerState *state);
static void plan_entries(Mirror *mirror, const LedgerState *state);
static void plan_beat(Mirror *mirror, const LedgerState *state);
static void plan_keys(Mirror *mirror, const LedgerState *state);
static void plan_sync(Mirror *mirror, const LedgerState *state);
static void put_session(Mirror *mirror, const char *tid, const char *uid, const char *sid, int64 epoch, int64 tepoch,
						int64 exp, bool live, int64 version, int64 user_epoch, int64 tenant_epoch);
static void put_epoch(Mirror *mirror, const char *tid, const char *uid, int64 epoch, int64 expire_at);
static void move_cursor(Mirror *mirror, const char *seen, const char *target, int64 after_event);
static void keep(char **where, const char *text);
static void forget_silent_nodes(Mirror *mirror, TimestampTz now);
static const char *text_of(uint64 row, int column);
static int64 int8_of(uint64 row, int column);
static SaField number(int64 value);

/*
 * Compares what the mirror says it is with the log.
 */
void
publish_check(Mirror *mirror, LedgerState *state)
{
	SaEntry		entry;
	SaEntryStore store;
	SaField		args[SA_ENTRY_ARGS];
	char		stream[SA_REDIS_KEY_SIZE];

	strlcpy(mirror->generation, state->generation, sizeof(mirror->generation));
	if (mirror->found && strcmp(mirror->found_owner, state->ledger_id) != 0)
	{
		mirror_fail(mirror, "the mirror belongs to another ledger");
		return;
	}
	if (!mirror->found || strcmp(mirror->found_generation, state->generation) != 0 || mirror->found_tail[0] == '\0')
	{
		claim(mirror, state);
		return;
	}
	if (mirror->found_n <= state->n && !log_entry_read(state, mirror->found_n, &entry))
	{
		/* The log has forgotten it, so no token can need it; there is nothing to compare with. */
		if (mirror->found_n >= state->low)
			elog(ERROR, "sessauth: entry " INT64_FORMAT " of the revocation log is missing", mirror->found_n);
	}
	else
	{
		bool		same = false;

		sa_name_stream("", stream);
		if (mirror->found_n <= state->n && sa_entry_args(mirror_link_key, stream, &entry, &store, args) > 0)
			same = strcmp(store.mac, mirror->found_tail) == 0;
		if (!same)
		{
			open_generation(state, "a mirror remembers more than this ledger: its storage went back in time");
			find_low(state);
			strlcpy(mirror->generation, state->generation, sizeof(mirror->generation));
			claim(mirror, state);
			return;
		}
	}
	if (mirror->lost)
	{
		/* It says what it should, but the stream is not what it says. */
		claim(mirror, state);
		return;
	}
	mirror->n = mirror->found_n;
	strlcpy(mirror->tail, mirror->found_tail, sizeof(mirror->tail));
	mirror_recovered(mirror);
}

/* Writes our name and starts from what still matters; the keys are sent again too. */
static void
claim(Mirror *mirror, const LedgerState *state)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	SaField		argv[7];

	mirror->n = state->low - 1;
	mirror->tail[0] = '\0';
	mirror->has_cursor = false;
	mirror->syncing = false;
	sa_name_mirror("", mirror_key);
	sa_name_stream("", stream);
	argv[0] = SA_FIELD_STR(mirror_key);
	argv[1] = SA_FIELD_STR(stream);
	argv[2] = SA_FIELD_STR(state->ledger_id);
	argv[3] = SA_FIELD_STR(mirror->generation);
	argv[4] = number(mirror->n);
	argv[5] = number(state->timeline);
	argv[6] = SA_FIELD("1", 1);
	mirror_script(mirror, SCRIPT_CLAIM, 2, 7, argv);
	mirror->phase = MIRROR_CLAIM;
}

void
publish_plan(Mirror *mirror, const LedgerState *state)
{
	mirror->behind = state->n - mirror->n;
	if (strcmp(mirror->generation, state->generation) != 0)
	{
		/* Another mirror's check has opened a new one. */
		strlcpy(mirror->generation, state->generation, sizeof(mirror->generation));
		claim(mirror, state);
		return;
	}
	mirror->publishing = 0;
	mirror->beating = false;
	plan_entries(mirror, state);
	if (mirror->nonces_read && mirror->next_n == state->n)
		plan_beat(mirror, state);
	if (mirror->has_cursor && !mirror->syncing)
		plan_keys(mirror, state);
	else
		plan_sync(mirror, state);
}

static void
plan_entries(Mirror *mirror, const LedgerState *state)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	SaEntry    *entries;
	int			count = mirror->behind > 0 ? log_entries_read(state, mirror->n, ENTRIES_PER_ROUND, &entries) : 0;

	mirror->next_n = mirror->n;
	strlcpy(mirror->next_tail, mirror->tail, sizeof(mirror->next_tail));
	sa_name_mirror("", mirror_key);
	sa_name_stream("", stream);
	for (int i = 0; i < count; i += ENTRIES_PER_SCRIPT)
	{
		int			n = Min(ENTRIES_PER_SCRIPT, count - i);
		SaField    *argv = palloc(sizeof(SaField) * (9 + n * SA_ENTRY_ARGS));
		SaEntryStore *stores = palloc(sizeof(SaEntryStore) * n);
		char	   *tail = pstrdup(mirror->next_tail);

		argv[0] = SA_FIELD_STR(mirror_key);
		argv[1] = SA_FIELD_STR(stream);
		argv[2] = SA_FIELD_STR(state->ledger_id);
		argv[3] = SA_FIELD_STR(mirror->generation);
		argv[4] = number(mirror->next_n);
		argv[5] = SA_FIELD_STR(tail);
		argv[6] = number(state->low);
		for (int j = 0; j < n; j++)
		{
			if (entries[i + j].n != mirror->next_n + j + 1)
				elog(ERROR, "sessauth: the revocation log has a hole before " INT64_FORMAT, entries[i + j].n);
			if (sa_entry_args(mirror_link_key, stream, &entries[i + j], &stores[j], argv + 9 + j * SA_ENTRY_ARGS) != SA_ENTRY_ARGS)
				elog(ERROR, "sessauth: could not authenticate an entry");
		}
		mirror->next_n = entries[i + n - 1].n;
		strlcpy(mirror->next_tail, stores[n - 1].mac, sizeof(mirror->next_tail));
		argv[7] = number(mirror->next_n);
		argv[8] = SA_FIELD_STR(stores[n - 1].mac);
		mirror_script(mirror, SCRIPT_APPEND, 2, 9 + n * SA_ENTRY_ARGS, argv);
		mirror->publishing++;
	}
	mirror->since_trim += count;
}

static void
plan_beat(Mirror *mirror, const LedgerState *state)
{
	char		mirror_key[SA_REDIS_KEY_SIZE];
	char		stream[SA_REDIS_KEY_SIZE];
	char		answers[SA_REDIS_KEY_SIZE];
	SaEntry		beat = {.kind = SA_KIND_BEAT};
	SaEntryStore store;
	SaField    *argv = palloc(sizeof(SaField) * (9 + SA_BEAT_FIELDS * 2 + mirror->pending_count * 2));
	char	   *tail = pstrdup(mirror->next_tail);
	int			argc;

	strlcpy(beat.g, mirror->generation, sizeof(beat.g));
	beat.n = state->n;
	beat.b = mirror->beats + 1;
	beat.low = state->low;
	beat.at = state->now_ms;
	sa_name_mirror("", mirror_key);
	sa_name_stream("", stream);
	sa_name_answers("", answers);
	argv[0] = SA_FIELD_STR(mirror_key);
	argv[1] = SA_FIELD_STR(stream);
	argv[2] = SA_FIELD_STR(answers);
	argv[3] = SA_FIELD_STR(state->ledger_id);
	argv[4] = SA_FIELD_STR(mirror->generation);
	argv[5] = number(mirror->next_n);
	argv[6] = SA_FIELD_STR(tail);
	argv[7] = number(state->low);
	argv[8] = number(100 + 2 * Min(mirror->since_trim, ENTRIES_PER_ROUND));
	if (sa_entry_args(mirror_link_key, stream, &beat, &store, argv + 9) != SA_BEAT_FIELDS * 2)
		elog(ERROR, "sessauth: could not authenticate a beat");
	argc = 9 + SA_BEAT_FIELDS * 2;
	for (int i = 0; i < mirror->pending_count; i++)
	{
		PendingNonce *pending = &mirror->pending[i];
		SaAnswer	answer = {.n = state->n, .low = state->low, .b = beat.b, .at = state->now_ms};
		char	   *line = palloc(SA_LINE_SIZE);
		size_t		len;

		strlcpy(answer.nonce, pending->nonce.nonce, sizeof(answer.nonce));
		strlcpy(answer.g, mirror->generation, sizeof(answer.g));
		len = sa_answer_write(mirror_link_key, answers, pending->node, &answer, line);
		if (len == 0)
			elog(ERROR, "sessauth: could not authenticate an answer");
		argv[argc++] = SA_FIELD_STR(pending->node);
		argv[argc++] = SA_FIELD(line, len);
	}
	mirror_script(mirror, SCRIPT_BEAT, 3, argc, argv);
	mirror->publishing++;
	mirror->beating = true;
}

/*
 * Session and epoch keys, by the mirror's own snapshot cursor. A large batch
 * goes in slices: what was visible at the target and not at the cursor, by event id.
 */
static void
plan_keys(Mirror *mirror, const LedgerState *state)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TEXTOID, TEXTOID, INT8OID, INT4OID};
	Datum		values[4];
	char		nulls[4] = {' ', ' ', ' ', ' '};
	const char *target = mirror->target ? mirror->target : state->snapshot;
	MemoryContext context = CurrentMemoryContext;
	uint64		count;
	int64		last = mirror->after_event;

	if (plan == NULL)
	{
		plan = SPI_prepare("SELECT e.event_id, e.revokes, e.tenant_id, e.user_id, e.session_id, e.epoch, e.tenant_epoch, e.version,"
						   " e.live, extract(epoch FROM e.expires_at)::bigint, extract(epoch FROM e.until)::bigint, e.kind"
						   " FROM sessauth.event e, sessauth.ledger_state l"
						   " WHERE (e.xid >= pg_snapshot_xmax($1::pg_snapshot)"
						   "  OR e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::pg_snapshot))))"
						   " AND pg_visible_in_snapshot(e.xid, $2::pg_snapshot)"
						   " AND e.event_id > greatest($3, l.floor) ORDER BY e.event_id LIMIT $4", 4, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "sessauth: could not prepare a statement of the worker");
	}
	values[0] = CStringGetTextDatum(mirror->seen);
	values[1] = CStringGetTextDatum(target);
	values[2] = Int64GetDatum(mirror->after_event);
	values[3] = Int32GetDatum(KEYS_PER_ROUND);
	if (SPI_execute_plan(plan, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "sessauth: could not read new events");
	MemoryContextSwitchTo(context);
	count = SPI_processed;

	for (uint64 i = 0; i < count; i++)
	{
		const char *revokes = text_of(i, 2);
		const char *tid = text_of(i, 3);
		const char *uid = text_of(i, 4);
		const char *sid = text_of(i, 5);
		const char *kind = text_of(i, 12);

		last = int8_of(i, 1);
		if (tid == NULL)
			continue;
		if (sid && uid)
			put_session(mirror, tid, uid, sid, int8_of(i, 6), int8_of(i, 7), int8_of(i, 10), text_of(i, 9)[0] == 't',
						int8_of(i, 8), int8_of(i, 6), int8_of(i, 7));
		else if (revokes && strcmp(revokes, "user") == 0)
			put_epoch(mirror, tid, uid, int8_of(i, 6), int8_of(i, 11) + KEY_SLACK_S);
		else if ((revokes && strcmp(revokes, "tenant") == 0) || strcmp(kind, "tenant_created") == 0)
			put_epoch(mirror, tid, NULL, int8_of(i, 6), 0);
	}
	if (count == KEYS_PER_ROUND)
		move_cursor(mirror, mirror->seen, target, last);
	else if (count > 0 || mirror->target)
		move_cursor(mirror, target, NULL, 0);
	else
		keep(&mirror->seen, target);	/* nothing new: not worth a write, and repeating it would do no harm */
}

/* Every live session with the epochs of now, in slices by session id. What commits meanwhile is after the cursor that is taken first. */
static void
plan_sync(Mirror *mirror, const LedgerState *state)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {UUIDOID, INT4OID};
	Datum		values[2];
	MemoryContext context = CurrentMemoryContext;
	uint64		count;

	if (!mirror->syncing)
	{
		mirror->syncing = true;
		mirror->has_cursor = false;
		mirror->sync_count = 0;
		strcpy(mirror->sync_after, "00000000-0000-0000-0000-000000000000");
		keep(&mirror->seen, state->snapshot);
		keep(&mirror->target, NULL);
		mirror->after_event = 0;
	}
	if (plan == NULL)
	{
		plan = SPI_prepare("SELECT s.session_id, s.tenant_id, s.user_id, s.epoch, s.tenant_epoch,"
						   " extract(epoch FROM least(s.expires_at, s.idle_expires_at))::bigint, s.ended_at IS NULL, s.version, u.epoch, t.epoch"
						   " FROM sessauth.session s"
						   " JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id"
						   " JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id"
						   " WHERE s.session_id > $1 AND least(s.expires_at, s.idle_expires_at) > sessauth.ledger_time()"
						   " ORDER BY s.session_id LIMIT $2", 2, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "sessauth: could not prepare a statement of the worker");
	}
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(mirror->sync_after));
	values[1] = Int32GetDatum(KEYS_PER_ROUND);
	if (SPI_execute_plan(plan, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "sessauth: could not read the sessions");
	MemoryContextSwitchTo(context);
	count = SPI_processed;

	for (uint64 i = 0; i < count; i++)
		put_session(mirror, text_of(i, 2), text_of(i, 3), text_of(i, 1), int8_of(i, 4), int8_of(i, 5), int8_of(i, 6),
					text_of(i, 7)[0] == 't', int8_of(i, 8), int8_of(i, 9), int8_of(i, 10));
	strlcpy(mirror->next_sync_after, count > 0 ? text_of(count - 1, 1) : mirror->sync_after, sizeof(mirror->next_sync_after));
	mirror->sync_count += count;
	mirror->next_sync_ends = count < KEYS_PER_ROUND;
	if (mirror->next_sync_ends)
	{
		char		key[SA_REDIS_KEY_SIZE];

		sa_name_mirror("", key);
		link_command(&mirror->link, 4, (SaField[]) {SA_FIELD("HSET", 4), SA_FIELD_STR(key), SA_FIELD("synced", 6), number(state->now_ms)});
	}
}

/* Everything has arrived, or something was not as expected: then the handshake finds out what. */
void
publish_done(Mirror *mirror, TimestampTz now)
{
	RedisLink  *link = &mirror->link;

	for (int i = 0; i < link->count; i++)
	{
		redisReply *reply = link->replies[i];

		if (reply->type == REDIS_REPLY_ERROR ||
			(i < mirror->publishing && (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, "OK") != 0)))
		{
			char		why[LINK_ERROR_SIZE];

			if (reply->type == REDIS_REPLY_ERROR)
				snprintf(why, sizeof(why), "the server refused: %.100s", reply->str);
			else
				snprintf(why, sizeof(why), "it is not as it was left (%.40s)", reply->type == REDIS_REPLY_STRING ? reply->str : "?");
			mirror->lost = reply->type != REDIS_REPLY_ERROR;
			mirror_fail(mirror, why);
			return;
		}
	}
	link_finish(link);

	mirror->backoff = 0;
	mirror->behind -= mirror->next_n - mirror->n;
	mirror->n = mirror->next_n;
	strlcpy(mirror->tail, mirror->next_tail, sizeof(mirror->tail));
	if (mirror->beating)
	{
		for (int i = 0; i < mirror->pending_count; i++)
		{
			KnownNode  *node = hash_search(mirror->nodes, mirror->pending[i].node, HASH_FIND, NULL);

			if (node)
				strlcpy(node->answered, mirror->pending[i].nonce.nonce, sizeof(node->answered));
		}
		mirror->pending_count = 0;
		mirror->nonces_read = false;
		mirror->beating = false;
		mirror->beats++;
		mirror->last_beat_at = now;
		mirror->since_trim = 0;
		mirror->next_beat = TimestampTzPlusMilliseconds(now, setting_heartbeat_interval);
	}
	if (mirror->syncing)
	{
		strlcpy(mirror->sync_after, mirror->next_sync_after, sizeof(mirror->sync_after));
		if (mirror->next_sync_ends)
		{
			mirror->syncing = false;
			mirror->has_cursor = true;
			mirror->store_cursor = true;
			ereport(LOG, (errmsg("sessauth: mirror \"%s\" has been synchronised with %lld sessions",
								 mirror->name, (long long) mirror->sync_count)));
		}
	}
	else if (mirror->cursor_moves)
	{
		keep(&mirror->seen, mirror->next_seen);
		keep(&mirror->target, mirror->next_target);
		mirror->after_event = mirror->next_after_event;
		mirror->store_cursor = true;
	}
	mirror->cursor_moves = false;
}

void
nonces_ask(Mirror *mirror)
{
	char		key[SA_REDIS_KEY_SIZE];

	sa_name_nodes("", key);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(key)});
}

/* Only a nonce that was not answered yet is answered; one that is not authentic never is. */
void
nonces_take(Mirror *mirror, const redisReply *reply, TimestampTz now)
{
	HASH_SEQ_STATUS seq;
	KnownNode  *node;
	char		key[SA_REDIS_KEY_SIZE];

	sa_name_nodes("", key);
	mirror->pending_count = 0;
	mirror->nonces_read = true;
	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
		node->present = false;

	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2)
	{
		redisReply *name = reply->element[i];
		redisReply *value = reply->element[i + 1];
		char		id[SA_NODE_ID_SIZE];
		SaNonce		nonce;
		bool		found;

		if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING || (size_t) name->len >= sizeof(id) ||
			!sa_nonce_read(mirror_link_key, key, name->str, name->len, value->str, value->len, &nonce))
			continue;
		memset(id, 0, sizeof(id));
		memcpy(id, name->str, name->len);
		node = hash_search(mirror->nodes, id, HASH_ENTER, &found);
		if (!found)
		{
			node->answered[0] = '\0';
			node->seen_at = now;
		}
		node->present = true;
		if (found && strcmp(node->answered, nonce.nonce) == 0)
			continue;
		node->seen_at = now;
		status_node(mirror, node, &nonce, nonce.max_staleness > setting_max_lease);
		if (nonce.max_staleness > setting_max_lease)
			continue;
		if (mirror->pending_count == mirror->pending_size)
		{
			int			size = Max(64, mirror->pending_size * 2);

			mirror->pending = mirror->pending ? repalloc(mirror->pending, sizeof(PendingNonce) * size) :
				MemoryContextAlloc(TopMemoryContext, sizeof(PendingNonce) * size);
			mirror->pending_size = size;
		}
		strlcpy(mirror->pending[mirror->pending_count].node, id, sizeof(id));
		mirror->pending[mirror->pending_count++].nonce = nonce;
	}
	forget_silent_nodes(mirror, now);
}

static void
forget_silent_nodes(Mirror *mirror, TimestampTz now)
{
	HASH_SEQ_STATUS seq;
	KnownNode  *node;

	hash_seq_init(&seq, mirror->nodes);
	while ((node = hash_seq_search(&seq)) != NULL)
	{
		if (node->present && !TimestampDifferenceExceeds(node->seen_at, now, FORGET_LEASES * setting_max_lease))
			continue;
		status_node_forget(mirror, node->node);
		hash_search(mirror->nodes, node->node, HASH_REMOVE, NULL);
	}
}

/* Inside a transaction: how far the mirror has been brought. Losing it repeats work that the guards make harmless, so it need not be flushed. */
void
cursor_store(Mirror *mirror)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];

	if (plan == NULL)
	{
		plan = SPI_prepare("UPDATE sessauth.mirror_state SET generation = $2::uuid, seen = $3::pg_snapshot,"
						   " synced_at = CASE WHEN seen IS NULL THEN now() ELSE synced_at END WHERE name = $1", 3, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "sessauth: could not prepare a statement of the worker");
	}
	values[0] = CStringGetTextDatum(mirror->name);
	values[1] = CStringGetTextDatum(mirror->generation);
	values[2] = CStringGetTextDatum(mirror->seen);
	if (SPI_execute_plan(plan, values, NULL, false, 0) < 0)
		elog(ERROR, "sessauth: could not store the position of a mirror");
	mirror->store_cursor = false;
}

/* What an exchange leads to, in effect when it has ended well. */
static void
move_cursor(Mirror *mirror, const char *seen, const char *target, int64 after_event)
{
	keep(&mirror->next_seen, seen);
	keep(&mirror->next_target, target);
	mirror->next_after_event = after_event;
	mirror->cursor_moves = true;
}

static void
keep(char **where, const char *text)
{
	char	   *copy = text ? MemoryContextStrdup(TopMemoryContext, text) : NULL;

	if (*where)
		pfree(*where);
	*where = copy;
}

static void
put_session(Mirror *mirror, const char *tid, const char *uid, const char *sid, int64 epoch, int64 tepoch,
			int64 exp, bool live, int64 version, int64 user_epoch, int64 tenant_epoch)
{
	char		session_key[SA_REDIS_KEY_SIZE];
	char		user_key[SA_REDIS_KEY_SIZE];
	char		tenant_key[SA_REDIS_KEY_SIZE];
	char		session_mac[SA_MAC_TEXT_LEN + 1];
	char		user_mac[SA_MAC_TEXT_LEN + 1];
	char		tenant_mac[SA_MAC_TEXT_LEN + 1];
	const char *state = live ? "active" : "revoked";
	SaField		argv[15];

	sa_name_session("", tid, strlen(tid), sid, session_key);
	sa_name_user_epoch("", tid, strlen(tid), uid, strlen(uid), user_key);
	sa_name_tenant_epoch("", tid, strlen(tid), tenant_key);
	if (!sa_session_mac(mirror_link_key, session_key, uid, strlen(uid), epoch, tepoch, exp, state, version, session_mac) ||
		!sa_epoch_mac(mirror_link_key, user_key, user_epoch, user_mac) ||
		!sa_epoch_mac(mirror_link_key, tenant_key, tenant_epoch, tenant_mac))
		elog(ERROR, "sessauth: could not authenticate a key");
	argv[0] = SA_FIELD_STR(session_key);
	argv[1] = SA_FIELD_STR(user_key);
	argv[2] = SA_FIELD_STR(tenant_key);
	argv[3] = SA_FIELD_STR(uid);
	argv[4] = number(epoch);
	argv[5] = number(tepoch);
	argv[6] = number(exp);
	argv[7] = SA_FIELD_STR(state);
	argv[8] = number(version);
	argv[9] = SA_FIELD_STR(session_mac);
	argv[10] = number(user_epoch);
	argv[11] = SA_FIELD_STR(user_mac);
	argv[12] = number(tenant_epoch);
	argv[13] = SA_FIELD_STR(tenant_mac);
	argv[14] = number(exp + KEY_SLACK_S);
	mirror_script(mirror, SCRIPT_PUT_SESSION, 3, 15, argv);
}

/* A tenant's epoch when uid is NULL. expire_at 0: never. */
static void
put_epoch(Mirror *mirror, const char *tid, const char *uid, int64 epoch, int64 expire_at)
{
	char		key[SA_REDIS_KEY_SIZE];
	char		mac[SA_MAC_TEXT_LEN + 1];

	if (uid)
		sa_name_user_epoch("", tid, strlen(tid), uid, strlen(uid), key);
	else
		sa_name_tenant_epoch("", tid, strlen(tid), key);
	if (!sa_epoch_mac(mirror_link_key, key, epoch, mac))
		elog(ERROR, "sessauth: could not authenticate a key");
	mirror_script(mirror, SCRIPT_PUT_EPOCH, 1, 4,
				  (SaField[]) {SA_FIELD_STR(key), number(epoch), SA_FIELD_STR(mac), expire_at ? number(expire_at) : SA_FIELD("", 0)});
}

/* NULL when null. */
static const char *
text_of(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static int64
int8_of(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/* Decimal text in the round's memory. */
static SaField
number(int64 value)
{
	char	   *text = psprintf(INT64_FORMAT, value);

	return SA_FIELD_STR(text);
}

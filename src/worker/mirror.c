/*
 * mirror.c
 *		One mirror: its connection, and what it is ready for.
 *
 *	down → handshake → check → (claim) → streaming
 *
 * The handshake reads what the mirror says it is; the check, in a transaction,
 * compares that with the log. Where the mirror agrees, streaming goes on from where it is; where it
 * is empty, older or unknown, it is claimed and everything that still matters is sent again. A mirror that belongs to
 * another ledger is never written to.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "server/keyring.h"
#include "server/shmem.h"
#include "server/settings.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"

#define CONNECT_TIMEOUT_MS	2000
#define EXCHANGE_TIMEOUT_MS 2000
#define BACKOFF_FIRST_MS	100
#define BACKOFF_MAX_MS		5000
#define REDIS_MAJOR_MIN		7

Mirror	   *mirrors[MIRRORS_MAX];
int			mirror_count = 0;
const unsigned char *mirror_link_key = NULL;

static bool mirrors_wait_for_key = false;

static Mirror *mirror_find(const char *name);
static Mirror *mirror_new(const char *name);
static void mirror_remove(int i);
static void load_link_key(void);
static void connect_now(Mirror *mirror, TimestampTz now);
static void begin(Mirror *mirror, MirrorExchange exchange, TimestampTz now);
static void handshake_ask(Mirror *mirror, TimestampTz now);
static const char *handshake_take(Mirror *mirror);
static const char *info_check(const char *info, char *warning, size_t size);
static bool read_password(const char *path, char *out, size_t size);
static void done(Mirror *mirror, TimestampTz now);
static const char *phase_name(const Mirror *mirror);

void
mirrors_advance(TimestampTz now)
{
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		if (mirror->phase == MIRROR_DOWN && mirror_link_key != NULL && now >= mirror->retry_at)
			connect_now(mirror, now);
		if (mirror->link.state == LINK_CLOSED)
			continue;
		switch (link_progress(&mirror->link, now))
		{
			case LINK_CONNECTED:
				handshake_ask(mirror, now);
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

		/* A beat begins with the nonces, which must be read before the transaction that it vouches for. */
		if (mirror->phase == MIRROR_STREAMING && mirror->exchange == EXCHANGE_NONE && !mirror->nonces_read &&
			now >= mirror->next_beat)
		{
			nonces_ask(mirror);
			begin(mirror, EXCHANGE_NONCES, now);
		}
	}
}

bool
mirrors_need_transaction(void)
{
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->exchange == EXCHANGE_NONE &&
			(mirrors[i]->phase == MIRROR_CHECK ||
			 (mirrors[i]->phase == MIRROR_STREAMING &&
			  (mirrors[i]->nonces_read || mirrors[i]->passed_by || mirrors[i]->behind > 0 || mirrors[i]->target != NULL ||
			   mirrors[i]->syncing))))
			return true;
	return false;
}

/* When mirrors_advance must be called again although nothing has arrived. */
TimestampTz
mirrors_next_event(TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		if (mirror->exchange == EXCHANGE_NONE &&
			(mirror->phase == MIRROR_CHECK || (mirror->phase == MIRROR_STREAMING && mirror->nonces_read)))
			next = Min(next, now);
		else if (mirror->phase == MIRROR_DOWN && mirror_link_key != NULL)
			next = Min(next, mirror->retry_at);
		else if (mirror->exchange != EXCHANGE_NONE || mirror->link.state == LINK_CONNECTING)
			next = Min(next, mirror->link.deadline);
		else if (mirror->phase == MIRROR_STREAMING)
			next = Min(next, mirrors_need_transaction() ? now : mirror->next_beat);
	}
	return next;
}

/* Inside the transaction: the list of mirrors, and the link key. */
void
mirrors_load(void)
{
	uint64		count;

	if (SPI_execute("SELECT m.name, m.url, m.password_file, s.seen::text FROM sessauth.mirror m"
					" JOIN sessauth.mirror_state s USING (name) ORDER BY m.name", true, MIRRORS_MAX) != SPI_OK_SELECT)
		elog(ERROR, "sessauth: could not read the list of mirrors");
	count = SPI_processed;
	for (int i = 0; i < mirror_count; i++)
		mirrors[i]->listed = false;
	for (uint64 i = 0; i < count; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		char	   *url = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		char	   *password_file = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3);
		char	   *seen = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4);
		Mirror	   *mirror = mirror_find(name);

		if (mirror == NULL)
		{
			mirror = mirror_new(name);
			if (seen)
			{
				mirror->seen = MemoryContextStrdup(TopMemoryContext, seen);
				mirror->has_cursor = true;
			}
		}
		mirror->listed = true;
		if (strcmp(mirror->url, url) != 0 || strcmp(mirror->password_file, password_file ? password_file : "") != 0)
		{
			const char *why = sa_redis_url_parse(url, &mirror->where);

			strlcpy(mirror->url, url, sizeof(mirror->url));
			strlcpy(mirror->password_file, password_file ? password_file : "", sizeof(mirror->password_file));
			mirror_fail(mirror, why ? why : NULL);
			mirror->retry_at = why ? DT_NOEND : 0;
		}
	}
	for (int i = mirror_count - 1; i >= 0; i--)
		if (!mirrors[i]->listed)
			mirror_remove(i);
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
	static TimestampTz tried_at = 0;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	const char *volatile why = NULL;

	if (!TimestampDifferenceExceeds(tried_at, GetCurrentTimestamp(), 1000))
		return;
	tried_at = GetCurrentTimestamp();
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

/* Inside the transaction: what each mirror that is free will be sent. */
void
mirrors_plan(LedgerState *state)
{
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];

		/* What woke us may be news for this mirror, too: it gets a round of its own when it is free. */
		mirror->passed_by = mirror->exchange != EXCHANGE_NONE;
		if (mirror->exchange != EXCHANGE_NONE || mirror->link.state != LINK_READY)
			continue;
		if (mirror->phase == MIRROR_CHECK)
			publish_check(mirror, state);
		if (mirror->phase == MIRROR_STREAMING)
			publish_plan(mirror, state);
	}
}

void
mirrors_send(TimestampTz now)
{
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->exchange == EXCHANGE_NONE && mirrors[i]->link.state == LINK_READY && mirrors[i]->link.expected > 0)
			begin(mirrors[i], mirrors[i]->phase == MIRROR_CLAIM ? EXCHANGE_CLAIM : EXCHANGE_PUBLISH, now);
}

void
mirrors_discard(void)
{
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->exchange == EXCHANGE_NONE && mirrors[i]->link.state == LINK_READY)
		{
			link_finish(&mirrors[i]->link);
			if (mirrors[i]->phase == MIRROR_CLAIM)
				mirrors[i]->phase = MIRROR_CHECK;
		}
}

void
mirrors_close(void)
{
	while (mirror_count > 0)
		mirror_remove(mirror_count - 1);
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
	pfree(args);
	pfree(keys);
}

static void
begin(Mirror *mirror, MirrorExchange exchange, TimestampTz now)
{
	mirror->exchange = exchange;
	link_begin(&mirror->link, TimestampTzPlusMilliseconds(now, EXCHANGE_TIMEOUT_MS));
}

static void
connect_now(Mirror *mirror, TimestampTz now)
{
	mirror->phase = MIRROR_HANDSHAKE;
	if (!link_connect(&mirror->link, &mirror->where, TimestampTzPlusMilliseconds(now, CONNECT_TIMEOUT_MS)))
		mirror_fail(mirror, mirror->link.error);
}

static void
handshake_ask(Mirror *mirror, TimestampTz now)
{
	char		password[512];
	char		name[SA_REDIS_KEY_SIZE];
	char		db[16];
	bool		ok = true;

	if (mirror->password_file[0] != '\0' && !read_password(mirror->password_file, password, sizeof(password)))
	{
		mirror_fail(mirror, "the password file cannot be read, or is readable by others");
		return;
	}
	if (mirror->password_file[0] != '\0' && mirror->where.user[0] != '\0')
		link_command(&mirror->link, 3, (SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(mirror->where.user), SA_FIELD_STR(password)});
	else if (mirror->password_file[0] != '\0')
		link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(password)});
	sa_wipe(password, sizeof(password));
	snprintf(db, sizeof(db), "%d", mirror->where.db);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("SELECT", 6), SA_FIELD_STR(db)});
	link_command(&mirror->link, 1, (SaField[]) {SA_FIELD("INFO", 4)});
	for (int i = 0; i < SCRIPT_COUNT && ok; i++)
		link_command(&mirror->link, 3, (SaField[]) {SA_FIELD("SCRIPT", 6), SA_FIELD("LOAD", 4), SA_FIELD_STR(redis_scripts[i])});
	sa_name_mirror("", name);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(name)});
	begin(mirror, EXCHANGE_HANDSHAKE, now);
}

/* NULL, or why this server cannot be the mirror. Never repeats what the server said beyond its error's first words. */
static const char *
handshake_take(Mirror *mirror)
{
	static char text[LINK_ERROR_SIZE];
	RedisLink  *link = &mirror->link;
	char		warning[STATUS_TEXT] = "";
	int			at = 0;
	redisReply *hash;

	for (int i = 0; i < link->count; i++)
		if (link->replies[i]->type == REDIS_REPLY_ERROR)
		{
			snprintf(text, sizeof(text), "the server refused: %.100s", link->replies[i]->str);
			return text;
		}
	if (mirror->password_file[0] != '\0')
		at++;
	at++;						/* SELECT */
	if (link->replies[at]->type != REDIS_REPLY_STRING)
		return "the server does not answer like Redis";
	{
		const char *why = info_check(link->replies[at]->str, warning, sizeof(warning));

		if (why)
			return why;
	}
	status_mirror(mirror, "connecting", NULL, warning);
	at++;
	for (int i = 0; i < SCRIPT_COUNT; i++, at++)
	{
		if (link->replies[at]->type != REDIS_REPLY_STRING || link->replies[at]->len != 40)
			return "the server does not load scripts";
		memcpy(mirror->script_sha[i], link->replies[at]->str, 41);
	}
	hash = link->replies[at];
	if (hash->type != REDIS_REPLY_ARRAY)
		return "the server does not answer like Redis";
	mirror->found = false;
	mirror->found_owner[0] = mirror->found_generation[0] = mirror->found_tail[0] = '\0';
	mirror->found_n = 0;
	for (size_t i = 0; i + 1 < hash->elements; i += 2)
	{
		const char *field = hash->element[i]->str;
		redisReply *value = hash->element[i + 1];

		if (field == NULL || value->str == NULL)
			continue;
		if (strcmp(field, "owner") == 0)
		{
			mirror->found = true;
			strlcpy(mirror->found_owner, value->str, sizeof(mirror->found_owner));
		}
		else if (strcmp(field, "generation") == 0)
			strlcpy(mirror->found_generation, value->str, sizeof(mirror->found_generation));
		else if (strcmp(field, "n") == 0 && !sa_number_parse(value->str, value->len, &mirror->found_n))
			mirror->found_generation[0] = '\0';
		else if (strcmp(field, "tail") == 0)
			strlcpy(mirror->found_tail, value->str, sizeof(mirror->found_tail));
	}
	return NULL;
}

static const char *
info_check(const char *info, char *warning, size_t size)
{
	const char *version = strstr(info, "redis_version:");
	const char *policy = strstr(info, "maxmemory_policy:");

	if (version == NULL)
		return "the server does not answer like Redis";
	if (atoi(version + strlen("redis_version:")) < REDIS_MAJOR_MIN)
		return "Redis is older than 7.0";
	if (strstr(info, "cluster_enabled:1"))
		return "Redis Cluster is not supported";
	if (strstr(info, "role:slave"))
		return "the server is a replica";
	if (policy && strncmp(policy + strlen("maxmemory_policy:"), "noeviction", 10) != 0)
		snprintf(warning, size, "maxmemory-policy is not noeviction: Redis may drop keys and the stream under memory pressure");
	return NULL;
}

static bool
read_password(const char *path, char *out, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t		len;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (st.st_mode & (S_IRWXO | S_IWGRP)))
	{
		close(fd);
		return false;
	}
	len = read(fd, out, size - 1);
	close(fd);
	if (len <= 0)
		return false;
	while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == '\r'))
		len--;
	out[len] = '\0';
	return len > 0;
}

static void
done(Mirror *mirror, TimestampTz now)
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
		case EXCHANGE_CLAIM:
			if (mirror->link.replies[0]->type == REDIS_REPLY_STRING && strcmp(mirror->link.replies[0]->str, "OK") == 0)
			{
				link_finish(&mirror->link);
				mirror_recovered(mirror);
			}
			else
				mirror_fail(mirror, "the mirror belongs to another ledger");
			break;
		case EXCHANGE_NONCES:
			nonces_take(mirror, mirror->link.replies[0], now);
			link_finish(&mirror->link);
			break;
		case EXCHANGE_PUBLISH:
			publish_done(mirror, now);
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
	mirror->phase = MIRROR_DOWN;
	mirror->exchange = EXCHANGE_NONE;
	mirror->nonces_read = false;
	mirror->backoff = mirror->backoff == 0 ? BACKOFF_FIRST_MS : Min(mirror->backoff * 2, BACKOFF_MAX_MS);
	mirror->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   mirror->backoff / 2 + (int) (random() % (mirror->backoff / 2 + 1)));
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
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i]->phase != MIRROR_DOWN)
			status_mirror(mirrors[i], phase_name(mirrors[i]), NULL, NULL);
}

static const char *
phase_name(const Mirror *mirror)
{
	switch (mirror->phase)
	{
		case MIRROR_DOWN:
			return "down";
		case MIRROR_STREAMING:
			return mirror->syncing ? "syncing" : "streaming";
		default:
			return "connecting";
	}
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
	mirror->nodes = hash_create("sessauth nodes", 64, &control, HASH_ELEM | HASH_STRINGS);
	mirrors[mirror_count++] = mirror;
	return mirror;
}

static void
mirror_remove(int i)
{
	Mirror	   *mirror = mirrors[i];

	link_close(&mirror->link);
	status_forget(mirror->name);
	hash_destroy(mirror->nodes);
	if (mirror->link.replies)
		pfree(mirror->link.replies);
	pfree(mirror->link.out.data);
	pfree(mirror);
	memmove(&mirrors[i], &mirrors[i + 1], sizeof(Mirror *) * (mirror_count - i - 1));
	mirror_count--;
}

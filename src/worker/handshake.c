/*
 * handshake.c
 *		The first exchange with a mirror: log in, find out who answers, leave the
 *		scripts there, and read what sessauth:mirror says.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/shmem.h"
#include "worker/redis_scripts.h"
#include "worker/worker.h"

#define REDIS_MAJOR_MIN	7
#define LOOK_INTERVAL_MS 60000

static bool logs_in(const Mirror *mirror);
static void read_found(Mirror *mirror, const redisReply *hash);
static void warn(Mirror *mirror, const char *state, const char *warning);
static void policy_check(const char *info, char *warning, size_t size);
static const char *info_check(const char *info, char *warning, size_t size);
static void info_value(const char *info, const char *name, char *out, size_t size);
static bool read_password(const char *path, char *out, size_t size);

/* Queues the questions. False when the mirror has failed already. */
bool
handshake_ask(Mirror *mirror)
{
	char		password[512] = "";
	char		name[SA_REDIS_KEY_SIZE];
	char		db[16];

	if (mirror->password_file[0] != '\0' && !read_password(mirror->password_file, password, sizeof(password)))
	{
		mirror_fail(mirror, "the password file cannot be read, or is readable by others");
		return false;
	}
	if (mirror->where.user[0] != '\0')
		link_command(&mirror->link, 3, (SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(mirror->where.user), SA_FIELD_STR(password)});
	else if (logs_in(mirror))
		link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("AUTH", 4), SA_FIELD_STR(password)});
	sa_wipe(password, sizeof(password));
	snprintf(db, sizeof(db), "%d", mirror->where.db);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("SELECT", 6), SA_FIELD_STR(db)});
	link_command(&mirror->link, 1, (SaField[]) {SA_FIELD("INFO", 4)});
	for (int i = 0; i < SCRIPT_COUNT; i++)
		link_command(&mirror->link, 3, (SaField[]) {SA_FIELD("SCRIPT", 6), SA_FIELD("LOAD", 4), SA_FIELD_STR(redis_scripts[i])});
	sa_name_mirror(mirror->where.prefix, name);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("HGETALL", 7), SA_FIELD_STR(name)});
	return true;
}

static bool
logs_in(const Mirror *mirror)
{
	return mirror->where.user[0] != '\0' || mirror->password_file[0] != '\0';
}

/* NULL, or why this server cannot be the mirror. Never repeats what the server said beyond its error's first words. */
const char *
handshake_take(Mirror *mirror)
{
	static char text[LINK_ERROR_SIZE];
	RedisLink  *link = &mirror->link;
	char		warning[STATUS_TEXT] = "";
	int			at = logs_in(mirror) ? 2 : 1;	/* where the answer to INFO is */
	redisReply *hash;
	const char *why;

	/* The first error says best what is wrong, unless INFO says it better: those behind it mostly follow from it. */
	if (link->replies[at]->type == REDIS_REPLY_STRING && (why = info_check(link->replies[at]->str, warning, sizeof(warning))) != NULL)
		return why;
	for (int i = 0; i < link->count; i++)
		if (link->replies[i]->type == REDIS_REPLY_ERROR &&
			(i < link->count - 1 || strncmp(link->replies[i]->str, "WRONGTYPE", 9) != 0))
		{
			link_error_text(link->replies[i]->str, text, sizeof(text));
			return text;
		}
	if (link->replies[at]->type != REDIS_REPLY_STRING)
		return "the server does not answer like Redis";
	warn(mirror, "connecting", warning);
	info_value(link->replies[at]->str, "\nrun_id:", text, sizeof(text));
	snprintf(mirror->place, sizeof(mirror->place), "%.40s/%d/%s", text, mirror->where.db, mirror->where.prefix);
	for (int i = 0; i < mirror_count; i++)
		if (mirrors[i] != mirror && mirrors[i]->phase > MIRROR_HANDSHAKE && mirrors[i]->phase < MIRROR_RELEASED &&
			strcmp(mirrors[i]->place, mirror->place) == 0)
		{
			snprintf(text, sizeof(text), "it is the same server, database and prefix as mirror \"%s\"", mirrors[i]->name);
			return text;
		}
	at++;
	for (int i = 0; i < SCRIPT_COUNT; i++, at++)
	{
		if (link->replies[at]->type != REDIS_REPLY_STRING || link->replies[at]->len != 40)
			return "the server does not load scripts";
		memcpy(mirror->script_sha[i], link->replies[at]->str, 41);
	}
	hash = link->replies[at];
	if (hash->type != REDIS_REPLY_ARRAY && hash->type != REDIS_REPLY_ERROR)
		return "the server does not answer like Redis";
	read_found(mirror, hash);
	if (!mirror->met)
		receipts_hold(mirror);
	mirror->met = true;
	return NULL;
}

/* A setting of the server may change while we are connected. Queued behind the question for nonces, now and then. */
void
handshake_look_ask(Mirror *mirror, Instant now)
{
	if (now < mirror->look_at)
		return;
	mirror->look_at = instant_after(now, LOOK_INTERVAL_MS);
	link_command(&mirror->link, 2, (SaField[]) {SA_FIELD("INFO", 4), SA_FIELD("memory", 6)});
}

void
handshake_look_take(Mirror *mirror, const redisReply *reply)
{
	char		warning[STATUS_TEXT] = "";

	if (reply->type != REDIS_REPLY_STRING)
		return;
	policy_check(reply->str, warning, sizeof(warning));
	warn(mirror, "streaming", warning);
}

/* One line in the log when it begins; empty when there is nothing to warn of. */
static void
warn(Mirror *mirror, const char *state, const char *warning)
{
	status_mirror(mirror, state, NULL, warning);
	if (warning[0] != '\0' && !mirror->warned)
		ereport(WARNING,
				(errmsg("sessauth: mirror \"%s\": %s", mirror->name, warning),
				 errhint("Set maxmemory-policy to noeviction in its configuration.")));
	mirror->warned = warning[0] != '\0';
}

/* Found is only what has all its fields; of something else it is enough to know whose it is. */
static void
read_found(Mirror *mirror, const redisReply *hash)
{
	const char *schema = "";

	mirror->found_owner[0] = mirror->found_generation[0] = mirror->found_tail[0] = mirror->found_id[0] = '\0';
	mirror->found_n = -1;
	mirror->found_lease = 0;
	mirror->found_synced = false;
	for (size_t i = 0; hash->type == REDIS_REPLY_ARRAY && i + 1 < hash->elements; i += 2)
	{
		const char *field = hash->element[i]->str;
		redisReply *value = hash->element[i + 1];

		if (field == NULL || value->str == NULL)
			continue;
		if (strcmp(field, "schema") == 0)
			schema = value->str;
		else if (strcmp(field, "owner") == 0)
			strlcpy(mirror->found_owner, value->str, sizeof(mirror->found_owner));
		else if (strcmp(field, "generation") == 0)
			strlcpy(mirror->found_generation, value->str, sizeof(mirror->found_generation));
		else if (strcmp(field, "n") == 0 && !sa_number_parse(value->str, value->len, &mirror->found_n))
			mirror->found_n = -1;
		else if (strcmp(field, "tail") == 0)
			strlcpy(mirror->found_tail, value->str, sizeof(mirror->found_tail));
		else if (strcmp(field, "id") == 0)
			strlcpy(mirror->found_id, value->str, sizeof(mirror->found_id));
		else if (strcmp(field, "lease") == 0)
			(void) sa_number_parse(value->str, value->len, &mirror->found_lease);
		else if (strcmp(field, "synced") == 0)
			mirror->found_synced = true;
	}
	mirror->found = mirror->found_owner[0] != '\0';
	if (strcmp(schema, "1") != 0 || mirror->found_n < 0)
		mirror->found_generation[0] = '\0';
}

static const char *
info_check(const char *info, char *warning, size_t size)
{
	const char *version = strstr(info, "redis_version:");

	if (version == NULL)
		return "the server does not answer like Redis";
	if (atoi(version + strlen("redis_version:")) < REDIS_MAJOR_MIN)
		return "Redis is older than 7.0";
	if (strstr(info, "cluster_enabled:1"))
		return "Redis Cluster is not supported";
	if (strstr(info, "role:slave"))
		return "the server is a replica";
	policy_check(info, warning, size);
	return NULL;
}

static void
policy_check(const char *info, char *warning, size_t size)
{
	const char *policy = strstr(info, "maxmemory_policy:");

	if (policy && strncmp(policy + strlen("maxmemory_policy:"), "noeviction", 10) != 0)
		snprintf(warning, size, "maxmemory-policy is not noeviction: Redis may drop keys and the stream under memory pressure");
}

static void
info_value(const char *info, const char *name, char *out, size_t size)
{
	const char *value = strstr(info, name);
	size_t		len = 0;

	if (value)
	{
		value += strlen(name);
		len = Min(strcspn(value, "\r\n"), size - 1);
		memcpy(out, value, len);
	}
	out[len] = '\0';
}

static bool
read_password(const char *path, char *out, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

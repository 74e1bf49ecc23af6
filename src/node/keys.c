/*
 * keys.c
 *		Signing keys and the link key: from PostgreSQL, or pinned in files.
 *
 * Its own thread, because waiting for PostgreSQL must delay nothing else.
 * Keys that were read once stay in use while PostgreSQL is away. Requests for unknown keys are answered by at most one refresh
 * a second, so that tokens with made-up kids cost PostgreSQL next to nothing.
 */
#include "node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/seal.h"

#define REFRESH_US		30000000	/* without being asked */
#define RETRY_US		1000000
#define ON_DEMAND_US	1000000 /* between refreshes that were asked for */
#define QUERY_US		3000000 /* for the connection and for each statement */
#define FILE_MAX		(256 * 1024)

static void *run(void *arg);
static bool refresh(SessauthNode *node, PGconn **conn, int64_t begun, char *why, size_t size);
static bool refresh_from_postgres(SessauthNode *node, PGconn **conn, char **jwks, char *link_key, char *why, size_t size);
static bool connect_to(SessauthNode *node, PGconn **conn, int64_t deadline, char *why, size_t size);
static char *ask_for(SessauthNode *node, PGconn *conn, const char *statement, char *why, size_t size);
static bool wait_for(SessauthNode *node, int fd, short events, int64_t deadline);
static void first_line(char *out, size_t size, const char *text);
static char *read_file(const char *path, bool secret, size_t *len);

bool
keys_start(SessauthNode *node)
{
	if (pipe(node->keys_wake) != 0)
		return false;
	(void) fcntl(node->keys_wake[0], F_SETFL, O_NONBLOCK);
	node->keys_running = pthread_create(&node->keys_thread, NULL, run, node) == 0;
	return node->keys_running;
}

void
keys_stop(SessauthNode *node)
{
	pthread_mutex_lock(&node->keys_lock);
	node->keys_stop = true;
	pthread_cond_signal(&node->keys_wanted);
	pthread_mutex_unlock(&node->keys_lock);
	if (node->keys_running && write(node->keys_wake[1], "q", 1) == 1)
		pthread_join(node->keys_thread, NULL);
	node->keys_running = false;
	if (node->keys_wake[0] > 0)
	{
		close(node->keys_wake[0]);
		close(node->keys_wake[1]);
	}
	if (node->keys)
		keys_release(node->keys);
	node->keys = NULL;
}

void
keys_request(SessauthNode *node)
{
	pthread_mutex_lock(&node->keys_lock);
	node->keys_requested = true;
	pthread_cond_signal(&node->keys_wanted);
	pthread_mutex_unlock(&node->keys_lock);
}

SharedKeys *
keys_use(SessauthNode *node)
{
	SharedKeys *keys;

	pthread_mutex_lock(&node->keys_lock);
	keys = node->keys;
	if (keys)
		atomic_fetch_add(&keys->users, 1);
	pthread_mutex_unlock(&node->keys_lock);
	return keys;
}

void
keys_release(SharedKeys *keys)
{
	if (atomic_fetch_sub(&keys->users, 1) != 1)
		return;
	sa_keyset_free(keys->set);
	free(keys->text);
	free(keys);
}

static void *
run(void *arg)
{
	SessauthNode *node = arg;
	PGconn	   *conn = NULL;
	char		why[256] = "";

	pthread_mutex_lock(&node->keys_lock);
	while (!node->keys_stop)
	{
		int64_t		begun = clock_now();
		int64_t		due;
		bool		ok;

		node->keys_requested = false;
		pthread_mutex_unlock(&node->keys_lock);
		ok = refresh(node, &conn, begun, why, sizeof(why));
		pthread_mutex_lock(&node->keys_lock);

		node->keys_tried = begun;
		if (strcmp(node->keys_error, ok ? "" : why) != 0 && !node->keys_stop)
		{
			snprintf(node->keys_error, sizeof(node->keys_error), "%s", ok ? "" : why);
			pthread_mutex_unlock(&node->keys_lock);
			node_log(node, ok ? SESSAUTH_LOG_INFO : SESSAUTH_LOG_WARNING, ok ? "the keys are up to date" : "keys: %s", why);
			pthread_mutex_lock(&node->keys_lock);
		}
		if (node->keys_refreshed)
		{
			pthread_mutex_unlock(&node->keys_lock);
			node->keys_refreshed(node->keys_refreshed_arg);
			pthread_mutex_lock(&node->keys_lock);
		}

		due = begun + (ok ? REFRESH_US : RETRY_US);
		for (;;)
		{
			int64_t		now = clock_now();
			int64_t		until = node->keys_requested && begun + ON_DEMAND_US < due ? begun + ON_DEMAND_US : due;
			struct timespec ts;

			if (node->keys_stop || now >= until)
				break;

			/* The condition's clock is the monotonic one; only the difference matters. */
			clock_gettime(CLOCK_MONOTONIC, &ts);
			ts.tv_sec += (until - now) / 1000000;
			ts.tv_nsec += (until - now) % 1000000 * 1000;
			if (ts.tv_nsec >= 1000000000)
			{
				ts.tv_sec++;
				ts.tv_nsec -= 1000000000;
			}
			(void) pthread_cond_timedwait(&node->keys_wanted, &node->keys_lock, &ts);
		}
	}
	pthread_mutex_unlock(&node->keys_lock);
	if (conn)
		PQfinish(conn);
	return NULL;
}

static bool
refresh(SessauthNode *node, PGconn **conn, int64_t begun, char *why, size_t size)
{
	char	   *jwks = NULL;
	char		link_text[256] = "";
	unsigned char link_key[SA_KEY_LEN];
	SharedKeys *fresh = NULL;
	SharedKeys *old;
	size_t		len;

	if ((node->jwks_file == NULL || node->link_key_file == NULL) && node->pg_conninfo &&
		!refresh_from_postgres(node, conn, node->jwks_file ? NULL : &jwks, node->link_key_file ? NULL : link_text, why, size))
		return false;
	if (node->jwks_file)
		jwks = read_file(node->jwks_file, false, &len);
	if (node->link_key_file)
	{
		char	   *text = read_file(node->link_key_file, true, &len);

		if (text)
			snprintf(link_text, sizeof(link_text), "%s", text);
		if (text)
			sa_wipe(text, len);
		free(text);
	}
	if (jwks)
		fresh = calloc(1, sizeof(*fresh));
	if (fresh)
		fresh->set = sa_keyset_parse(jwks, strlen(jwks));
	if (fresh == NULL || fresh->set == NULL || !sa_key_text_parse(link_text, strlen(link_text), link_key))
	{
		snprintf(why, size, "%s", fresh == NULL || fresh->set == NULL ?
				 (node->jwks_file ? "the JWKS file cannot be read or holds no JWK set" : "PostgreSQL returned no JWK set") :
				 (node->link_key_file ? "the link key file cannot be read, is readable by others or holds no key" : "PostgreSQL returned no link key"));
		if (fresh)
			sa_keyset_free(fresh->set);
		free(fresh);
		free(jwks);
		sa_wipe(link_text, sizeof(link_text));
		return false;
	}
	fresh->text = jwks;
	fresh->begun = begun;
	atomic_init(&fresh->users, 1);
	sa_wipe(link_text, sizeof(link_text));

	pthread_mutex_lock(&node->keys_lock);
	old = node->keys;
	node->keys = fresh;
	memcpy(node->link_key, link_key, SA_KEY_LEN);
	node->has_link_key = true;
	pthread_mutex_unlock(&node->keys_lock);
	sa_wipe(link_key, sizeof(link_key));
	if (old)
		keys_release(old);
	follower_link_key_arrived(node);
	return true;
}

static bool
refresh_from_postgres(SessauthNode *node, PGconn **conn, char **jwks, char *link_key, char *why, size_t size)
{
	if (*conn == NULL && !connect_to(node, conn, clock_now() + QUERY_US, why, size))
		return false;
	if (jwks)
	{
		*jwks = ask_for(node, *conn, "SELECT sessauth.jwks()", why, size);
		if (*jwks == NULL)
			goto failed;
	}
	if (link_key)
	{
		char	   *text = ask_for(node, *conn, "SELECT pg_catalog.encode(sessauth.link_key(), 'hex')", why, size);

		if (text == NULL)
		{
			if (jwks)
			{
				free(*jwks);
				*jwks = NULL;
			}
			goto failed;
		}
		snprintf(link_key, 256, "%s", text);
		sa_wipe(text, strlen(text));
		free(text);
	}
	return true;

failed:
	PQfinish(*conn);
	*conn = NULL;
	return false;
}

static bool
connect_to(SessauthNode *node, PGconn **conn, int64_t deadline, char *why, size_t size)
{
	const char *names[] = {"application_name", "dbname", NULL};
	const char *values[] = {"sessauth node", node->pg_conninfo, NULL};
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	*conn = PQconnectStartParams(names, values, 1);
	if (*conn != NULL && PQstatus(*conn) != CONNECTION_BAD)
	{
		while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
		{
			if (!wait_for(node, PQsocket(*conn), status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
			{
				snprintf(why, size, "PostgreSQL: timeout while connecting");
				goto failed;
			}
			status = PQconnectPoll(*conn);
		}
		if (status == PGRES_POLLING_OK)
			return true;
	}
	if (*conn)
	{
		char		line[200];

		first_line(line, sizeof(line), PQerrorMessage(*conn));
		snprintf(why, size, "PostgreSQL: %s", line);
	}
	else
		snprintf(why, size, "out of memory");

failed:
	if (*conn)
		PQfinish(*conn);
	*conn = NULL;
	return false;
}

/* One value as text, malloc'ed; NULL and why when there is none. */
static char *
ask_for(SessauthNode *node, PGconn *conn, const char *statement, char *why, size_t size)
{
	int64_t		deadline = clock_now() + QUERY_US;
	char	   *text = NULL;
	PGresult   *result;

	snprintf(why, size, "PostgreSQL: no answer in time");
	if (!PQsendQuery(conn, statement))
	{
		char		line[200];

		first_line(line, sizeof(line), PQerrorMessage(conn));
		snprintf(why, size, "PostgreSQL: %s", line);
		return NULL;
	}
	for (;;)
	{
		while (PQisBusy(conn))
		{
			if (!wait_for(node, PQsocket(conn), POLLIN, deadline))
				goto failed;
			if (!PQconsumeInput(conn))
			{
				char		line[200];

				first_line(line, sizeof(line), PQerrorMessage(conn));
				snprintf(why, size, "PostgreSQL: %s", line);
				goto failed;
			}
		}
		result = PQgetResult(conn);
		if (result == NULL)
			return text;
		if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0) && text == NULL)
			text = strdup(PQgetvalue(result, 0, 0));
		else if (text == NULL)
		{
			char		line[200];

			first_line(line, sizeof(line), PQresultErrorMessage(result));
			snprintf(why, size, "PostgreSQL: %s", line[0] ? line : "it returned nothing");
		}
		PQclear(result);
	}

failed:
	free(text);
	return NULL;
}

static bool
wait_for(SessauthNode *node, int fd, short events, int64_t deadline)
{
	struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = node->keys_wake[0], .events = POLLIN}};

	for (;;)
	{
		int64_t		left = deadline - clock_now();
		int			n;

		if (left <= 0)
			return false;
		n = poll(fds, 2, (int) (left / 1000) + 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || fds[1].revents)
			return false;
		if (fds[0].revents)
			return true;
	}
}

static void
first_line(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text ? text : "");
	out[strcspn(out, "\r\n")] = '\0';
}

static char *
read_file(const char *path, bool secret, size_t *len)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char	   *text;
	ssize_t		n;

	if (fd < 0)
		return NULL;
	text = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX && !(secret && (st.st_mode & (S_IRWXO | S_IWGRP))) ?
		malloc(FILE_MAX + 1) : NULL;
	n = text ? read(fd, text, FILE_MAX) : -1;
	close(fd);
	if (n <= 0)
	{
		free(text);
		return NULL;
	}
	text[n] = '\0';
	*len = (size_t) n;
	return text;
}

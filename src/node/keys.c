/*
 * keys.c
 *		Signing keys and the link key: from PostgreSQL, or pinned in files.
 *
 * Its own thread, because waiting for PostgreSQL must delay nothing else.
 * Keys that were read once stay in use while PostgreSQL is away. Requests for unknown keys are answered by at most one refresh
 * a second, so that tokens with made-up kids cost PostgreSQL next to nothing.
 */
#include "node/node.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/seal.h"
#include "node/apply.h"
#include "node/keys_postgres.h"

#define REFRESH_US		30000000	/* without being asked */
#define RETRY_US		1000000
#define ON_DEMAND_US	1000000 /* between refreshes that were asked for */
#define FILE_MAX		(256 * 1024)

static void *run(void *arg);
static bool refresh(SessauthNode *node, PGconn **conn, int64_t begun, char *why, size_t size);
static char *public_text(const SaKeySet *set, const char *text);
static char *read_file(const char *path, bool secret, size_t *len);

bool
keys_start(SessauthNode *node)
{
	if (pipe2(node->keys_wake, O_CLOEXEC | O_NONBLOCK) != 0)
		return false;
	node->keys_running = node_start_thread(&node->keys_thread, run, node);
	return node->keys_running;
}

void
keys_stop(SessauthNode *node)
{
	SharedKeys *keys;

	pthread_mutex_lock(&node->keys_lock);
	node->keys_stop = true;
	pthread_cond_signal(&node->keys_wanted);
	pthread_mutex_unlock(&node->keys_lock);
	if (node->keys_running && write(node->keys_wake[1], "q", 1) == 1)
		pthread_join(node->keys_thread, NULL);
	node->keys_running = false;
	if (node->keys_wake[1] > 0)
	{
		close(node->keys_wake[0]);
		close(node->keys_wake[1]);
	}

	/* Others may be using them still. */
	pthread_mutex_lock(&node->keys_lock);
	keys = node->keys;
	node->keys = NULL;
	pthread_mutex_unlock(&node->keys_lock);
	if (keys)
		keys_release(keys);
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
		if (ok)
			node->key_refreshes++;
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
	bool		changed;
	bool		has_link = node->redis_url != NULL;	/* what comes from PostgreSQL needs no MAC */
	bool		fetch_link = has_link && node->link_key_file == NULL;
	size_t		len;

	if ((node->jwks_file == NULL || fetch_link) && node->pg_conninfo &&
		!keys_fetch(conn, node->pg_conninfo, node->keys_wake[0], node->jwks_file ? NULL : &jwks,
					fetch_link ? link_text : NULL, sizeof(link_text), why, size))
		return false;
	if (node->jwks_file)
		jwks = read_file(node->jwks_file, false, &len);
	if (has_link && node->link_key_file)
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
	if (fresh && fresh->set)
		fresh->text = public_text(fresh->set, jwks);
	if (fresh == NULL || fresh->set == NULL || fresh->text == NULL ||
		(has_link && !sa_key_text_parse(link_text, strlen(link_text), link_key)))
	{
		snprintf(why, size, "%s", fresh == NULL || fresh->set == NULL ?
				 (node->jwks_file ? "the JWKS file cannot be read or holds no JWK set" : "PostgreSQL returned no JWK set") :
				 (node->link_key_file ? "the link key file cannot be read, is readable by others or holds no key" : "PostgreSQL returned no link key"));
		if (fresh)
		{
			sa_keyset_free(fresh->set);
			free(fresh->text);
		}
		free(fresh);
		free(jwks);
		sa_wipe(link_text, sizeof(link_text));
		return false;
	}
	free(jwks);
	fresh->begun = begun;
	atomic_init(&fresh->users, 1);
	sa_wipe(link_text, sizeof(link_text));

	pthread_mutex_lock(&node->keys_lock);
	old = node->keys;
	changed = old == NULL || strcmp(old->text, fresh->text) != 0;
	fresh->serial = (old ? old->serial : 0) + (changed ? 1 : 0);
	node->keys = fresh;
	atomic_store(&node->keys_serial, fresh->serial);
	atomic_store(&node->keys_begun, begun);
	if (has_link)
		memcpy(node->link_key, link_key, SA_KEY_LEN);
	pthread_mutex_unlock(&node->keys_lock);
	sa_wipe(link_key, sizeof(link_key));
	if (changed)
		seen_prune(&node->seen, atomic_load(&node->keys_serial), 0);
	if (changed && old)
		apply_keys(node, old->set, fresh->set);
	if (old)
		keys_release(old);
	follower_link_key_arrived(node);
	return true;
}

/* The set once more, but only what this node understood and only public members: a pinned file may hold more. */
static char *
public_text(const SaKeySet *set, const char *text)
{
	json_t	   *document = json_loads(text, 0, NULL);
	json_t	   *public = json_array();
	json_t	   *jwk;
	char	   *result = NULL;
	size_t		i;

	json_array_foreach(json_object_get(document, "keys"), i, jwk)
	{
		json_t	   *kid = json_object_get(jwk, "kid");
		const SaKey *key = kid ? sa_keyset_find(set, json_string_value(kid), json_string_length(kid)) : NULL;
		char	   *one = key ? sa_key_public_jwk(key, json_string_value(kid)) : NULL;

		if (one)
			json_array_append_new(public, json_loads(one, 0, NULL));
		free(one);
	}
	json_decref(document);
	document = json_pack("{s:o}", "keys", public);
	if (document)
		result = json_dumps(document, JSON_COMPACT);
	json_decref(document);
	return result;
}

static char *
read_file(const char *path, bool secret, size_t *len)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

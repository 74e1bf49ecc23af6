/*
 * node_threads.c
 *		One node of libsessauth under many threads, for test/t/node_threads.t; built with
 *		ThreadSanitizer, and once more with the address sanitizer.
 *
 *	node_threads REDIS-URL JWKS-FILE LINK-KEY-FILE TOKEN-FILE [CONNINFO]
 *
 * The file holds one token a line. Threads decide all of them all the time, watch them, give watches back, and ask for status and keys,
 * until the standard input ends. Each line of input is answered by a line: the outcome that was last decided for each token, and
 * how often its keeper's watch was told. At the end it prints what must never have happened, and how often it did.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/sessauth.h"

#define TOKENS_MAX	16
#define DECIDERS	3
#define WATCHERS	2

typedef struct Token
{
	char		text[2048];
	_Atomic int code;
	atomic_bool revoked;		/* somebody was told so */
	atomic_int	told;
	SessauthWatch *kept;
} Token;

/* A watch of a watcher: between "given" and "back" it may be told, once. */
typedef struct Short
{
	atomic_int	told;
	atomic_bool back;
} Short;

static SessauthNode *node;
static Token tokens[TOKENS_MAX];
static int	token_count;
static atomic_bool stop;
static atomic_long decided;
static atomic_long watched;
static atomic_long revived;		/* active after revoked */
static atomic_long told_twice;
static atomic_long told_late;	/* after the watch was given back */
static atomic_long heard;		/* revocations */

static void
on_kept(void *arg, SessauthEnd why)
{
	(void) why;
	atomic_fetch_add(&((Token *) arg)->told, 1);
}

static void
on_short(void *arg, SessauthEnd why)
{
	Short	   *one = arg;

	(void) why;
	if (atomic_load(&one->back))
		atomic_fetch_add(&told_late, 1);
	if (atomic_fetch_add(&one->told, 1) != 0)
		atomic_fetch_add(&told_twice, 1);
}

static void
on_revoked(void *arg, const SessauthRevocation *revocation)
{
	(void) arg;
	(void) revocation;
	atomic_fetch_add(&heard, 1);
}

static void *
run_decider(void *arg)
{
	unsigned int seed = (unsigned int) (size_t) arg;

	while (!atomic_load(&stop))
	{
		Token	   *token = &tokens[rand_r(&seed) % token_count];
		bool		revoked = atomic_load(&token->revoked);
		SessauthDecision decision;
		SessauthCode code = sessauth_decide(node, token->text, strlen(token->text), sessauth_now(), &decision);

		if (revoked && code == SESSAUTH_ACTIVE)
			atomic_fetch_add(&revived, 1);
		if (code == SESSAUTH_REVOKED)
			atomic_store(&token->revoked, true);
		atomic_store(&token->code, code);
		atomic_fetch_add(&decided, 1);
	}
	return NULL;
}

static void *
run_watcher(void *arg)
{
	unsigned int seed = (unsigned int) (size_t) arg;

	while (!atomic_load(&stop))
	{
		Token	   *token = &tokens[rand_r(&seed) % token_count];
		bool		revoked = atomic_load(&token->revoked);
		Short	   *one = calloc(1, sizeof(*one));
		SessauthWatch *watch;
		SessauthDecision decision;

		if (sessauth_watch(node, token->text, strlen(token->text), sessauth_now(), &decision, on_short, one, &watch) == SESSAUTH_ACTIVE && revoked)
			atomic_fetch_add(&revived, 1);
		if (watch)
			atomic_fetch_add(&watched, 1);
		sessauth_unwatch(watch);
		atomic_store(&one->back, true);
		free(one);
	}
	return NULL;
}

static void *
run_asker(void *arg)
{
	(void) arg;
	while (!atomic_load(&stop))
	{
		SessauthStatus status;

		sessauth_status(node, &status);
		free(sessauth_jwks(node));
		sessauth_refresh_keys(node);
	}
	return NULL;
}

static void
keep_watches(void)
{
	for (int i = 0; i < token_count; i++)
	{
		SessauthDecision decision;

		if (tokens[i].kept == NULL)
			(void) sessauth_watch(node, tokens[i].text, strlen(tokens[i].text), sessauth_now(), &decision, on_kept, &tokens[i], &tokens[i].kept);
	}
}

int
main(int argc, char **argv)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;
	pthread_t	threads[DECIDERS + WATCHERS + 1];
	int			started = 0;
	char		line[64];
	FILE	   *file;

	if (argc < 5 || argc > 6 || (file = fopen(argv[4], "r")) == NULL)
		return 2;
	while (token_count < TOKENS_MAX && fgets(tokens[token_count].text, sizeof(tokens[0].text), file))
	{
		tokens[token_count].text[strcspn(tokens[token_count].text, "\n")] = '\0';
		token_count++;
	}
	fclose(file);
	options.redis_url = argv[1];
	options.jwks_file = argv[2];
	options.link_key_file = argv[3];
	options.pg_conninfo = argv[5];
	options.revoked = on_revoked;
	options.max_cached_tokens = 256;
	node = sessauth_open(&options);
	if (sessauth_error(node))
	{
		fprintf(stderr, "%s\n", sessauth_error(node));
		return 2;
	}
	for (size_t i = 0; i < DECIDERS; i++)
		pthread_create(&threads[started++], NULL, run_decider, (void *) (i + 1));
	for (size_t i = 0; i < WATCHERS; i++)
		pthread_create(&threads[started++], NULL, run_watcher, (void *) (i + 101));
	pthread_create(&threads[started++], NULL, run_asker, NULL);

	while (fgets(line, sizeof(line), stdin))
	{
		SessauthStatus status;
		bool		all_kept = true;

		keep_watches();
		sessauth_status(node, &status);
		for (int i = 0; i < token_count; i++)
			all_kept = all_kept && tokens[i].kept != NULL;
		for (int i = 0; i < token_count; i++)
			printf("%s/%d ", sessauth_code_name(atomic_load(&tokens[i].code)), atomic_load(&tokens[i].told));
		printf("kept=%d heard=%ld cached=%d\n", all_kept, atomic_load(&heard), status.cache_hits > 0);
		fflush(stdout);
	}
	atomic_store(&stop, true);
	while (started > 0)
		pthread_join(threads[--started], NULL);
	for (int i = 0; i < token_count; i++)
		sessauth_unwatch(tokens[i].kept);
	sessauth_close(node);
	printf("revived=%ld told_twice=%ld told_late=%ld worked=%d\n", atomic_load(&revived), atomic_load(&told_twice), atomic_load(&told_late),
		   atomic_load(&decided) > 1000 && atomic_load(&watched) > 100);
	return 0;
}

/*
 * ask_threads.c
 *		One node of libsessauth that cannot decide alone, asked by many threads, for test/t/node_ask_threads.t; built with
 *		ThreadSanitizer, and once more with the address sanitizer.
 *
 *	ask_threads REDIS-URL CONNINFO TOKEN-FILE
 *
 * The file holds one token a line. Threads ask for all of them all the time, waiting or called back, until the standard input ends.
 * A line of input that is a number says that this token has been revoked, and that has committed. Each line is answered by one: the outcome
 * and source that came last for each token. The node is closed with questions under way; then it is printed what must never have happened.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/sessauth.h"

#define TOKENS_MAX	16
#define WAITING		3
#define CALLED_BACK	2
#define LAST		200			/* questions that are under way when the node is closed */

typedef struct Token
{
	char		text[2048];
	_Atomic int code;
	_Atomic int source;
	atomic_bool revoked;
} Token;

typedef struct Call
{
	Token	   *token;
	bool		revoked;		/* before it was asked */
	atomic_int	answers;
} Call;

static SessauthNode *node;
static Token tokens[TOKENS_MAX];
static int	token_count;
static atomic_bool stop;
static atomic_long asked;
static atomic_long answered;
static atomic_long revived;		/* PostgreSQL's "active" to a question that was put after the revocation */
static atomic_long twice;

static void
note(Token *token, bool revoked, const SessauthDecision *decision)
{
	if (revoked && decision->code == SESSAUTH_ACTIVE && decision->source == SESSAUTH_SOURCE_POSTGRES)
		atomic_fetch_add(&revived, 1);
	atomic_store(&token->code, decision->code);
	atomic_store(&token->source, decision->source);
}

static void
on_answered(void *arg, const SessauthDecision *decision)
{
	Call	   *call = arg;

	note(call->token, call->revoked, decision);
	if (atomic_fetch_add(&call->answers, 1) != 0)
		atomic_fetch_add(&twice, 1);
	atomic_fetch_add(&answered, 1);
}

static Call *
put_question(Token *token)
{
	Call	   *call = calloc(1, sizeof(*call));
	SessauthDecision decision;

	call->token = token;
	call->revoked = atomic_load(&token->revoked);
	if (sessauth_ask(node, token->text, strlen(token->text), sessauth_now(), &decision, on_answered, call))
	{
		atomic_fetch_add(&asked, 1);
		return call;
	}
	note(token, call->revoked, &decision);
	free(call);
	return NULL;
}

static void *
run_waiting(void *arg)
{
	unsigned int seed = (unsigned int) (size_t) arg;

	while (!atomic_load(&stop))
	{
		Token	   *token = &tokens[rand_r(&seed) % token_count];
		bool		revoked = atomic_load(&token->revoked);
		SessauthDecision decision;

		(void) sessauth_decide_wait(node, token->text, strlen(token->text), sessauth_now(), &decision);
		note(token, revoked, &decision);
	}
	return NULL;
}

static void *
run_called_back(void *arg)
{
	unsigned int seed = (unsigned int) (size_t) arg;

	while (!atomic_load(&stop))
	{
		Call	   *call = put_question(&tokens[rand_r(&seed) % token_count]);

		while (call && atomic_load(&call->answers) == 0)
			sched_yield();
		free(call);
	}
	return NULL;
}

int
main(int argc, char **argv)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;
	pthread_t	threads[WAITING + CALLED_BACK];
	Call	   *last[LAST];
	int			started = 0;
	char		line[64];
	FILE	   *file;

	if (argc != 4 || (file = fopen(argv[3], "r")) == NULL)
		return 2;
	while (token_count < TOKENS_MAX && fgets(tokens[token_count].text, sizeof(tokens[0].text), file))
	{
		tokens[token_count].text[strcspn(tokens[token_count].text, "\n")] = '\0';
		token_count++;
	}
	fclose(file);
	options.redis_url = argv[1];
	options.pg_conninfo = argv[2];
	options.max_staleness_ms = 1000;
	options.max_cached_tokens = 256;
	node = sessauth_open(&options);
	if (sessauth_error(node))
	{
		fprintf(stderr, "%s\n", sessauth_error(node));
		return 2;
	}
	for (size_t i = 0; i < WAITING; i++)
		pthread_create(&threads[started++], NULL, run_waiting, (void *) (i + 1));
	for (size_t i = 0; i < CALLED_BACK; i++)
		pthread_create(&threads[started++], NULL, run_called_back, (void *) (i + 101));

	while (fgets(line, sizeof(line), stdin))
	{
		if (line[0] >= '0' && line[0] <= '9')
			atomic_store(&tokens[atoi(line) % token_count].revoked, true);
		for (int i = 0; i < token_count; i++)
			printf("%s/%d ", sessauth_code_name(atomic_load(&tokens[i].code)), atomic_load(&tokens[i].source));
		printf("\n");
		fflush(stdout);
	}
	atomic_store(&stop, true);
	while (started > 0)
		pthread_join(threads[--started], NULL);
	for (int i = 0; i < LAST; i++)
		last[i] = put_question(&tokens[i % token_count]);
	sessauth_close(node);
	for (int i = 0; i < LAST; i++)
		free(last[i]);
	printf("revived=%ld twice=%ld unanswered=%ld worked=%d\n", atomic_load(&revived), atomic_load(&twice),
		   atomic_load(&asked) - atomic_load(&answered), atomic_load(&asked) > 100);
	return 0;
}

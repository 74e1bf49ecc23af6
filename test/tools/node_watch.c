/*
 * node_watch.c
 *		One node of libsessauth whose watches are told what to do, for test/t/node_watch.t.
 *
 *	node_watch REDIS-URL CONNINFO MAX-REVOCATIONS
 *
 * Each line of input is a command, answered by a line:
 *	watch I TOKEN	the code, and whether there is a watch; it gets the number I
 *	told I			how often it was told, and the last reason
 *	unwatch I
 *	wait TOKEN		the code of sessauth_decide_wait
 *	ready			0 or 1
 *	close			how often anybody was told after sessauth_close had returned, with what was not given back
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/sessauth.h"

#define WATCHES	64

typedef struct Kept
{
	SessauthWatch *watch;
	atomic_int	told;
	atomic_int	why;
} Kept;

static Kept kept[WATCHES];		/* static, so that what is not given back is no leak for the sanitizer */
static atomic_bool closed;
static atomic_int told_late;

static void
on_ended(void *arg, SessauthEnd why)
{
	Kept	   *one = arg;

	atomic_fetch_add(&one->told, 1);
	atomic_store(&one->why, (int) why);
	if (atomic_load(&closed))
		atomic_fetch_add(&told_late, 1);
}

int
main(int argc, char **argv)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;
	SessauthNode *node;
	char		line[8192];

	if (argc != 4)
		return 2;
	options.redis_url = argv[1];
	options.pg_conninfo = argv[2];
	options.max_revocations = atoi(argv[3]);
	options.max_staleness_ms = 1000;
	node = sessauth_open(&options);
	if (sessauth_error(node))
	{
		fprintf(stderr, "%s\n", sessauth_error(node));
		return 2;
	}
	while (!atomic_load(&closed) && fgets(line, sizeof(line), stdin))
	{
		char		command[16] = "";
		char		token[4096] = "";
		int			i = 0;
		SessauthDecision decision;

		if (sscanf(line, "watch %d %4095s", &i, token) == 2 && i >= 0 && i < WATCHES)
		{
			SessauthCode code = sessauth_watch(node, token, strlen(token), sessauth_now(), &decision, on_ended, &kept[i], &kept[i].watch);

			printf("%s %s\n", sessauth_code_name(code), kept[i].watch ? "watched" : "alone");
		}
		else if (sscanf(line, "told %d", &i) == 1 && i >= 0 && i < WATCHES)
			printf("%d %s\n", atomic_load(&kept[i].told),
				   atomic_load(&kept[i].told) == 0 ? "-" : atomic_load(&kept[i].why) == SESSAUTH_END_REVOKED ? "revoked" : "unknown");
		else if (sscanf(line, "unwatch %d", &i) == 1 && i >= 0 && i < WATCHES)
		{
			sessauth_unwatch(kept[i].watch);
			kept[i].watch = NULL;
			printf("given back\n");
		}
		else if (sscanf(line, "wait %4095s", token) == 1)
			printf("%s\n", sessauth_code_name(sessauth_decide_wait(node, token, strlen(token), sessauth_now(), &decision)));
		else if (sscanf(line, "%15s", command) == 1 && strcmp(command, "ready") == 0)
			printf("%d\n", sessauth_ready(node));
		else if (strcmp(command, "close") == 0)
		{
			sessauth_close(node);
			atomic_store(&closed, true);
			printf("%d\n", atomic_load(&told_late));
		}
		else
			return 2;
		fflush(stdout);
	}
	return 0;
}

/*
 * few_descriptors.c
 *		Opens a node of libsessauth while hardly any descriptor is free, for test/t/few_descriptors.t.
 *
 *	few_descriptors REDIS-URL JWKS LINKKEY
 *
 * For 0 to 40 free ones a line: "FREE opened", or "FREE" and why not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "node/sessauth.h"

int
main(int argc, char **argv)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;
	int			lowest;

	if (argc != 4)
		return 2;
	options.redis_url = argv[1];
	options.jwks_file = argv[2];
	options.link_key_file = argv[3];
	lowest = open("/dev/null", O_RDONLY);
	close(lowest);
	for (int count = 0; count <= 40; count++)
	{
		struct rlimit limit = {(rlim_t) (lowest + count), 4096};
		SessauthNode *node;

		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			return 2;
		node = sessauth_open(&options);
		printf("%d %s\n", count, node == NULL ? "no node" : sessauth_error(node) ? sessauth_error(node) : "opened");
		fflush(stdout);
		sessauth_close(node);
	}
	return 0;
}

/*
 * options.h
 *		The gate's flags and environment variables.
 */
#ifndef SESSAUTH_GATE_OPTIONS_H
#define SESSAUTH_GATE_OPTIONS_H

#include <stdbool.h>

#include "gate/listener.h"
#include "node/sessauth.h"

#define THREADS_MAX	64

typedef struct GateOptions
{
	ListenAddress listen[LISTEN_MAX];
	int			listen_count;
	bool		has_admin;
	ListenAddress admin_listen;
	const char *cookie;			/* name; NULL: tokens are not looked for in cookies */
	int			threads;
	int			max_connections;
	int			idle_timeout_s;
	SessauthOptions node;
} GateOptions;

typedef enum OptionsResult
{
	OPTIONS_RUN,
	OPTIONS_EXIT_OK,			/* --help, --version: has been answered */
	OPTIONS_EXIT_USAGE			/* wrong: has been said on stderr */
} OptionsResult;

/* Flags win over SESSAUTH_* variables, which win over defaults. Strings point into argv and the environment. */
extern OptionsResult options_read(int argc, char **argv, GateOptions *out);

#endif							/* SESSAUTH_GATE_OPTIONS_H */

/*
 * options.h
 *		The gate's flags and environment variables.
 */
#ifndef SESSAUTH_GATE_OPTIONS_H
#define SESSAUTH_GATE_OPTIONS_H

#include <stdbool.h>

#include "node/sessauth.h"

typedef struct GateOptions
{
	char		listen_host[256];
	int			listen_port;	/* 0: any free one */
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

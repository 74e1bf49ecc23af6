/*
 * launcher.h
 *		The process that starts one worker per database with the extension.
 */
#ifndef SESSAUTH_WORKER_LAUNCHER_H
#define SESSAUTH_WORKER_LAUNCHER_H

extern void launcher_register(void);	/* from _PG_init: the launcher and the utility hook */
extern void utility_hook_install(void);

#endif							/* SESSAUTH_WORKER_LAUNCHER_H */

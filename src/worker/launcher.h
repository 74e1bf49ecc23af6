/*
 * launcher.h
 *		The process that starts one worker per database with the extension.
 */
#ifndef SESSAUTH_WORKER_LAUNCHER_H
#define SESSAUTH_WORKER_LAUNCHER_H

extern void launcher_register(void);	/* from _PG_init: the launcher and the utility hook */
extern void utility_hook_install(void);

/* From _PG_init. A standby without the master key of its ledgers will warn of it in the log (standby_check.c). */
extern void standby_check_register(void);

#endif							/* SESSAUTH_WORKER_LAUNCHER_H */

/*
 * log_hook.h
 *		Keeps tokens out of the server's log.
 */
#ifndef SESSAUTH_SERVER_LOG_HOOK_H
#define SESSAUTH_SERVER_LOG_HOOK_H

/* Called from _PG_init, in the postmaster. From then on every process of the server redacts what it logs. */
extern void log_hook_install(void);

/* False when it is not installed, or another library sees reports before it. */
extern bool log_hook_is_first(void);

#endif							/* SESSAUTH_SERVER_LOG_HOOK_H */

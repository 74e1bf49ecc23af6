/*
 * redis_scripts.h
 *		The Lua that runs in Redis. Each script either does all it was asked or
 *		nothing, and returns OK or, in one word, what was not as expected.
 */
#ifndef SESSAUTH_WORKER_REDIS_SCRIPTS_H
#define SESSAUTH_WORKER_REDIS_SCRIPTS_H

typedef enum ScriptId
{
	SCRIPT_CLAIM,
	SCRIPT_APPEND,
	SCRIPT_BEAT,
	SCRIPT_PUT_SESSION,
	SCRIPT_PUT_EPOCH,
	SCRIPT_COUNT
} ScriptId;

extern const char *const redis_scripts[SCRIPT_COUNT];

#endif							/* SESSAUTH_WORKER_REDIS_SCRIPTS_H */

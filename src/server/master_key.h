/*
 * master_key.h
 *		The master key, under which every secret of the ledger is sealed.
 *
 * The server reads it once, when it starts; its processes inherit it. A process
 * reads a file for itself only when the postmaster has none: the setting has just changed, or the file came later.
 */
#ifndef SESSAUTH_SERVER_MASTER_KEY_H
#define SESSAUTH_SERVER_MASTER_KEY_H

#include "core/digest.h"

#define MASTER_KEY_ID_SIZE	17	/* 16 hex digits and a NUL */

/* Why there is no key, as the parts of an error; all of them are one of ERRCODE_CONFIG_FILE_ERROR. */
typedef struct MasterKeyProblem
{
	char		message[1200];	/* with a path in it */
	char		detail[256];	/* may be empty */
	const char *hint;
} MasterKeyProblem;

/* Called from _PG_init, in the postmaster: reads the key when the server starts, and logs it when there is none. */
extern void master_key_init(void);

/* Assign hook of sessauth.master_key_file. */
extern void master_key_file_assigned(const char *path, void *extra);

/*
 * The key, in process memory: do not free or copy it. Throws
 * ERRCODE_CONFIG_FILE_ERROR, with a hint that shows how to make one, when it is not configured or not readable.
 */
extern const unsigned char *master_key(void);

/* The same without throwing: NULL and the problem. */
extern const unsigned char *master_key_try(MasterKeyProblem *problem);

/* What the ledger remembers of a key: enough to tell another one, nothing to find it by. Throws only when OpenSSL cannot work. */
extern void master_key_id(const unsigned char *key, char id[MASTER_KEY_ID_SIZE]);

/* False when the file now says something else than the server has read from it (and the problem, if that is not a key). */
extern bool master_key_file_is_same(MasterKeyProblem *problem);

#endif							/* SESSAUTH_SERVER_MASTER_KEY_H */

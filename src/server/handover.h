/*
 * handover.h
 *		What an abort would erase, handed to the worker.
 *
 * A token that was minted in a transaction that rolls back is in somebody's
 * hands all the same, and a theft that was seen in one has happened. Backends note both; when the (sub)transaction
 * aborts the notes go into shared memory, and the worker revokes and records them in a transaction of its own.
 * Stated limits: a crash between the two, and ROLLBACK PREPARED.
 */
#ifndef SESSAUTH_SERVER_HANDOVER_H
#define SESSAUTH_SERVER_HANDOVER_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "core/token.h"

#define HANDOVER_MAX	512		/* entries in shared memory; a backend keeps what does not fit */

typedef enum HandoverKind
{
	HANDOVER_FREE,
	HANDOVER_MINTED,			/* the session was never committed, its access token lives until "until" */
	HANDOVER_THEFT				/* a used refresh token of this session was presented */
} HandoverKind;

typedef struct Handover
{
	HandoverKind kind;
	Oid			database;
	pg_uuid_t	session_id;
	char		tenant[SA_TENANT_ID_MAX + 1];
	char		user[SA_USER_ID_MAX + 1];
	TimestampTz until;
} Handover;

/* In a backend: remembers it until the transaction ends. May throw out of memory, and then nothing may be handed out. */
extern void handover_note(HandoverKind kind, const pg_uuid_t *session_id, const char *tenant, const char *user, TimestampTz until);

/* In the worker: copies of the entries of this database (palloc'ed) and where they are; returns how many. */
extern int	handover_take(Handover **entries, int **places);

/* The worker has committed what this entry asks for. */
extern void handover_done(int place);

#endif							/* SESSAUTH_SERVER_HANDOVER_H */

/*
 * handover.h
 *		What an abort would erase, handed to the worker.
 *
 * A token that was minted in a transaction that rolls back is in somebody's
 * hands all the same, and a theft that was seen in one has happened. Backends note both; when the (sub)transaction
 * aborts the notes go into shared memory, and the worker revokes and records them in a transaction of its own.
 * When the worker makes no room for a note, word of that is left instead: until the tokens have expired
 * no node gets a lease. Stated limits: a crash or a stop of the server between the two, and ROLLBACK PREPARED.
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
	HANDOVER_MINTED,			/* the session was never committed */
	HANDOVER_THEFT				/* a used refresh token of this session was presented */
} HandoverKind;

typedef struct Handover
{
	HandoverKind kind;
	Oid			database;
	pg_uuid_t	session_id;
	char		tenant[SA_TENANT_ID_MAX + 1];
	char		user[SA_USER_ID_MAX + 1];
	TimestampTz until;			/* no access token of the session lives longer */
} Handover;

/* Notes of a database were lost; the tokens they were about live until "until". */
#define HANDOVER_LOSSES 16
typedef struct HandoverLoss
{
	Oid			database;		/* InvalidOid: any */
	TimestampTz until;			/* 0: free */
} HandoverLoss;

/* In a backend: remembers it until the transaction ends. May throw out of memory, and then nothing may be handed out. */
extern void handover_note(HandoverKind kind, const pg_uuid_t *session_id, const char *tenant, const char *user, TimestampTz until);

/* In the worker: until when lost notes of this database matter, in the ledger's time; 0 when none were lost. */
extern TimestampTz handover_lost_until(void);

/* In the worker: copies of the entries of this database (palloc'ed) and where they are; returns how many. */
extern int	handover_take(Handover **entries, int **places);

/* The worker has committed what this entry asks for, which it took from that place. */
extern void handover_done(int place, const Handover *entry);

#endif							/* SESSAUTH_SERVER_HANDOVER_H */

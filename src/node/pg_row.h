/*
 * pg_row.h
 *		One row of sessauth.lease(), as text.
 */
#ifndef SESSAUTH_NODE_PG_ROW_H
#define SESSAUTH_NODE_PG_ROW_H

#include "core/wire.h"
#include "node/lease.h"

#define PG_ROW_COLUMNS	12

/* The columns, in this order; at and until in unix ms. */
#define PG_ROW_SELECT \
	"SELECT kind, g, number, tenant_id, user_id, session_id, kid, epoch, event_id," \
	" pg_catalog.floor(EXTRACT(epoch FROM \"at\") * 1000)::pg_catalog.int8," \
	" pg_catalog.ceil(EXTRACT(epoch FROM \"until\") * 1000)::pg_catalog.int8, low"

typedef enum PgRowKind
{
	PG_ROW_BAD,					/* nothing that sessauth.lease() can say */
	PG_ROW_REVOCATION,			/* *entry is filled; without a number, its g is empty and its n 0 */
	PG_ROW_GRANT				/* *grant is filled */
} PgRowKind;

/* A column whose data is NULL is null. */
extern PgRowKind pg_row_read(const SaField columns[PG_ROW_COLUMNS], SaEntry *entry, LeaseGrant *grant);

#endif							/* SESSAUTH_NODE_PG_ROW_H */

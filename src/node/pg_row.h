/*
 * pg_row.h
 *		One row of sessauth.lease(), as text.
 */
#ifndef SESSAUTH_NODE_PG_ROW_H
#define SESSAUTH_NODE_PG_ROW_H

#include "core/wire.h"
#include "node/lease.h"

#define PG_ROW_COLUMNS	12

/*
 * The columns, in this order; at in unix ms, until in the same but not before its time. A double has room for the microseconds of some
 * centuries, and costs the server a fraction of what EXTRACT's numeric does.
 */
#define PG_ROW_SELECT \
	"SELECT kind, g, number, tenant_id, user_id, session_id, kid, epoch, event_id," \
	" (pg_catalog.date_part('epoch', \"at\") * 1000000)::pg_catalog.int8 / 1000," \
	" ((pg_catalog.date_part('epoch', \"until\") * 1000000)::pg_catalog.int8 + 999) / 1000, low"

typedef enum PgRowKind
{
	PG_ROW_BAD,					/* nothing that sessauth.lease() can say */
	PG_ROW_REVOCATION,			/* *entry is filled; without a number, its g is empty and its n 0 */
	PG_ROW_GRANT				/* *grant is filled */
} PgRowKind;

/* A column whose data is NULL is null. */
extern PgRowKind pg_row_read(const SaField columns[PG_ROW_COLUMNS], SaEntry *entry, LeaseGrant *grant);

#endif							/* SESSAUTH_NODE_PG_ROW_H */

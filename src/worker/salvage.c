/*
 * salvage.c
 *		Makes true what aborted transactions have handed over.
 *
 * In transactions of its own, before the one that numbers: what is written here
 * is then an ordinary committed event. Sessions that were never committed first: they touch no row that is there, and no node gets a
 * lease before they are written. A session row or a table that somebody has locked is left for the next round; waiting for
 * it would let one idle transaction hold up every revocation.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "server/clock.h"
#include "server/handover.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define SALVAGE_LOCK_TIMEOUT_MS 10

static bool unsettled = false;

static bool salvage_kind(HandoverKind kind);
static bool salvage_one(const Handover *entry);

bool
salvage_logins(void)
{
	unsettled = true;
	unsettled = !salvage_kind(HANDOVER_MINTED);
	return !unsettled;
}

bool
salvage_thefts(void)
{
	return salvage_kind(HANDOVER_THEFT);
}

bool
salvage_allows_leases(void)
{
	return !unsettled && handover_lost_until() <= ledger_now();
}

static bool
salvage_kind(HandoverKind kind)
{
	Handover   *entries;
	int		   *places;
	int			count = handover_take(&entries, &places);
	bool	   *settled;
	int			of_kind = 0;

	for (int i = 0; i < count; i++)
		of_kind += entries[i].kind == kind;
	if (of_kind == 0)
		return true;
	settled = palloc0(sizeof(bool) * count);
	if (worker_tx_begin_upkeep(SALVAGE_LOCK_TIMEOUT_MS) != WORKER_TX_OPEN)
		return false;
	for (int i = 0; i < count; i++)
		if (entries[i].kind == kind)
			settled[i] = salvage_one(&entries[i]);
	worker_tx_commit();
	for (int i = 0; i < count; i++)
		if (settled[i])
			handover_done(places[i], &entries[i]);
	return true;
}

static bool
salvage_one(const Handover *entry)
{
	Oid			types[] = {TEXTOID, TEXTOID, UUIDOID, TIMESTAMPTZOID};
	Datum		values[4];

	values[0] = CStringGetTextDatum(entry->tenant);
	values[1] = CStringGetTextDatum(entry->user);
	values[2] = UUIDPGetDatum(&entry->session_id);
	values[3] = TimestampTzGetDatum(entry->until);
	if (entry->kind == HANDOVER_MINTED)
	{
		if (SPI_execute_with_args("INSERT INTO sessauth.event (kind, revokes, tenant_id, user_id, session_id, until, at, reason)"
								  " VALUES ('session_rolled_back', 'session', $1, $2, $3, $4, sessauth.ledger_time(),"
								  " 'its login was rolled back')", 4, types, values, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "sessauth: could not record a rolled back login");
		return true;
	}
	if (SPI_execute_with_args("UPDATE sessauth.session SET ended_at = sessauth.ledger_time(),"
							  " end_reason = 'a used refresh token was presented again'"
							  " WHERE session_id = (SELECT session_id FROM sessauth.session"
							  "  WHERE session_id = $1 AND ended_at IS NULL FOR UPDATE SKIP LOCKED)",
							  1, types + 2, values + 2, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "sessauth: could not end a session");
	if (SPI_processed > 0)
		return true;

	/* Nothing to do: it has ended, or it is locked. Only the first settles it. */
	if (SPI_execute_with_args("SELECT 1 FROM sessauth.session WHERE session_id = $1 AND ended_at IS NULL",
							  1, types + 2, values + 2, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "sessauth: could not read a session");
	return SPI_processed == 0;
}

/*
 * tables.c
 *		See tables.h. The order of the names is that of the enums there.
 */
#include "postgres.h"

#include "ledger/tables.h"

LedgerTable table_tenant = {
	.name = "tenant",
	.columns = {"tenant_id", "epoch", "policy", "access_ttl_max", "suspended_at"},
	.nkeys = 1
};

LedgerTable table_user = {
	.name = "tenant_user",
	.columns = {"tenant_id", "user_id", "epoch", "blocked_at"},
	.nkeys = 2
};

LedgerTable table_session = {
	.name = "session",
	.columns = {"session_id", "tenant_id", "user_id", "epoch", "tenant_epoch", "version", "created_at",
		"refreshed_at", "expires_at", "idle_expires_at", "access_expires_at", "ended_at", "end_reason",
		"refresh_counter", "refresh_hash", "parent_hash", "refresh_salt", "device", "ip", "user_agent",
		"client_claims"},
	.nkeys = 1
};

/* Its primary keys are those of its partitions: rows are appended, not found. */
LedgerTable table_event = {
	.name = "event",
	.columns = {"event_id", "at", "xid", "kind", "revokes", "tenant_id", "user_id", "session_id", "kid", "epoch",
		"tenant_epoch", "version", "live", "expires_at", "until", "actor", "role", "ip", "client_addr",
		"reason", "detail"}
};

LedgerTable table_state = {
	.name = "ledger_state",
	.columns = {"singleton"},
	.nkeys = 1
};

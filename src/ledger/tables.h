/*
 * tables.h
 *		The tables of the ledger and their columns as C names them, for the calls of rows.h:
 *		TC_ of a tenant, UC_ of a user, SC_ of a session, EC_ of an event.
 */
#ifndef SESSAUTH_LEDGER_TABLES_H
#define SESSAUTH_LEDGER_TABLES_H

#include "ledger/rows.h"

extern LedgerTable table_tenant;
enum
{
	TC_ID, TC_EPOCH, TC_POLICY, TC_ACCESS_TTL_MAX, TC_SUSPENDED
};

extern LedgerTable table_user;
enum
{
	UC_TENANT, UC_ID, UC_EPOCH, UC_BLOCKED, UC_COLUMNS
};

extern LedgerTable table_session;
enum
{
	SC_ID, SC_TENANT, SC_USER, SC_EPOCH, SC_TENANT_EPOCH, SC_VERSION, SC_CREATED,
	SC_REFRESHED, SC_EXPIRES, SC_IDLE_EXPIRES, SC_ACCESS_EXPIRES, SC_ENDED_AT, SC_END_REASON,
	SC_COUNTER, SC_HASH, SC_PARENT_HASH, SC_SALT, SC_DEVICE, SC_IP, SC_USER_AGENT,
	SC_CLAIMS, SC_COLUMNS
};

extern LedgerTable table_event;
enum
{
	EC_ID, EC_AT, EC_XID, EC_KIND, EC_REVOKES, EC_TENANT, EC_USER, EC_SESSION, EC_KID, EC_EPOCH,
	EC_TENANT_EPOCH, EC_VERSION, EC_LIVE, EC_EXPIRES, EC_UNTIL, EC_ACTOR, EC_ROLE, EC_IP, EC_CLIENT_ADDR,
	EC_REASON, EC_DETAIL, EC_COLUMNS
};

extern LedgerTable table_state;
enum
{
	STATE_SINGLETON
};

#endif							/* SESSAUTH_LEDGER_TABLES_H */

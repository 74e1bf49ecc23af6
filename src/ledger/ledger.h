/*
 * ledger.h
 *		What the files of the ledger share: the frame of a call, prepared
 *		statements, the acting party, and who may do what.
 */
#ifndef SESSAUTH_LEDGER_LEDGER_H
#define SESSAUTH_LEDGER_LEDGER_H

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/inet.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "server/compat.h"

/* Called from _PG_init: callbacks that live as long as the process. */
extern void ledger_init(void);

/* ---- frame.c: one call into the ledger ---- */

/*
 * Every SQL-callable function and trigger that touches a table runs between
 * these two. A function must authorise the caller (access.c) before the first: in
 * between, the extension's owner is the current user, search_path is pg_catalog, and SPI is
 * connected. An error undoes all of it by way of the (sub)transaction's abort.
 */
typedef struct LedgerCall
{
	Oid			caller;			/* who called: GetUserId() before the switch */
	int			sec_context;
	int			guc_level;
	bool		is_inner;		/* inside another call, or in a trigger */
} LedgerCall;

/*
 * Throws ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE when the library was not preloaded or is of another version than the
 * SQL, and keeps updates of the extension away until the transaction ends. ledger_begin does it first.
 */
extern void ledger_check_library(void);

extern void ledger_begin(LedgerCall *call, FunctionCallInfo fcinfo);
extern void ledger_end(LedgerCall *call);

/* Until ledger_end: statements that are made for an index use it, whatever the statistics of a table that grows fast say. */
extern void ledger_go_by_index(void);

/* Makes a dormant ledger active; every call that writes starts with it, inside the frame. */
extern void ledger_activate(void);

/* Needs no frame. */
extern bool ledger_is_active(void);

/*
 * A statement that is planned once per process. Declare it static; fill sql
 * and types. Runs on the newest committed state whatever the isolation level
 * (plus what this transaction did). Returns SPI_processed; rows are in SPI_tuptable.
 */
#define LEDGER_ARGS_MAX 24
typedef struct LedgerQuery
{
	const char *sql;
	int			nargs;
	Oid			types[LEDGER_ARGS_MAX];
	SPIPlanPtr	plan;
} LedgerQuery;

extern uint64 ledger_run(LedgerQuery *query, Datum *values, const bool *nulls);

/* The same on that snapshot, for statements that must see the same. */
extern uint64 ledger_run_at(LedgerQuery *query, Datum *values, const bool *nulls, Snapshot snapshot);

/* Reading column "column" (from 1) of row "row" (from 0) of the last result. */
extern Datum ledger_datum(uint64 row, int column, bool *isnull);
extern char *ledger_text(uint64 row, int column);	/* palloc'ed; NULL when null */
extern int64 ledger_int8(uint64 row, int column);	/* 0 when null */
extern TimestampTz ledger_time(uint64 row, int column);	/* DT_NOEND when null */
extern bool ledger_isnull(uint64 row, int column);

/* ---- history.c: the partitions of the history; inside a frame ---- */

/* Makes the partitions of this month and the next where there are none and the default one has no rows of theirs. */
extern void history_create_months(void);

/* Gives a table that is, or is going to be, a partition its indexes, guards and row security. The name is quoted as SQL needs it. */
extern void history_prepare_partition(const char *table);

/* The row type that a function returns: looked up once per process. Throws when the library was not built for it. */
typedef struct LedgerResult
{
	Oid			function;
	TupleDesc	desc;
} LedgerResult;

extern TupleDesc ledger_result(LedgerResult *result, FunctionCallInfo fcinfo, int natts);

/* ---- names.c ---- */

/* A table or sequence of schema sessauth; InvalidOid when there is none. The name must be a constant. */
extern Oid	ledger_relid(const char *name);

/* ---- event.c: what a change is called in the history ---- */

/*
 * Set by a function before its DML, read by the triggers, cleared at the end
 * of the call and at an abort. All members may be NULL; the strings must live until then.
 */
typedef struct LedgerAction
{
	bool		in_call;		/* the statement is ours, not a DBA's */
	const char *kind;			/* overrides the name that the trigger would give */
	bool		revokes_user;	/* a user's first row is made by its revocation */
	bool		renumbers;		/* this update of a row is part of its insert */
	bool		part_of_drop;	/* this row goes with its tenant or user: no event of its own */
	bool		unseen;			/* upkeep: nobody outside can tell, so no event and no new version */
	bool		erases;			/* takes a person out of the history: may change it */
	const char *actor;
	const char *reason;
	inet	   *ip;
	int64		event_id;		/* set by the trigger: the event it wrote last */
} LedgerAction;

extern LedgerAction ledger_action;

/*
 * guard.c: gives the tenant or user that an AFTER INSERT trigger is about the next epoch, unless it has the newest; true
 * when it did, and the history has the row by then.
 */
extern bool renumber_inserted(FunctionCallInfo fcinfo);

/* revoke.c: sets reason and actor from the argument "reason" and the one behind it. Throws ERRCODE_INVALID_PARAMETER_VALUE when too long. */
extern void revoke_action_args(FunctionCallInfo fcinfo, int reason);

/* ---- upgrade.c: after ALTER EXTENSION UPDATE ---- */

/* From _PG_init, when the library is preloaded. */
extern void upgrade_hook_install(void);

/* ---- access.c, grants.c: who may do what ---- */

#define ACCESS_SERVICE		0x01
#define ACCESS_NODE			0x02
#define ACCESS_TENANT_ADMIN 0x04
#define ACCESS_AUDITOR		0x08

/* ACCESS_... of its name; throws ERRCODE_INVALID_PARAMETER_VALUE. */
extern int	access_parse(const char *name);

/* True when the role has one of these accesses for this tenant (NULL: for any tenant at all). */
extern bool access_allows(Oid role, int accesses, const char *tenant_id);

/* True when the role has one of these accesses for every tenant. */
extern bool access_is_unlimited(Oid role, int accesses);

/*
 * The first and the last, by bytes, of the tenants for which the role has one of these accesses; false when there are
 * none. They live as long as nobody changes a grant.
 */
extern bool access_range(Oid role, int accesses, const char **first, const char **last);

/* access_allows and access_require_own_tenant for the current user, throwing ERRCODE_INSUFFICIENT_PRIVILEGE. */
extern void access_require(int accesses, const char *tenant_id);

/*
 * In an authenticated transaction an administrator acts only within the own tenant, whatever the role may do.
 * NULL: the call concerns every tenant. Throws ERRCODE_INSUFFICIENT_PRIVILEGE.
 */
extern void access_require_own_tenant(const char *tenant_id);

/* Binds the grants of a restored ledger to the roles of their names in this cluster. Runs inside a frame, before the ledger becomes active. */
extern void access_bind_roles(void);

/* Writes the present names of renamed roles into their grants, which a dump carries by name. Runs inside a frame. */
extern void access_follow_names(void);

/* Takes from everybody but its owner whatever default privileges gave on a new table; its name as SQL takes it. Runs inside a frame. */
extern void access_withdraw(const char *table);

/* Grants every role once more what its accesses need: an update has brought new functions. Inside SPI, as a superuser or the owner. */
extern void access_renew_privileges(void);

/* Superusers and the extension's owner only. */
extern void access_require_owner(FunctionCallInfo fcinfo);

/* ---- ids.c: arguments and identifiers ---- */

/* Throws ERRCODE_NULL_VALUE_NOT_ALLOWED naming the argument. */
extern void require_arg(FunctionCallInfo fcinfo, int n, const char *name);

/* Throws ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED. */
extern void require_trigger(FunctionCallInfo fcinfo);

/* Throws ERRCODE_INTERNAL_ERROR "could not ...". */
extern void openssl_refused(const char *what) compat_noreturn;

/* Throw ERRCODE_INVALID_PARAMETER_VALUE unless the argument is a valid id. */
extern char *tenant_id_arg(FunctionCallInfo fcinfo, int n);
extern char *user_id_arg(FunctionCallInfo fcinfo, int n);

/* NULL when the argument is null; throws when longer than max bytes. */
extern char *optional_text_arg(FunctionCallInfo fcinfo, int n, const char *name, int max);

/* Throws ERRCODE_UNDEFINED_OBJECT. */
extern void unknown_tenant(const char *tenant_id) compat_noreturn;

/* RFC 9562 version 7. */
extern void session_id_new(pg_uuid_t *out);

/* The microseconds of an interval; a day has 24 hours, a month 30 days. */
extern int64 interval_us(const Interval *interval);

/* Whole unix seconds and milliseconds of a timestamp. */
extern int64 unix_seconds(TimestampTz t);
extern TimestampTz from_unix_seconds(int64 s);

#endif							/* SESSAUTH_LEDGER_LEDGER_H */

/*
 * event.c
 *		The history: one event for every change of a row of the ledger.
 *
 * Triggers write it, so that a DBA's plain INSERT, UPDATE or DELETE is
 * recorded and published like a call. A function that knows more than the row says (who asked, why,
 * what it is called) leaves that in ledger_action before its statement.
 *
 * While the ledger is dormant (its rows are arriving from a dump) nothing is written.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "ledger/detail.h"
#include "ledger/identity.h"
#include "ledger/ledger.h"
#include "ledger/session.h"
#include "server/clock.h"
#include "server/settings.h"
#include "server/wake.h"

typedef struct Event
{
	Datum		values[EC_COLUMNS];
	bool		nulls[EC_COLUMNS];
	const char *kind;
	const char *revokes;
} Event;

/* The row images of the trigger that is running. */
typedef struct Change
{
	TupleDesc	desc;
	HeapTuple	old;			/* NULL for INSERT */
	HeapTuple	new;			/* NULL for DELETE */
	HeapTuple	row;			/* the newest of the two */
} Change;

typedef void (*Describe) (const Change *change, Event *event);

static void describe_tenant(const Change *change, Event *event);
static void describe_user(const Change *change, Event *event);
static void describe_session(const Change *change, Event *event);
static void describe_key(const Change *change, Event *event);
static void describe_access(const Change *change, Event *event);
static void describe_mirror(const Change *change, Event *event);
static Describe describe_for(const char *table);
static bool is_routine(const Event *event);
static bool is_urgent(const Event *event);
static void write_event(Event *event);
static Datum client_addr(bool *isnull);
static Datum column(const Change *change, HeapTuple row, const char *name, bool *isnull);
static void copy(const Change *change, HeapTuple row, const char *name, Event *event, int e);
static void set_text(Event *event, int e, const char *value);
static void set_datum(Event *event, int e, Datum value);
static bool differs(const Change *change, const char *name);
static bool is_null(const Change *change, HeapTuple row, const char *name);
static TimestampTz last_token_end(Datum tenant_id);
static TimestampTz last_token_end_anywhere(void);

PG_FUNCTION_INFO_V1(sessauth_record);

/* record() → trigger: AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW. */
Datum
sessauth_record(PG_FUNCTION_ARGS)
{
	TriggerData *tg = (TriggerData *) fcinfo->context;
	Describe	describe;
	LedgerCall	call;
	Change		change;
	Event		event;
	bool		is_hot;

	require_trigger(fcinfo);

	change.desc = RelationGetDescr(tg->tg_relation);
	change.old = TRIGGER_FIRED_BY_INSERT(tg->tg_event) || ledger_action.renumbers ? NULL : tg->tg_trigtuple;
	change.new = TRIGGER_FIRED_BY_DELETE(tg->tg_event) ? NULL :
		TRIGGER_FIRED_BY_INSERT(tg->tg_event) ? tg->tg_trigtuple : tg->tg_newtuple;
	change.row = change.new ? change.new : change.old;

	describe = describe_for(RelationGetRelationName(tg->tg_relation));

	/* Backends cache grants and keys; the commit tells them to read again. */
	if (describe == describe_access || describe == describe_key)
		CacheInvalidateRelcache(tg->tg_relation);

	/* Logins, refreshes and revocations run no statement here, and need no frame for one. */
	is_hot = describe == describe_session || describe == describe_user;
	if (is_hot)
		ledger_check_library();
	else
		ledger_begin(&call, fcinfo);
	if (TRIGGER_FIRED_BY_INSERT(tg->tg_event) && (describe == describe_user || describe == describe_tenant) &&
		renumber_inserted(fcinfo))
		 /* that wrote the event */ ;
	else if (ledger_is_active() && !ledger_action.part_of_drop && !ledger_action.unseen)
	{
		memset(&event, 0, sizeof(event));
		memset(event.nulls, true, sizeof(event.nulls));
		describe(&change, &event);
		if (!is_routine(&event))
		{
			Datum		detail = change_detail(change.desc, change.old, change.new);

			if (detail != 0)
				set_datum(&event, EC_DETAIL, detail);
		}
		write_event(&event);
		if (is_urgent(&event))
			wake_worker_at_commit();
	}
	if (!is_hot)
		ledger_end(&call);
	return PointerGetDatum(NULL);
}

/*
 * Nobody waits for the news of a login or a refresh: the worker reads them at its next beat, many at once. Woken by each,
 * it would take as much of the machine as the logins do.
 */
static bool
is_urgent(const Event *event)
{
	return event->revokes != NULL || (event->nulls[EC_USER] && event->nulls[EC_SESSION]);
}

static Describe
describe_for(const char *table)
{
	static const struct
	{
		const char *table;
		Describe	describe;
	}			map[] = {
		{"session", describe_session},
		{"tenant_user", describe_user},
		{"tenant", describe_tenant},
		{"signing_key", describe_key},
		{"access", describe_access},
		{"mirror", describe_mirror},
	};

	for (int i = 0; i < lengthof(map); i++)
		if (strcmp(map[i].table, table) == 0)
			return map[i].describe;
	elog(ERROR, "table \"%s\" has no history", table);
}

static void
describe_session(const Change *change, Event *event)
{
	bool		live = change->new != NULL && is_null(change, change->row, "ended_at");
	bool		was_live = change->old != NULL && is_null(change, change->old, "ended_at");
	int64		version;
	bool		isnull;

	if (change->old == NULL)
		event->kind = "session_issued";
	else if (change->new == NULL)
		event->kind = "session_deleted";
	else if (was_live && !live)
		event->kind = "session_revoked";
	else if (differs(change, "refresh_counter"))
		event->kind = "session_refreshed";
	else
		event->kind = "session_changed";
	if (was_live && !live)
		event->revokes = "session";

	copy(change, change->row, "tenant_id", event, EC_TENANT);
	copy(change, change->row, "user_id", event, EC_USER);
	copy(change, change->row, "session_id", event, EC_SESSION);
	copy(change, change->row, "epoch", event, EC_EPOCH);
	copy(change, change->row, "tenant_epoch", event, EC_TENANT_EPOCH);
	copy(change, change->row, "access_expires_at", event, EC_UNTIL);

	/* A refresh that was rolled back has minted a token that the row does not know of. */
	if (event->revokes)
		set_datum(event, EC_UNTIL, TimestampTzGetDatum(last_token_end(event->values[EC_TENANT])));
	copy(change, change->row, "ip", event, EC_IP);
	if (was_live && !live && change->new != NULL)
		copy(change, change->row, "end_reason", event, EC_REASON);

	/* A deleted row has no next version of its own, but the mirror must see one. */
	version = DatumGetInt64(column(change, change->row, "version", &isnull));
	set_datum(event, EC_VERSION, Int64GetDatum(change->new ? version : version + 1));
	set_datum(event, EC_LIVE, BoolGetDatum(live));
	{
		TimestampTz expires = DatumGetTimestampTz(column(change, change->row, "expires_at", &isnull));
		TimestampTz idle = DatumGetTimestampTz(column(change, change->row, "idle_expires_at", &isnull));

		set_datum(event, EC_EXPIRES, TimestampTzGetDatum(Min(expires, idle)));
	}
}

static void
describe_user(const Change *change, Event *event)
{
	copy(change, change->row, "tenant_id", event, EC_TENANT);
	copy(change, change->row, "user_id", event, EC_USER);
	copy(change, change->row, "epoch", event, EC_EPOCH);

	if (change->old == NULL)
	{
		event->kind = "user_created";
		if (ledger_action.revokes_user)
			event->revokes = "user";
	}
	else if (change->new == NULL)
	{
		event->kind = "user_deleted";
		event->revokes = "user";
		set_datum(event, EC_EPOCH, Int64GetDatum(sequence_next("epoch_seq")));
	}
	else
	{
		bool		blocked = !is_null(change, change->new, "blocked_at");
		bool		was_blocked = !is_null(change, change->old, "blocked_at");

		event->kind = blocked && !was_blocked ? "user_blocked" :
			was_blocked && !blocked ? "user_unblocked" :
			differs(change, "epoch") ? "user_revoked" : "user_changed";
		if (differs(change, "epoch"))
			event->revokes = "user";
	}
	if (event->revokes)
		set_datum(event, EC_UNTIL, TimestampTzGetDatum(last_token_end(event->values[EC_TENANT])));
}

static void
describe_tenant(const Change *change, Event *event)
{
	copy(change, change->row, "tenant_id", event, EC_TENANT);
	copy(change, change->row, "epoch", event, EC_EPOCH);

	if (change->old == NULL)
		event->kind = "tenant_created";
	else if (change->new == NULL)
	{
		event->kind = "tenant_dropped";
		event->revokes = "tenant";
		set_datum(event, EC_EPOCH, Int64GetDatum(sequence_next("epoch_seq")));
	}
	else
	{
		bool		suspended = !is_null(change, change->new, "suspended_at");
		bool		was_suspended = !is_null(change, change->old, "suspended_at");

		event->kind = suspended && !was_suspended ? "tenant_suspended" :
			was_suspended && !suspended ? "tenant_resumed" :
			differs(change, "epoch") ? "tenant_revoked" :
			differs(change, "policy") ? "policy_changed" :
			differs(change, "access_ttl_max") ? "access_ttl_raised" : "tenant_changed";
		if (differs(change, "epoch"))
			event->revokes = "tenant";
	}
	if (event->revokes)
	{
		bool		isnull;
		Interval   *ttl = DatumGetIntervalP(column(change, change->row, "access_ttl_max", &isnull));
		int64		us = Max(interval_us(ttl), (int64) setting_access_ttl * USECS_PER_SEC);

		set_datum(event, EC_UNTIL, TimestampTzGetDatum(ledger_now() + us));
	}
}

static void
describe_key(const Change *change, Event *event)
{
	bool		revoked = change->new == NULL || !is_null(change, change->new, "revoked_at");
	bool		was_revoked = change->old != NULL && !is_null(change, change->old, "revoked_at");

	copy(change, change->row, "kid", event, EC_KID);
	event->kind = change->old == NULL ? "key_created" :
		change->new == NULL ? "key_deleted" :
		revoked && !was_revoked ? "key_revoked" :
		differs(change, "retired_at") ? "key_retired" : "key_changed";
	if (change->old != NULL && revoked && !was_revoked)
	{
		event->revokes = "key";
		set_datum(event, EC_UNTIL, TimestampTzGetDatum(last_token_end_anywhere()));
	}
}

static void
describe_access(const Change *change, Event *event)
{
	event->kind = change->old == NULL ? "access_granted" : change->new == NULL ? "access_revoked" : "access_changed";
	copy(change, change->row, "tenant_id", event, EC_TENANT);
}

static void
describe_mirror(const Change *change, Event *event)
{
	event->kind = change->old == NULL ? "mirror_added" : change->new == NULL ? "mirror_removed" : "mirror_changed";
}

/* What the application does all day; the event's own columns say all of it. A DBA's statement is told in full. */
static bool
is_routine(const Event *event)
{
	static const char *const kinds[] = {"session_issued", "session_refreshed", "session_refresh_retried", "user_created"};
	const char *kind = ledger_action.kind ? ledger_action.kind : event->kind;

	if (!ledger_action.in_call || event->revokes)
		return false;
	for (int i = 0; i < lengthof(kinds); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

static void
write_event(Event *event)
{
	NameData	role;
	int64		event_id = sequence_next("event_seq");

	namestrcpy(&role, GetUserNameFromId(GetSessionUserId(), false));
	set_datum(event, EC_ID, Int64GetDatum(event_id));
	set_datum(event, EC_AT, TimestampTzGetDatum(ledger_now()));
	set_datum(event, EC_XID, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	set_datum(event, EC_ROLE, NameGetDatum(&role));
	set_text(event, EC_KIND, ledger_action.kind ? ledger_action.kind : event->kind);
	set_text(event, EC_REVOKES, event->revokes);
	set_text(event, EC_ACTOR, identity_user() ? identity_user() : ledger_action.actor);
	if (ledger_action.reason)
		set_text(event, EC_REASON, ledger_action.reason);
	if (ledger_action.ip)
		set_datum(event, EC_IP, PointerGetDatum(ledger_action.ip));
	event->values[EC_CLIENT_ADDR] = client_addr(&event->nulls[EC_CLIENT_ADDR]);
	if (event->nulls[EC_TENANT])
		set_text(event, EC_TENANT, "");
	row_append(&table_event, EC_AT, event->values, event->nulls);
	ledger_action.event_id = event_id;
}

/* inet_client_addr(), asked once: a connection keeps its address. */
static Datum
client_addr(bool *isnull)
{
	static bool known = false;
	static inet *address = NULL;

	if (!known)
	{
		LOCAL_FCINFO(fcinfo, 0);
		Datum		value;

		InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
		value = inet_client_addr(fcinfo);
		if (!fcinfo->isnull)
		{
			address = MemoryContextAlloc(TopMemoryContext, VARSIZE_ANY(DatumGetPointer(value)));
			memcpy(address, DatumGetPointer(value), VARSIZE_ANY(DatumGetPointer(value)));
		}
		known = true;
	}
	*isnull = address == NULL;
	return PointerGetDatum(address);
}

PG_FUNCTION_INFO_V1(sessauth_refuse_truncate);

/* refuse_truncate() → trigger: BEFORE TRUNCATE. */
Datum
sessauth_refuse_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *tg = (TriggerData *) fcinfo->context;
	const char *table;

	require_trigger(fcinfo);
	table = RelationGetRelationName(tg->tg_relation);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot truncate table \"%s\"", table),
			 errdetail("TRUNCATE fires no row triggers, so the mirrors and the history would miss it."),
			 strncmp(table, "event", strlen("event")) == 0 ?
			 errhint("Old months of the history go by themselves; sessauth.erase_user() takes a person out of it.") :
			 errhint("Use DELETE, sessauth.revoke_tenant() or sessauth.drop_tenant().")));
}

static Datum
column(const Change *change, HeapTuple row, const char *name, bool *isnull)
{
	return heap_getattr(row, SPI_fnumber(change->desc, name), change->desc, isnull);
}

static bool
is_null(const Change *change, HeapTuple row, const char *name)
{
	bool		isnull;

	(void) column(change, row, name, &isnull);
	return isnull;
}

static bool
differs(const Change *change, const char *name)
{
	int			attnum = SPI_fnumber(change->desc, name);
	Form_pg_attribute att = TupleDescAttr(change->desc, attnum - 1);
	bool		oldnull;
	bool		newnull;
	Datum		old = heap_getattr(change->old, attnum, change->desc, &oldnull);
	Datum		new = heap_getattr(change->new, attnum, change->desc, &newnull);

	if (oldnull || newnull)
		return oldnull != newnull;
	if (att->attlen == -1)
	{
		struct varlena *a = PG_DETOAST_DATUM_PACKED(old);
		struct varlena *b = PG_DETOAST_DATUM_PACKED(new);

		return VARSIZE_ANY_EXHDR(a) != VARSIZE_ANY_EXHDR(b) ||
			memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) != 0;
	}
	if (!att->attbyval)
		return memcmp(DatumGetPointer(old), DatumGetPointer(new), att->attlen) != 0;
	return old != new;
}

static void
copy(const Change *change, HeapTuple row, const char *name, Event *event, int e)
{
	event->values[e] = column(change, row, name, &event->nulls[e]);
}

static void
set_text(Event *event, int e, const char *value)
{
	event->nulls[e] = value == NULL;
	if (value)
		event->values[e] = CStringGetTextDatum(value);
}

static void
set_datum(Event *event, int e, Datum value)
{
	event->nulls[e] = false;
	event->values[e] = value;
}

/* No token of this tenant that exists by now lives longer than this. */
static TimestampTz
last_token_end(Datum tenant_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	LedgerRow	tenant;
	int64		ttl = (int64) setting_access_ttl * USECS_PER_SEC;

	if (row_find(&table_tenant, snapshot, &tenant_id, &tenant))
		ttl = Max(ttl, tenant_ttl_max(&tenant));
	UnregisterSnapshot(snapshot);
	return ledger_now() + ttl;
}

/* The same for the tokens of all tenants. */
static TimestampTz
last_token_end_anywhere(void)
{
	static LedgerQuery query = {"SELECT extract(epoch FROM max(access_ttl_max))::bigint FROM sessauth.tenant"};

	ledger_run(&query, NULL, NULL);
	return ledger_now() + Max(ledger_int8(0, 1), setting_access_ttl) * USECS_PER_SEC;
}

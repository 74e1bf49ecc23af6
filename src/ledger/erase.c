/*
 * erase.c
 *		Taking a person out of the ledger and its history.
 *
 * Three things outlive the call, because until then somebody may need the
 * real user id: the event of the erasure itself, which is the revocation that nodes must match with tokens; sessions
 * that another transaction held or had not yet committed; and the events of those. They are noted in
 * sessauth.erasure, and the worker finishes them (finish_erasures) when nobody needs the id any more.
 *
 * Who reads the history later than that may read pseudonyms in it, a mirror that was down above all. That does no harm:
 * - A revocation of the user that was not yet numbered goes out with a pseudonym, and hits nobody. What it should have hit is
 *   hit by the erasure's own one, which came later, with a higher epoch, and is not finished before it has been numbered.
 * - A revocation of a session names the session; the user in it is not looked at.
 * - Keys are written under a pseudonym that is in no token, and expire like others. A session's key may say "active"
 *   until its next event, as it may for any mirror that catches up; the user's epoch in the stream is against it.
 * The user's own keys in the mirrors (an id and an epoch) stay until they expire with the longest session.
 */
#include "postgres.h"

#include <ctype.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ledger/ledger.h"

#define FINISH_MAX 100			/* erasures per call of the worker */

typedef struct Erasure
{
	Datum		event_id;
	Datum		tenant_id;
	Datum		user_id;
	Datum		pseudonym;
	Datum		epoch;			/* what is older belongs to the person who was erased, not to one who came later under the same id */
} Erasure;

static Oid	erasure_table(void);
static void require_trace(const char *tenant_id);
static uint64 read_erasures(LedgerQuery *query, Datum *values, Erasure **out);
static void finish(const Erasure *erasure);
static bool remove_sessions(const Erasure *erasure);
static Datum name_pattern(const char *user_id);

/* What a user's own events say about the person, beside the id. A client's address is the application's. */
#define OWN_EVENTS \
	"UPDATE sessauth.event SET user_id = $3, ip = NULL," \
	" actor = regexp_replace(actor, $4, $3, 'gi'), reason = regexp_replace(reason, $4, $3, 'gi')," \
	" detail = CASE jsonb_typeof(detail) WHEN 'object' THEN detail" \
	"  #- '{before,device}' #- '{before,ip}' #- '{before,user_agent}' #- '{before,end_reason}'" \
	"  #- '{after,device}' #- '{after,ip}' #- '{after,user_agent}' #- '{after,end_reason}' END" \
	" WHERE tenant_id = $1 AND user_id = $2"

PG_FUNCTION_INFO_V1(sessauth_erase_user);

/*
 * erase_user(tenant_id, user_id, reason, actor) → event id. Ends every session, removes the user's rows, and puts one pseudonym for the
 * user everywhere into the history. One at a time. Throws 42704 when there is no such tenant, in the history neither.
 */
Datum
sessauth_erase_user(PG_FUNCTION_ARGS)
{
	static LedgerQuery raise = {
		"INSERT INTO sessauth.tenant_user AS u (tenant_id, user_id) VALUES ($1, $2)"
		" ON CONFLICT (tenant_id, user_id) DO UPDATE SET epoch = u.epoch + 1", 2, {TEXTOID, TEXTOID}
	};
	static LedgerQuery earlier = {
		"SELECT event_id, tenant_id, user_id, pseudonym, epoch FROM sessauth.erasure WHERE tenant_id = $1 AND user_id = $2",
		2, {TEXTOID, TEXTOID}
	};
	static LedgerQuery pseudonym = {"SELECT 'erased-' || gen_random_uuid()"};
	static LedgerQuery own = {OWN_EVENTS, 4, {TEXTOID, TEXTOID, TEXTOID, TEXTOID}};
	static LedgerQuery others = {
		"UPDATE sessauth.event SET actor = regexp_replace(actor, $3, $2, 'gi'), reason = regexp_replace(reason, $3, $2, 'gi'),"
		" detail = CASE jsonb_typeof(detail) WHEN 'object' THEN detail #- '{before,end_reason}' #- '{after,end_reason}' END"
		" WHERE tenant_id = $1 AND (actor ~* $3 OR reason ~* $3)", 3, {TEXTOID, TEXTOID, TEXTOID}
	};
	static LedgerQuery user = {
		"DELETE FROM sessauth.tenant_user WHERE tenant_id = $1 AND user_id = $2", 2, {TEXTOID, TEXTOID}
	};
	static LedgerQuery note = {
		"INSERT INTO sessauth.erasure (event_id, tenant_id, user_id, pseudonym, epoch)"
		" SELECT event_id, tenant_id, user_id, $2, epoch FROM sessauth.event WHERE event_id = $1"
		" RETURNING event_id, tenant_id, user_id, pseudonym, epoch", 2, {INT8OID, TEXTOID}
	};
	LedgerCall	call;
	char	   *tenant_id = tenant_id_arg(fcinfo, 0);
	char	   *user_id = user_id_arg(fcinfo, 1);
	Datum		values[4];
	Erasure    *erasures;
	uint64		count;
	int64		event_id;

	access_require_owner(fcinfo);
	access_require_own_tenant(tenant_id);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	LockRelationOid(erasure_table(), ShareRowExclusiveLock);
	require_trace(tenant_id);

	/* As revoke_user does: a first login that is in flight must not be missed. */
	values[0] = CStringGetTextDatum(tenant_id);
	values[1] = CStringGetTextDatum(user_id);
	ledger_action.part_of_drop = true;
	ledger_run(&raise, values, NULL);

	/* Somebody of this id who was erased before is another person in the history; this revocation does for both. */
	ledger_action.erases = true;
	count = read_erasures(&earlier, values, &erasures);
	for (uint64 i = 0; i < count; i++)
		finish(&erasures[i]);

	ledger_run(&pseudonym, NULL, NULL);
	values[2] = CStringGetTextDatum(ledger_text(0, 1));
	values[3] = name_pattern(user_id);
	ledger_run(&own, values, NULL);
	{
		Datum		named[3] = {values[0], values[2], values[3]};

		ledger_run(&others, named, NULL);
	}

	revoke_action_args(fcinfo, 2);
	ledger_action.kind = "user_erased";
	ledger_action.part_of_drop = false;
	ledger_run(&user, values, NULL);
	event_id = ledger_action.event_id;
	{
		Datum		noted[2] = {Int64GetDatum(event_id), values[2]};

		(void) read_erasures(&note, noted, &erasures);
	}
	(void) remove_sessions(&erasures[0]);
	ledger_end(&call);
	PG_RETURN_INT64(event_id);
}

PG_FUNCTION_INFO_V1(sessauth_finish_erasures);

/*
 * finish_erasures() → bigint: how many erasures are complete now. The worker calls it; it never waits for anybody, and
 * what cannot be finished yet is left for the next call.
 */
Datum
sessauth_finish_erasures(PG_FUNCTION_ARGS)
{
	/*
	 * Finished is what the worker has numbered, what no token can need any more by the revocation log's own measure, and what every
	 * transaction has seen that could still write for the old user. A restored event's xid says nothing here.
	 */
	static LedgerQuery due = {
		"SELECT p.event_id, p.tenant_id, p.user_id, p.pseudonym, p.epoch"
		" FROM sessauth.ledger_state s, sessauth.erasure p LEFT JOIN sessauth.event e ON e.event_id = p.event_id"
		" WHERE CASE WHEN e.event_id IS NULL THEN true WHEN e.event_id <= s.floor THEN s.seen::text <> '1:1:'"
		"  ELSE pg_visible_in_snapshot(e.xid, s.seen) AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) END"
		" AND NOT EXISTS (SELECT FROM sessauth.revocation_log l WHERE l.event_id = p.event_id AND l.until > sessauth.ledger_time())"
		" ORDER BY p.event_id LIMIT $1", 1, {INT8OID}
	};
	static LedgerQuery some = {"SELECT 1 FROM sessauth.erasure LIMIT 1"};
	LedgerCall	call;
	Datum		max = Int64GetDatum(FINISH_MAX);
	Erasure    *erasures;
	int64		finished = 0;

	access_require_owner(fcinfo);
	access_require_own_tenant(NULL);
	ledger_begin(&call, fcinfo);
	if (ledger_is_active() && ledger_run(&some, NULL, NULL) > 0 &&
		ConditionalLockRelationOid(erasure_table(), ShareRowExclusiveLock))
	{
		uint64		count = read_erasures(&due, &max, &erasures);

		ledger_action.part_of_drop = true;
		ledger_action.erases = true;
		for (uint64 i = 0; i < count; i++)
			if (remove_sessions(&erasures[i]))
			{
				finish(&erasures[i]);
				finished++;
			}
	}
	ledger_end(&call);
	PG_RETURN_INT64(finished);
}

static Oid
erasure_table(void)
{
	return ledger_relid("erasure");
}

/* A tenant that was dropped may still have users in its history. */
static void
require_trace(const char *tenant_id)
{
	static LedgerQuery query = {
		"SELECT 1 FROM sessauth.tenant WHERE tenant_id = $1"
		" UNION ALL (SELECT 1 FROM sessauth.event WHERE tenant_id = $1 LIMIT 1)", 1, {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(tenant_id);

	if (ledger_run(&query, &value, NULL) == 0)
		unknown_tenant(tenant_id);
}

static uint64
read_erasures(LedgerQuery *query, Datum *values, Erasure **out)
{
	uint64		count = ledger_run(query, values, NULL);

	*out = palloc(sizeof(Erasure) * Max(count, 1));
	for (uint64 i = 0; i < count; i++)
	{
		(*out)[i].event_id = Int64GetDatum(ledger_int8(i, 1));
		(*out)[i].tenant_id = CStringGetTextDatum(ledger_text(i, 2));
		(*out)[i].user_id = CStringGetTextDatum(ledger_text(i, 3));
		(*out)[i].pseudonym = CStringGetTextDatum(ledger_text(i, 4));
		(*out)[i].epoch = Int64GetDatum(ledger_int8(i, 5));
	}
	return count;
}

/* Puts the pseudonym into what was left: the erasure's own event and late ones of the old user. An event without an epoch is of a login that was rolled back. */
static void
finish(const Erasure *erasure)
{
	static LedgerQuery own = {
		OWN_EVENTS " AND (event_id = $5 OR coalesce(epoch, 0) < $6)",
		6, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID}
	};
	static LedgerQuery done = {"DELETE FROM sessauth.erasure WHERE event_id = $1", 1, {INT8OID}};
	Datum		values[6] = {erasure->tenant_id, erasure->user_id, erasure->pseudonym,
	name_pattern(TextDatumGetCString(erasure->user_id)), erasure->event_id, erasure->epoch};

	ledger_run(&own, values, NULL);
	ledger_run(&done, &values[4], NULL);
}

/* The old user's sessions, without events of their own: the erasure says it all. False when somebody holds one. */
static bool
remove_sessions(const Erasure *erasure)
{
	static LedgerQuery remove = {
		"DELETE FROM sessauth.session WHERE session_id IN (SELECT session_id FROM sessauth.session"
		"  WHERE tenant_id = $1 AND user_id = $2 AND epoch < $3 FOR UPDATE SKIP LOCKED)", 3, {TEXTOID, TEXTOID, INT8OID}
	};
	static LedgerQuery left = {
		"SELECT 1 FROM sessauth.session WHERE tenant_id = $1 AND user_id = $2 AND epoch < $3 LIMIT 1",
		3, {TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[3] = {erasure->tenant_id, erasure->user_id, erasure->epoch};

	ledger_action.part_of_drop = true;
	ledger_run(&remove, values, NULL);
	return ledger_run(&left, values, NULL) == 0;
}

/* A regular expression for the id as a word of its own: "al" is not named by "alice", nor 4 by 42. */
static Datum
name_pattern(const char *user_id)
{
	StringInfoData pattern;

	initStringInfo(&pattern);
	appendStringInfoString(&pattern, "(?<![[:alnum:]_])");
	for (const char *c = user_id; *c; c++)
	{
		if ((unsigned char) *c < 0x80 && !isalnum((unsigned char) *c))
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *c);
	}
	appendStringInfoString(&pattern, "(?![[:alnum:]_])");
	return CStringGetTextDatum(pattern.data);
}

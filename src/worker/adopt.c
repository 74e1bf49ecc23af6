/*
 * adopt.c
 *		Before a mirror is claimed: what does its stream remember that this ledger does not?
 *
 * What must never happen: that we drop, trim or outnumber a revocation that is
 * authentic and that the ledger has lost, whether by an older backup, a failover without the last transactions, or a
 * copy that takes its original's place. So the whole stream is read first, and whatever has a good MAC and is not known is written
 * into the ledger (sessauth.adopt) and committed. Only then may the mirror be claimed.
 *
 * A crash before the commit: nothing was claimed, the stream is read again. A crash after it: the same, and everything in it is
 * known by then. A row that somebody has locked holds the claim up, because going on would forget; the nodes
 * say "cannot tell" meanwhile. What has no good MAC is not looked at: it may say anything.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "server/clock.h"
#include "worker/worker.h"
#include "worker/worker_tx.h"

#define SLICE		1000
#define SLICE_TEXT	"1000"
#define RETRY_MS	200			/* for a row that is locked */

static void add(Mirror *mirror, const redisReply *fields, const char *stream);
static int	adopt_unknown(const Mirror *mirror, bool *stays);
static Datum text_array(Datum *values, int count, Oid type);
static char adopt_one(const SaEntry *entry, int64 now_ms);

void
adopt_begin(Mirror *mirror)
{
	if (mirror->remembered == NULL)
		mirror->remembered = MemoryContextAlloc(TopMemoryContext, sizeof(SaEntry) * SLICE);
	mirror->remembered_count = 0;
	strlcpy(mirror->adopt_from, "-", sizeof(mirror->adopt_from));
	mirror->adopt_retry_at = 0;
	mirror->phase = MIRROR_ADOPT;
}

void
adopt_ask(Mirror *mirror)
{
	char		stream[SA_REDIS_KEY_SIZE];

	sa_name_stream(mirror->where.prefix, stream);
	link_command(&mirror->link, 6, (SaField[]) {SA_FIELD("XRANGE", 6), SA_FIELD_STR(stream), SA_FIELD_STR(mirror->adopt_from),
				 SA_FIELD("+", 1), SA_FIELD("COUNT", 5), SA_FIELD(SLICE_TEXT, strlen(SLICE_TEXT))});
}

/* A key of another type has nothing to tell; a server that does not show it may have all the more. */
void
adopt_take(Mirror *mirror, const redisReply *reply)
{
	size_t		count = reply->type == REDIS_REPLY_ARRAY ? Min(reply->elements, SLICE) : 0;
	char		stream[SA_REDIS_KEY_SIZE];

	if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "WRONGTYPE", 9) != 0)
	{
		mirror_fail(mirror, "the server does not show its stream");
		return;
	}
	sa_name_stream(mirror->where.prefix, stream);
	mirror->adopt_from[0] = '\0';
	for (size_t i = 0; i < count; i++)
	{
		redisReply *entry = reply->element[i];

		if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[0]->type != REDIS_REPLY_STRING)
			return;
		if (entry->element[1]->type == REDIS_REPLY_ARRAY)
			add(mirror, entry->element[1], stream);
		if (i == SLICE - 1)
			snprintf(mirror->adopt_from, sizeof(mirror->adopt_from), "(%.46s", entry->element[0]->str);
	}
}

static void
add(Mirror *mirror, const redisReply *fields, const char *stream)
{
	SaField		args[SA_ENTRY_ARGS];

	if (fields->elements > SA_ENTRY_ARGS)
		return;
	for (size_t i = 0; i < fields->elements; i++)
	{
		if (fields->element[i]->type != REDIS_REPLY_STRING)
			return;
		args[i] = SA_FIELD(fields->element[i]->str, fields->element[i]->len);
	}
	if (sa_entry_read(mirror_link_key, stream, args, fields->elements, &mirror->remembered[mirror->remembered_count]) &&
		mirror->remembered[mirror->remembered_count].kind != SA_KIND_BEAT)
		mirror->remembered_count++;
}

/* A slice is here, and was not looked at yet. */
bool
adopt_pending(const Mirror *mirror, Instant now)
{
	return mirror->phase == MIRROR_ADOPT && mirror->exchange == EXCHANGE_NONE && now >= mirror->adopt_retry_at &&
		(mirror->remembered_count > 0 || mirror->adopt_from[0] == '\0');
}

void
adopt_remembered(void)
{
	for (int i = 0; i < mirror_count; i++)
	{
		Mirror	   *mirror = mirrors[i];
		int			adopted = 0;

		if (!adopt_pending(mirror, clock_boot()))
			continue;
		if (mirror->remembered_count > 0)
		{
			bool	   *stays = palloc0(mirror->remembered_count);
			int			left = 0;

			if (worker_tx_begin() != WORKER_TX_OPEN)
				return;
			adopted = adopt_unknown(mirror, stays);
			worker_tx_commit();
			for (int j = 0; j < mirror->remembered_count; j++)
				if (stays[j])
					mirror->remembered[left++] = mirror->remembered[j];
			mirror->remembered_count = left;
		}
		if (adopted > 0)
		{
			mirror->adopted_count += adopted;
			ereport(LOG,
					(errmsg("sessauth: the ledger has adopted %d revocations that it had lost and mirror \"%s\" remembers", adopted, mirror->name),
					 errhint("The history has them as revocation_adopted.")));
		}
		if (mirror->remembered_count > 0)
		{
			mirror->adopt_retry_at = instant_after(clock_boot(), RETRY_MS);
			status_mirror(mirror, "connecting", "it remembers a revocation of a session, user or tenant whose row is locked by an open transaction", NULL);
		}
		else if (mirror->adopt_from[0] == '\0')
		{
			mirror->adopted = true;
			mirror->phase = MIRROR_CHECK;
		}
	}
}

/* Returns how many; those that must wait for a lock are marked. Most are known, so one statement looks for the others. */
static int
adopt_unknown(const Mirror *mirror, bool *stays)
{
	static WorkerQuery unknown = {
		"SELECT e.i::int4 FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY e (kind, tid, uid, sid, kid, epoch, i)"
		" WHERE NOT CASE e.kind"
		" WHEN 'user' THEN EXISTS (SELECT 1 FROM sessauth.tenant_user u WHERE u.tenant_id = e.tid AND u.user_id = e.uid AND u.epoch >= e.epoch)"
		" WHEN 'tenant' THEN EXISTS (SELECT 1 FROM sessauth.tenant t WHERE t.tenant_id = e.tid AND t.epoch >= e.epoch)"
		" WHEN 'session' THEN EXISTS (SELECT 1 FROM sessauth.session s WHERE s.session_id = e.sid::uuid AND s.ended_at IS NOT NULL)"
		" ELSE EXISTS (SELECT 1 FROM sessauth.signing_key k WHERE k.kid = e.kid AND k.revoked_at IS NOT NULL) END",
		6, {TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID}
	};
	int			count = mirror->remembered_count;
	Datum	   *columns[6];
	Datum		values[6];
	int		   *places;
	int			found;
	int			adopted = 0;
	int64		now_ms = unix_ms(ledger_now());

	for (int c = 0; c < 6; c++)
		columns[c] = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
	{
		const SaEntry *entry = &mirror->remembered[i];

		columns[0][i] = CStringGetTextDatum(sa_kind_name(entry->kind));
		columns[1][i] = CStringGetTextDatum(entry->tid);
		columns[2][i] = CStringGetTextDatum(entry->uid);
		columns[3][i] = CStringGetTextDatum(entry->sid);
		columns[4][i] = CStringGetTextDatum(entry->kid);
		columns[5][i] = Int64GetDatum(entry->epoch);
	}
	for (int c = 0; c < 6; c++)
		values[c] = text_array(columns[c], count, c == 5 ? INT8OID : TEXTOID);
	found = (int) worker_query(&unknown, values, NULL);
	places = palloc(sizeof(int) * (found + 1));
	for (int i = 0; i < found; i++)
		places[i] = DatumGetInt32(row_datum(i, 1)) - 1;
	for (int i = 0; i < found; i++)
	{
		switch (adopt_one(&mirror->remembered[places[i]], now_ms))
		{
			case 'l':
				stays[places[i]] = true;
				break;
			case 'a':
				adopted++;
				break;
		}
	}
	return adopted;
}

static Datum
text_array(Datum *values, int count, Oid type)
{
	if (type == INT8OID)
		return PointerGetDatum(construct_array(values, count, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* 'a'dopted, 'k'nown, or 'l'ocked. */
static char
adopt_one(const SaEntry *entry, int64 now_ms)
{
	static WorkerQuery adopt = {
		"SELECT sessauth.adopt($1, $2, $3, $4::uuid, $5, $6, to_timestamp($7 / 1000.0))",
		7, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID}
	};
	Datum		values[7];
	bool		nulls[7] = {false};

	values[0] = CStringGetTextDatum(sa_kind_name(entry->kind));
	values[1] = CStringGetTextDatum(entry->tid);
	values[2] = CStringGetTextDatum(entry->uid);
	values[3] = CStringGetTextDatum(entry->sid);
	values[4] = CStringGetTextDatum(entry->kid);
	values[5] = Int64GetDatum(entry->epoch);
	values[6] = Int64GetDatum(entry->until);
	nulls[1] = entry->tid[0] == '\0';
	nulls[2] = entry->uid[0] == '\0';
	nulls[3] = entry->sid[0] == '\0';
	nulls[4] = entry->kid[0] == '\0';
	nulls[5] = entry->epoch == 0;
	nulls[6] = entry->until <= now_ms;	/* nobody else needs to hear of it any more */
	worker_query(&adopt, values, nulls);
	return row_isnull(0, 1) ? 'l' : DatumGetBool(row_datum(0, 1)) ? 'a' : 'k';
}

/*
 * packed.c
 *		The log of revocations by the ten thousand, for nodes that join.
 *
 * As rows, most of the time would go into making rows and reading them again. So they come as the pages of a mirror do
 * (src/core/wire_page.c); there is no MAC, because the connection is the proof. Nothing is claimed and nothing granted here: the lease is given by lease.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "core/wire.h"
#include "ledger/ledger.h"

#define ENTRIES_MAX		10000

enum
{
	LC_N, LC_KIND, LC_TENANT, LC_USER, LC_SESSION, LC_KID, LC_EPOCH, LC_EVENT, LC_AT, LC_UNTIL, LOG_COLUMNS
};

static void read_entry(HeapTuple row, TupleDesc desc, SaEntry *out);
static void copy_text(Datum value, char *out, size_t size);
static int64 unix_us(Datum value);

PG_FUNCTION_INFO_V1(sessauth_revocations_packed);

/*
 * revocations_packed(generation uuid, n bigint) → last, packed: the entries n + 1 to last, at most 10000, each as doc/protocol.md has it in section 3
 * under pages; none (last = n) when there are no more, or the generation is not the current one. Throws 42501 without access, 22004.
 */
Datum
sessauth_revocations_packed(PG_FUNCTION_ARGS)
{
	static LedgerQuery query = {
		"SELECT n, kind, tenant_id, user_id, session_id, kid, epoch, event_id, at, until FROM sessauth.revocation_log"
		" WHERE generation = (SELECT s.generation FROM sessauth.ledger_state s WHERE s.generation = $1) AND n > $2 ORDER BY n LIMIT $3",
		3, {UUIDOID, INT8OID, INT4OID}
	};
	static LedgerResult result;
	LedgerCall	call;
	StringInfoData packed;
	Datum		args[3];
	Datum		values[2];
	bool		nulls[2] = {false, false};
	TupleDesc	desc;
	int64		last;
	uint64		count;

	require_arg(fcinfo, 0, "generation");
	require_arg(fcinfo, 1, "n");
	access_require(ACCESS_NODE, NULL);
	desc = ledger_result(&result, fcinfo, 2);
	args[0] = PG_GETARG_DATUM(0);
	args[1] = PG_GETARG_DATUM(1);
	args[2] = Int32GetDatum(ENTRIES_MAX);
	last = PG_GETARG_INT64(1);
	initStringInfo(&packed);
	appendStringInfoSpaces(&packed, VARHDRSZ);
	ledger_begin(&call, fcinfo);
	ledger_go_by_index();
	count = ledger_run(&query, args, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		SaEntry		entry;
		char		bytes[SA_PAGE_ENTRY_MAX];
		size_t		len;

		read_entry(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &entry);
		if (entry.n != last + 1)
			break;				/* what lies between matters no more, and who asked begins anew */
		len = sa_page_put(&entry, bytes);
		if (len == 0)
			elog(ERROR, "sessauth: revocation " INT64_FORMAT " cannot be told", entry.n);
		appendBinaryStringInfo(&packed, bytes, len);
		last = entry.n;
	}
	ledger_end(&call);
	SET_VARSIZE(packed.data, packed.len);
	values[0] = Int64GetDatum(last);
	values[1] = PointerGetDatum(packed.data);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* At once: asking for one column after the other would begin with the first each time. Times as in every entry, "until" not before its time. */
static void
read_entry(HeapTuple row, TupleDesc desc, SaEntry *out)
{
	Datum		values[LOG_COLUMNS];
	bool		nulls[LOG_COLUMNS];
	char		kind[16];

	heap_deform_tuple(row, desc, values, nulls);
	memset(out, 0, sizeof(*out));
	out->n = DatumGetInt64(values[LC_N]);
	copy_text(values[LC_KIND], kind, sizeof(kind));
	if (!sa_kind_parse(kind, strlen(kind), &out->kind))
		elog(ERROR, "sessauth: unknown kind of revocation \"%s\"", kind);
	copy_text(values[LC_TENANT], out->tid, sizeof(out->tid));
	copy_text(values[LC_USER], out->uid, sizeof(out->uid));
	copy_text(values[LC_KID], out->kid, sizeof(out->kid));
	if (!nulls[LC_SESSION])
		strlcpy(out->sid, DatumGetCString(DirectFunctionCall1(uuid_out, values[LC_SESSION])), sizeof(out->sid));
	out->epoch = DatumGetInt64(values[LC_EPOCH]);
	out->eid = DatumGetInt64(values[LC_EVENT]);
	out->at = unix_us(values[LC_AT]) / 1000;
	out->until = (unix_us(values[LC_UNTIL]) + 999) / 1000;
}

static void
copy_text(Datum value, char *out, size_t size)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

	if (VARSIZE_ANY_EXHDR(text) >= size)
		elog(ERROR, "sessauth: a text of the revocation log is too long");
	memcpy(out, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	out[VARSIZE_ANY_EXHDR(text)] = '\0';
}

static int64
unix_us(Datum value)
{
	return DatumGetTimestampTz(value) + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

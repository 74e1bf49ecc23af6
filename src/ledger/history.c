/*
 * history.c
 *		The partitions of the history.
 *
 * What makes a partition is said here once, for the default one, for the
 * months that a fresh ledger begins with, and for those that the worker makes later. Indexes belong to the partitions
 * and not to their parent: a dump writes a partition's indexes after attaching it, and would find those that
 * the parent's had made already. The guard against UPDATE and DELETE is the parent's, and comes with attaching.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ledger/ledger.h"

/*
 * Each index is paid for at every login. Consumers find what is new by xid; a question about a user or
 * a tenant and a time walks one of the next two, in the order of time. The last two hold revocations alone, and logins pay nothing for them.
 */
/*
 * Row security hides rows, not statistics: without this, EXPLAIN would tell an
 * administrator of one tenant how many rows another one has, or whether it exists. (30-access.sql does the same for the other tables.)
 */
#define HISTORY_WITHOUT_STATISTICS \
	"ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0," \
	" ALTER actor SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER client_addr SET STATISTICS 0, ALTER reason SET STATISTICS 0"

static const char *const partition_ddl[] = {
	"ALTER TABLE %s ADD PRIMARY KEY (event_id)",
	"CREATE INDEX ON %s (xid, event_id)",
	"CREATE INDEX ON %s (tenant_id, user_id, at)",
	"CREATE INDEX ON %s (tenant_id, at)",
	"CREATE INDEX ON %s (tenant_id, user_id, at) WHERE revokes IS NOT NULL",
	"CREATE INDEX ON %s (tenant_id, at) WHERE revokes IS NOT NULL",
	"CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate()",
	"ALTER TABLE %s " HISTORY_WITHOUT_STATISTICS,
	"ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, ENABLE ALWAYS TRIGGER no_truncate",
};

void
history_prepare_partition(const char *table)
{
	for (int i = 0; i < lengthof(partition_ddl); i++)
		if (SPI_execute(psprintf(partition_ddl[i], table), false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not prepare a partition of the history");
	access_withdraw(table);
}

/*
 * A dump may bring events of a month into the default partition, because its own was never made. Such a month
 * cannot be added before they have moved, which is the worker's work (partitions.c).
 */
void
history_create_months(void)
{
	static LedgerQuery missing = {
		"SELECT 'sessauth.event_' || to_char(m, 'YYYY_MM'), to_char(m, 'YYYY-MM-DD'), to_char(m + interval '1 month', 'YYYY-MM-DD')"
		" FROM (VALUES (date_trunc('month', now() AT TIME ZONE 'UTC')),"
		"  (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month')) v(m)"
		" WHERE to_regclass('sessauth.event_' || to_char(m, 'YYYY_MM')) IS NULL"
		" AND NOT EXISTS (SELECT FROM sessauth.event_default WHERE at >= m AT TIME ZONE 'UTC' AND at < (m + interval '1 month') AT TIME ZONE 'UTC')"
	};
	char	   *tables[2];
	char	   *statements[2];
	uint64		count = Min(ledger_run(&missing, NULL, NULL), lengthof(tables));

	for (uint64 i = 0; i < count; i++)
	{
		tables[i] = ledger_text(i, 1);
		statements[i] = psprintf("CREATE TABLE %s PARTITION OF sessauth.event"
								 " FOR VALUES FROM ('%s 00:00:00Z') TO ('%s 00:00:00Z')",
								 tables[i], ledger_text(i, 2), ledger_text(i, 3));
	}
	for (uint64 i = 0; i < count; i++)
	{
		if (SPI_execute(statements[i], false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not create a partition of the history");
		history_prepare_partition(tables[i]);
	}
}

PG_FUNCTION_INFO_V1(sessauth_prepare_partition);

/* prepare_partition(partition regclass) → void. Throws 42501 to all but superusers and the owner, 42P16 when it is prepared already. */
Datum
sessauth_prepare_partition(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	Oid			relid;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "partition");
	relid = PG_GETARG_OID(0);
	ledger_begin(&call, fcinfo);
	history_prepare_partition(quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)));
	ledger_end(&call);
	PG_RETURN_VOID();
}

/*
 * upgrade.c
 *		What ALTER EXTENSION sessauth UPDATE needs beside its script.
 *
 * PostgreSQL takes what a script grants for a part of the extension, which no dump carries. So the privileges on
 * what an update has brought are granted here, after the script and in the same transaction. What takes the master key
 * is done here, too. Then everybody who waits for the right version is told to look again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#include "ledger/ledger.h"
#include "server/extension.h"
#include "server/keyring.h"
#include "server/wake.h"

static ProcessUtility_hook_type previous_hook = NULL;

static void process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc);
static void after_update(void);

void
upgrade_hook_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	bool		updates = IsA(pstmt->utilityStmt, AlterExtensionStmt) &&
		strcmp(((AlterExtensionStmt *) pstmt->utilityStmt)->extname, "sessauth") == 0;

	if (previous_hook)
		previous_hook(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment, dest, qc);
	if (updates)
		after_update();
}

static void
after_update(void)
{
	Extension	extension;

	CommandCounterIncrement();
	extension_changed();
	wake_worker_at_commit();
	if (extension_find(&extension) && extension_matches(&extension))
	{
		int			level = NewGUCNestLevel();

		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		SPI_connect();
		access_renew_privileges();
		keyring_name_keys();
		SPI_finish();
		AtEOXact_GUC(false, level);
	}
}

/*
 * status_server.c
 *		Checks of the server: the library, its processes, the master key, and
 *		settings that lose revocations or show tokens.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "ledger/status.h"
#include "server/keyring.h"
#include "server/log_hook.h"
#include "server/settings.h"
#include "server/shmem.h"

static void check_preload(const char *name);
static void check_version(const char *name);
static void check_role(const char *name);
static void check_worker(const char *name);
static void check_worker_slots(const char *name);
static void check_master_key(const char *name);
static void check_log(const char *name);
static void check_statistics(const char *name);
static void check_durability(const char *name);
static void check_notify(const char *name);
static const char *setting(const char *name);
static bool is_setting(const char *name, const char *value);
static void list_if(StringInfo list, bool condition, const char *name);

const StatusCheck status_server_checks[] = {
	{"preload", check_preload},
	{"version", check_version},
	{"server", check_role},
	{"worker", check_worker},
	{"worker_slots", check_worker_slots},
	{"master_key", check_master_key},
	{"log", check_log},
	{"statement_statistics", check_statistics},
	{"durability", check_durability},
	{"notify_queue", check_notify},
	{NULL, NULL}
};

static void
check_preload(const char *name)
{
	if (sessauth_preloaded())
		status_row(name, "ok", "The library was loaded when the server started.", NULL);
	else
		status_row(name, "error", "The library was not loaded when the server started: there is no worker, and every call refuses to work.",
				   "Add sessauth to shared_preload_libraries, and restart the server.");
}

static void
check_version(const char *name)
{
	static LedgerQuery query = {"SELECT extversion FROM pg_extension WHERE extname = 'sessauth'"};
	char	   *sql;

	if (ledger_run(&query, NULL, NULL) == 0)
		elog(ERROR, "pg_extension does not list sessauth");
	sql = ledger_text(0, 1);
	if (strcmp(sql, SESSAUTH_VERSION) == 0)
		status_row(name, "ok", psprintf("Library and SQL are of version %s.", sql), NULL);
	else
		status_row(name, "error", psprintf("The library is of version %s, the SQL of version %s.", SESSAUTH_VERSION, sql),
				   "ALTER EXTENSION sessauth UPDATE; if the library is the older one, restart the server first.");
}

static void
check_role(const char *name)
{
	if (!RecoveryInProgress())
		status_row(name, "ok", "This is a primary.", NULL);
	else if (setting_standby_verify)
		status_row(name, "warning", "This is a standby that answers about tokens, because sessauth.standby_verify is on: it may say yes to what the primary has revoked.",
				   "Ask the primary where the bound of max_staleness matters.");
	else
		status_row(name, "ok", "This is a standby: verify() says cannot_tell here.", NULL);
}

static void
check_worker(const char *name)
{
	pid_t		launcher;
	pid_t		worker = 0;

	if (RecoveryInProgress())
	{
		status_row(name, "ok", "A standby has no worker; it starts with the promotion.", NULL);
		return;
	}
	if (!sessauth_preloaded())
	{
		status_row(name, "error", "There is none without the preloaded library.", "See preload.");
		return;
	}
	LWLockAcquire(shared->lock, LW_SHARED);
	launcher = shared->launcher_pid;
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == MyDatabaseId && shared->slots[i].state == SLOT_RUNNING)
			worker = shared->slots[i].pid;
	LWLockRelease(shared->lock);
	if (worker != 0)
		status_row(name, "ok", psprintf("The worker of this database is running (process %d).", (int) worker), NULL);
	else if (launcher == 0)
		status_row(name, "error", "Neither the launcher nor a worker is running: mirrors hear of no revocation.",
				   "See the server's log; there may have been no free slot, see max_worker_processes.");
	else
		status_row(name, "error", "The launcher is running, but no worker of this database: its mirrors hear of no revocation.",
				   "It takes a second after CREATE EXTENSION; else see the server's log and max_worker_processes.");
}

/* PostgreSQL's own logical replication launcher, ours, and the workers that are needed already. */
static void
check_worker_slots(const char *name)
{
	int			needed = 2;
	int			spare;

	if (sessauth_preloaded())
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		for (int i = 0; i < SLOTS_MAX; i++)
			needed += shared->slots[i].state == SLOT_STARTING || shared->slots[i].state == SLOT_RUNNING;
		LWLockRelease(shared->lock);
	}
	spare = max_worker_processes - needed;
	if (spare > 0)
		status_row(name, "ok", psprintf("%d of max_worker_processes = %d are left for other databases, parallel queries and replication.",
										spare, max_worker_processes), NULL);
	else
		status_row(name, "warning", psprintf("max_worker_processes = %d leaves no room for a worker of another database, or for one that starts again.",
											 max_worker_processes),
				   "Raise max_worker_processes and restart the server.");
}

static void
check_master_key(const char *name)
{
	MasterKeyProblem problem;
	char		id[MASTER_KEY_ID_SIZE];

	if (!keyring_matches(&problem))
	{
		status_row(name, "error", psprintf("%s%s%s", problem.message, problem.detail[0] ? ": " : "", problem.detail), problem.hint);
		return;
	}
	master_key_id(master_key(), id);
	if (master_key_file_is_same(&problem))
		status_row(name, "ok", psprintf("The server has the master key with id %s.", id), NULL);
	else
		status_row(name, "warning", psprintf("The server has the right key, but would not have it after a restart: %s", problem.message), problem.hint);
}

/* What PostgreSQL and its modules log of bound parameters, and whether our hook sees it first. */
static void
check_log(const char *name)
{
	StringInfoData shown;
	bool		statements = !is_setting("log_statement", "none") || atoi(setting("log_min_duration_statement")) >= 0 ||
		atoi(setting("log_min_duration_sample")) >= 0 || strtod(setting("log_transaction_sample_rate"), NULL) > 0;

	initStringInfo(&shown);
	list_if(&shown, statements && !is_setting("log_parameter_max_length", "0"), "log_parameter_max_length");
	list_if(&shown, !is_setting("log_parameter_max_length_on_error", "0"), "log_parameter_max_length_on_error");
	list_if(&shown, atoi(setting("auto_explain.log_min_duration")) >= 0 && setting("auto_explain.log_min_duration")[0] != '\0' &&
			!is_setting("auto_explain.log_parameter_max_length", "0"), "auto_explain.log_parameter_max_length");
	list_if(&shown, is_setting("pgaudit.log_parameter", "on"), "pgaudit.log_parameter");

	if (log_hook_is_first())
		status_row(name, "ok", shown.len == 0 ? "Bound parameters are not logged; tokens elsewhere in the log are redacted." :
				   psprintf("Bound parameters are logged (%s); tokens in them are redacted.", shown.data), NULL);
	else if (sessauth_preloaded())
		status_row(name, "warning", "A library that was loaded after sessauth sees what is logged before tokens are taken out of it.",
				   "Let sessauth be the last name in shared_preload_libraries, and restart the server.");
	else if (shown.len == 0)
		status_row(name, "warning", "Tokens that are written into statements, or repeated in errors, are logged as they are.", "See preload.");
	else
		status_row(name, "error", psprintf("Tokens that are bound as parameters are logged as they are, because of %s.", shown.data),
				   "Set what is named to 0 or off, or see preload.");
}

static void
check_statistics(const char *name)
{
	if (is_setting("pg_stat_statements.track_utility", "on") && !is_setting("pg_stat_statements.track", "none"))
		status_row(name, "warning", "pg_stat_statements.track_utility is on: it keeps DO, CALL, EXECUTE and SET as they are, with any token written into them.",
				   "Pass tokens as bound parameters of SELECT and nowhere else, or set it to off.");
	else
		status_row(name, "ok", "pg_stat_statements keeps no literals.", NULL);
}

static void
check_durability(const char *name)
{
	if (is_setting("fsync", "off") || is_setting("full_page_writes", "off"))
		status_row(name, "error", "fsync or full_page_writes is off: a crash of the machine may bring back what was revoked, or lose the ledger.",
				   "Set both to on.");
	else if (is_setting("synchronous_commit", "off"))
		status_row(name, "warning", "synchronous_commit is off: a crash may undo a revocation that was reported as done.",
				   "Set it to on, or at least for the roles that revoke: ALTER ROLE ... SET synchronous_commit = on.");
	else
		status_row(name, "ok", psprintf("A commit is durable when it is reported (synchronous_commit = %s).", setting("synchronous_commit")), NULL);
}

static void
check_notify(const char *name)
{
	static LedgerQuery query = {"SELECT round(100 * pg_notification_queue_usage())::bigint"};
	int64		percent;

	ledger_run(&query, NULL, NULL);
	percent = ledger_int8(0, 1);
	if (percent < 10)			/* it is next to empty, unless somebody sleeps */
		status_row(name, "ok", psprintf("The queue of NOTIFY is " INT64_FORMAT "%% full.", percent), NULL);
	else
		status_row(name, "warning", psprintf("The queue of NOTIFY is " INT64_FORMAT "%% full; when it is full, hints to applications that LISTEN stop.", percent),
				   "A session that listens has had a transaction open for long: see pg_stat_activity.xact_start.");
}

/* "" when there is no such setting. */
static const char *
setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value ? value : "";
}

static bool
is_setting(const char *name, const char *value)
{
	return strcmp(setting(name), value) == 0;
}

static void
list_if(StringInfo list, bool condition, const char *name)
{
	if (condition)
		appendStringInfo(list, "%s%s", list->len ? ", " : "", name);
}

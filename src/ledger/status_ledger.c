/*
 * status_ledger.c
 *		Checks of the ledger in this database: whether it is awake, its signing
 *		keys, its mirrors, its history.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/builtins.h"

#include "ledger/status.h"
#include "server/shmem.h"

#define KEY_AGE_DAYS	365		/* older than this, a signing key should have been rotated */

static void check_ledger(const char *name);
static void check_signing_keys(const char *name);
static void check_mirrors(const char *name);
static void check_mirror(const char *name, uint64 row);
static void check_history(const char *name);

const StatusCheck status_ledger_checks[] = {
	{"ledger", check_ledger},
	{"signing_keys", check_signing_keys},
	{"mirrors", check_mirrors},
	{"history", check_history},
	{NULL, NULL}
};

static void
check_ledger(const char *name)
{
	static LedgerQuery query = {
		"SELECT to_char(activated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"'), n FROM sessauth.ledger_state"
	};

	if (ledger_run(&query, NULL, NULL) == 0)
		status_row(name, "warning", "The ledger is dormant: it is new or restored, and nothing has been written to it since.",
				   "The first call that writes wakes it. If it takes the place of another ledger: SELECT sessauth.activate().");
	else
		status_row(name, "ok", psprintf("The ledger is active since %s; " INT64_FORMAT " revocations are numbered in this generation.",
										ledger_text(0, 1), ledger_int8(0, 2)), NULL);
}

static void
check_signing_keys(const char *name)
{
	static LedgerQuery query = {
		"SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - max(created_at)) / 86400, 0)::bigint"
		" FROM sessauth.signing_key WHERE retired_at IS NULL AND revoked_at IS NULL AND sealed IS NOT NULL"
	};
	int64		days;

	ledger_run(&query, NULL, NULL);
	days = ledger_int8(0, 2);
	if (ledger_int8(0, 1) == 0)
		status_row(name, "error", "No key can sign: nobody can log in.", "SELECT sessauth.create_signing_key()");
	else if (days > KEY_AGE_DAYS)
		status_row(name, "warning", psprintf("The key that signs is " INT64_FORMAT " days old.", days), "SELECT sessauth.rotate_signing_key()");
	else
		status_row(name, "ok", psprintf("The key that signs is " INT64_FORMAT " days old.", days), NULL);
}

static void
check_mirrors(const char *name)
{
	static LedgerQuery names = {
		"SELECT m.name, NULL, s.name IS NULL, NULL, NULL FROM sessauth.mirror m LEFT JOIN sessauth.mirror_state s USING (name) ORDER BY m.name"
	};
	static LedgerQuery states = {
		"SELECT m.name, coalesce(w.state, 'waiting'), s.name IS NULL, w.last_error, w.warning"
		" FROM sessauth.mirror m LEFT JOIN sessauth.mirror_state s USING (name)"
		" LEFT JOIN sessauth.mirror_status() w ON w.name = m.name ORDER BY m.name"
	};
	uint64		count = ledger_run(sessauth_preloaded() && !RecoveryInProgress() ? &states : &names, NULL, NULL);

	if (count == 0)
		status_row(name, "ok", "There is no mirror; nodes that follow Redis have nothing to follow.", NULL);
	for (uint64 i = 0; i < count; i++)
		check_mirror(name, i);
}

static void
check_mirror(const char *name, uint64 row)
{
	char	   *mirror = ledger_text(row, 1);
	char	   *state = ledger_text(row, 2);
	bool		isnull;
	bool		disabled = DatumGetBool(ledger_datum(row, 3, &isnull));
	char	   *error = ledger_text(row, 4);
	char	   *warning = ledger_text(row, 5);

	if (disabled)
		status_row(name, "warning", psprintf("Mirror \"%s\" is disabled: this ledger is a restored or cloned copy.", mirror),
				   "If it takes the place of the original: SELECT sessauth.activate().");
	else if (state == NULL)
		status_row(name, "ok", psprintf("Mirror \"%s\" is written to by the worker of a primary.", mirror), NULL);
	else if (strcmp(state, "streaming") != 0)
		status_row(name, strcmp(state, "down") == 0 ? "error" : "warning",
				   psprintf("Mirror \"%s\" is %s%s%s", mirror, state, error ? ": " : ".", error ? error : ""),
				   strcmp(state, "waiting") == 0 ? "It waits for the worker or for the link key: see worker, master_key and signing_keys."
				   : "Nodes answer 503 when their leases are over. See Redis, its password file and the network.");
	else if (warning != NULL)
		status_row(name, "warning", psprintf("Mirror \"%s\" is streaming, but: %s", mirror, warning), "See the configuration of that Redis.");
	else
		status_row(name, "ok", psprintf("Mirror \"%s\" is streaming.", mirror), NULL);
}

/* The default partition keeps everything, but it can be dropped by nobody, and delays the month that should have held it. */
static void
check_history(const char *name)
{
	static LedgerQuery query = {"SELECT 1 FROM sessauth.event_default LIMIT 1"};

	if (ledger_run(&query, NULL, NULL) == 0)
		status_row(name, "ok", "Every event is in the partition of its month.", NULL);
	else
		status_row(name, "warning", "The default partition of the history has events: a month had no partition of its own.",
				   "Nothing is lost. See whether the worker runs and what it logs.");
}

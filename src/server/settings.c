/*
 * settings.c
 *		The settings sessauth.*.
 *
 * All of them are read by the server alone: a setting that a
 * session could change would let an application mint tokens that live longer
 * than the worker remembers their revocation.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "server/compat.h"
#include "server/master_key.h"
#include "server/settings.h"

char	   *setting_master_key_file = NULL;
char	   *setting_master_key_command = "";
char	   *setting_issuer = NULL;
char	   *setting_audience = NULL;
bool		setting_standby_verify = false;
int			setting_heartbeat_interval = 200;
int			setting_max_lease = 30 * 1000;
int			setting_max_nodes = 4096;
int			setting_propagation_target = 1000;
bool		setting_notify_detail = false;
int			setting_upkeep_interval = 60 * 1000;
int			setting_history_retention = 400;
int			setting_session_retention = 7;
int			setting_reconcile_interval = 5 * 60;
int			setting_access_ttl = 5 * 60;
int			setting_session_ttl = 30 * 24 * 60 * 60;
int			setting_idle_ttl = 7 * 24 * 60 * 60;
int			setting_refresh_grace = 10;
int			setting_max_sessions = 0;
int			setting_on_limit = ON_LIMIT_REJECT;

static const struct config_enum_entry on_limit_options[] = {
	{"reject", ON_LIMIT_REJECT, false},
	{"evict_oldest", ON_LIMIT_EVICT_OLDEST, false},
	{NULL, 0, false}
};

static void define_int(const char *name, const char *what, int *variable, int min, int max, int flags);
static void define_string(const char *name, const char *what, char **variable, const char *value, int flags);

void
settings_init(void)
{
	DefineCustomStringVariable("sessauth.master_key_file",
							   "File with the key that seals private keys at rest: 64 hex digits, readable by the server alone.",
							   NULL, &setting_master_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, master_key_file_assigned, NULL);

	/* Used by the postmaster alone, so a change would mean nothing before a restart; and a library that is loaded later may not define this kind. */
	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomStringVariable("sessauth.master_key_command",
								   "Command that prints that key, run once when the server starts.",
								   NULL, &setting_master_key_command, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
								   NULL, NULL, NULL);
		DefineCustomIntVariable("sessauth.max_nodes",
								"How many nodes can follow one mirror, and how many can get their leases over SQL.",
								"Shared memory is set aside for them when the server starts.",
								&setting_max_nodes, setting_max_nodes, 16, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	}
	define_string("sessauth.issuer", "The iss claim of new access tokens.", &setting_issuer, "sessauth", 0);
	define_string("sessauth.audience", "The aud claim of new access tokens.", &setting_audience, "sessauth", 0);

	DefineCustomBoolVariable("sessauth.standby_verify",
							 "A standby answers about tokens from what it has replayed.",
							 "It may not have heard yet of a revocation that the primary has committed.",
							 &setting_standby_verify, false, PGC_SIGHUP, 0, NULL, NULL, NULL);

	define_int("sessauth.heartbeat_interval",
			   "How often the worker proves to the nodes that they know everything.",
			   &setting_heartbeat_interval, 10, 60 * 1000, GUC_UNIT_MS);
	define_int("sessauth.max_lease",
			   "The longest staleness that a node may tolerate.",
			   &setting_max_lease, 100, LEASE_MS_MAX, GUC_UNIT_MS);
	define_int("sessauth.reconcile_interval",
			   "How often the ledger and each mirror are compared and repaired; 0 means only on request.",
			   &setting_reconcile_interval, 0, 7 * 24 * 60 * 60, GUC_UNIT_S);

	define_int("sessauth.propagation_target",
			   "What takes longer from its commit to the last node counts as a breach in the view propagation.",
			   &setting_propagation_target, 1, 60 * 60 * 1000, GUC_UNIT_MS);
	DefineCustomBoolVariable("sessauth.notify_detail",
							 "Notifications say what was revoked, to everybody who can connect.",
							 NULL, &setting_notify_detail, false, PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* In days, without a unit: a bare number that meant seconds would cost somebody the history. */
	define_int("sessauth.upkeep_interval",
			   "How often the worker looks for old sessions, months of the history to come and to go, and the like.",
			   &setting_upkeep_interval, 10, 24 * 60 * 60 * 1000, GUC_UNIT_MS);
	define_int("sessauth.history_retention", "For how many days the history is kept; 0 means for ever.",
			   &setting_history_retention, 0, 100 * 366, 0);
	define_int("sessauth.session_retention", "For how many days a session that has ended or expired is kept in the table of sessions.",
			   &setting_session_retention, 1, 100 * 366, 0);

	define_int("sessauth.access_ttl", "Lifetime of an access token, unless the tenant's policy says otherwise.",
			   &setting_access_ttl, 1, ACCESS_TTL_MAX, GUC_UNIT_S);
	define_int("sessauth.session_ttl", "Absolute lifetime of a session, unless the tenant's policy says otherwise.",
			   &setting_session_ttl, 1, SESSION_TTL_MAX, GUC_UNIT_S);
	define_int("sessauth.idle_ttl", "How long a session lives without a refresh, unless the tenant's policy says otherwise.",
			   &setting_idle_ttl, 1, SESSION_TTL_MAX, GUC_UNIT_S);
	define_int("sessauth.refresh_grace",
			   "How long a just-used refresh token gets the same answer again, unless the tenant's policy says otherwise.",
			   &setting_refresh_grace, 0, REFRESH_GRACE_MAX, GUC_UNIT_S);
	define_int("sessauth.max_sessions",
			   "Live sessions per user, unless the tenant's policy says otherwise; 0 means no limit.",
			   &setting_max_sessions, 0, MAX_SESSIONS_MAX, 0);
	DefineCustomEnumVariable("sessauth.on_limit",
							 "What a login beyond max_sessions does, unless the tenant's policy says otherwise.",
							 NULL, &setting_on_limit, ON_LIMIT_REJECT, on_limit_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	compat_reserve_prefix("sessauth");
}

static void
define_int(const char *name, const char *what, int *variable, int min, int max, int flags)
{
	DefineCustomIntVariable(name, what, NULL, variable, *variable, min, max, PGC_SIGHUP, flags, NULL, NULL, NULL);
}

static void
define_string(const char *name, const char *what, char **variable, const char *value, int flags)
{
	DefineCustomStringVariable(name, what, NULL, variable, value, PGC_SIGHUP, flags, NULL, NULL, NULL);
}

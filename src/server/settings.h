/*
 * settings.h
 *		The settings sessauth.*, defined once at load.
 */
#ifndef SESSAUTH_SERVER_SETTINGS_H
#define SESSAUTH_SERVER_SETTINGS_H

typedef enum OnLimit
{
	ON_LIMIT_REJECT,
	ON_LIMIT_EVICT_OLDEST
} OnLimit;

extern char *setting_master_key_file;
extern char *setting_master_key_command;	/* empty: none */
extern char *setting_issuer;
extern char *setting_audience;
extern bool setting_standby_verify;
extern int	setting_heartbeat_interval; /* ms */
extern int	setting_max_lease;	/* ms */
extern int	setting_max_nodes;	/* fixed when the server starts */
extern int	setting_propagation_target;	/* ms */
extern bool setting_notify_detail;
extern int	setting_upkeep_interval;	/* ms */
extern int	setting_history_retention;	/* days; 0: for ever */
extern int	setting_session_retention;	/* days */
extern int	setting_reconcile_interval; /* s; 0: only on request */

/* Defaults of the tenants' policies; durations in seconds. */
extern int	setting_access_ttl;
extern int	setting_session_ttl;
extern int	setting_idle_ttl;
extern int	setting_refresh_grace;
extern int	setting_max_sessions;	/* 0: no limit */
extern int	setting_on_limit;	/* OnLimit */

/* Bounds that settings and policies share, in seconds. */
#define ACCESS_TTL_MAX		(24 * 60 * 60)
#define SESSION_TTL_MAX		(10 * 366 * 24 * 60 * 60)
#define REFRESH_GRACE_MAX	300
#define LEASE_MS_MAX		(60 * 60 * 1000)
#define MAX_SESSIONS_MAX	100000

/* Called from _PG_init. */
extern void settings_init(void);

#endif							/* SESSAUTH_SERVER_SETTINGS_H */

/*
 * settings.h
 *		The settings sessauth.*, defined once at load.
 */
#ifndef SESSAUTH_SERVER_SETTINGS_H
#define SESSAUTH_SERVER_SETTINGS_H

extern char *setting_master_key_file;
extern char *setting_issuer;
extern char *setting_audience;
extern int	setting_heartbeat_interval; /* ms */
extern int	setting_max_lease;	/* ms */
extern int	setting_access_ttl; /* s */
extern int	setting_session_ttl;	/* s */
extern int	setting_idle_ttl;	/* s */
extern int	setting_refresh_grace;	/* s */

/* Called from _PG_init. */
extern void settings_init(void);

#endif							/* SESSAUTH_SERVER_SETTINGS_H */

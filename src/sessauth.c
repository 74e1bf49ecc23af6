/*
 * sessauth.c
 *		The library's entry point.
 *
 * Everything that outlives a statement is set up here, in the postmaster:
 * settings, shared memory, the launcher, the ledger's callbacks. Without
 * shared_preload_libraries the library still loads, so that pg_upgrade and
 * "CREATE EXTENSION" can say what is wrong; its functions then refuse to work.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "ledger/ledger.h"
#include "server/log_hook.h"
#include "server/master_key.h"
#include "server/settings.h"
#include "server/shmem.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	settings_init();
	ledger_init();

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	log_hook_install();
	upgrade_hook_install();
	shmem_init();
	master_key_init();
	launcher_register();
	standby_check_register();
}

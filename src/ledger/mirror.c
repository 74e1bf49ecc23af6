/*
 * mirror.c
 *		Which Redis servers are mirrors. The worker does the rest.
 *
 * A mirror is data and travels with a dump; that this copy of the ledger may
 * write to it is a row of mirror_state, which does not. A restored or cloned ledger therefore never touches the
 * original's mirrors until somebody activates them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "core/redis_url.h"
#include "ledger/ledger.h"
#include "server/keyring.h"
#include "server/wake.h"

static void require_new_place(const char *name, const SaRedisUrl *where);
static Datum ask_worker(FunctionCallInfo fcinfo, LedgerQuery *ask);

PG_FUNCTION_INFO_V1(sessauth_add_mirror);

/*
 * add_mirror(name, url, password_file) → void. Throws 22023 for a bad name or URL (a password in it included),
 * 42710 when the name or the place is taken, F0000 without a usable master key.
 */
Datum
sessauth_add_mirror(PG_FUNCTION_ARGS)
{
	static LedgerQuery lock = {"LOCK TABLE sessauth.mirror IN SHARE ROW EXCLUSIVE MODE"};
	static LedgerQuery insert = {
		"INSERT INTO sessauth.mirror (name, url, password_file) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
		3, {TEXTOID, TEXTOID, TEXTOID}
	};
	static LedgerQuery enable = {
		"INSERT INTO sessauth.mirror_state (name) VALUES ($1) ON CONFLICT DO NOTHING", 1, {TEXTOID}
	};
	LedgerCall	call;
	Datum		values[3];
	bool		nulls[3] = {false, false, PG_ARGISNULL(2)};
	SaRedisUrl	where;
	char	   *name;
	const char *why;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "name");
	require_arg(fcinfo, 1, "url");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0' || strlen(name) > 63 ||
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != strlen(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of a mirror"),
				 errhint("Use 1 to 63 letters, digits, dots, hyphens and underscores.")));
	why = VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1)) > 1000 ? "it is too long" :
		sa_redis_url_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), &where);
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid URL of a mirror"),
				 errdetail("The URL was refused: %s.", why),
				 errhint("Use redis://[user@]host[:port][/db], rediss:// for TLS, or unix:///path[?db=n], with the options prefix, cacert, cert and key"
						 " behind a question mark; a password goes into a file, named by password_file.")));
	if (!PG_ARGISNULL(2) && text_to_cstring(PG_GETARG_TEXT_PP(2))[0] != '/')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the path of the password file must be absolute"),
				 errhint("Name a file that the server can read, like /etc/sessauth/redis.password.")));

	ledger_begin(&call, fcinfo);
	ledger_activate();
	keyring_ensure_secrets();
	ledger_run(&lock, NULL, NULL);	/* somebody may be adding the same place under another name */
	values[0] = CStringGetTextDatum(name);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	if (ledger_run(&insert, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("mirror \"%s\" already exists", name),
				 errhint("Remove it first with sessauth.remove_mirror().")));
	require_new_place(name, &where);
	ledger_run(&enable, values, NULL);
	ledger_end(&call);
	PG_RETURN_VOID();
}

/* Two mirrors would write to the same keys, and each would take the other's work for that of a stranger. */
static void
require_new_place(const char *name, const SaRedisUrl *where)
{
	static LedgerQuery others = {"SELECT name, url FROM sessauth.mirror WHERE name <> $1 ORDER BY name", 1, {TEXTOID}};
	Datum		value = CStringGetTextDatum(name);
	uint64		count = ledger_run(&others, &value, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		SaRedisUrl	other;

		if (sa_redis_url_parse(ledger_text(i, 2), &other) == NULL && sa_redis_url_same_place(where, &other))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("there is already a mirror at this place"),
					 errdetail("Mirror \"%s\" has the same server, database and prefix.", ledger_text(i, 1)),
					 errhint("Remove that one first with sessauth.remove_mirror(), or give this one another database or prefix.")));
	}
}

PG_FUNCTION_INFO_V1(sessauth_remove_mirror);

/* remove_mirror(name) → boolean: false when there is no such mirror. Its keys stay until they expire. */
Datum
sessauth_remove_mirror(PG_FUNCTION_ARGS)
{
	static LedgerQuery delete = {"DELETE FROM sessauth.mirror WHERE name = $1", 1, {TEXTOID}};
	static LedgerQuery disable = {"DELETE FROM sessauth.mirror_state WHERE name = $1", 1, {TEXTOID}};
	LedgerCall	call;
	Datum		value;
	bool		found;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "name");
	value = PG_GETARG_DATUM(0);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	found = ledger_run(&delete, &value, NULL) > 0;
	ledger_run(&disable, &value, NULL);
	ledger_end(&call);
	PG_RETURN_BOOL(found);
}

PG_FUNCTION_INFO_V1(sessauth_activate);

/*
 * activate(revoke_all boolean default false) → integer: how many mirrors were enabled. For a restored or cloned ledger that takes
 * the place of its original; with revoke_all every session of every tenant ends, for when the backup is older than a forced logout.
 */
Datum
sessauth_activate(PG_FUNCTION_ARGS)
{
	static LedgerQuery enable = {
		"INSERT INTO sessauth.mirror_state (name) SELECT name FROM sessauth.mirror ON CONFLICT DO NOTHING"
	};
	static LedgerQuery raise = {"UPDATE sessauth.tenant SET epoch = epoch + 1"};
	LedgerCall	call;
	uint64		enabled;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "revoke_all");
	ledger_begin(&call, fcinfo);
	ledger_activate();
	if (PG_GETARG_BOOL(0))
	{
		access_require_own_tenant(NULL);
		ledger_action.reason = "activate(revoke_all)";
		ledger_run(&raise, NULL, NULL);
	}
	enabled = ledger_run(&enable, NULL, NULL);
	ledger_end(&call);
	wake_worker_at_commit();
	PG_RETURN_INT32((int32) enabled);
}

PG_FUNCTION_INFO_V1(sessauth_resync);

/* resync(mirror default null) → integer: how many mirrors will be sent everything again. Throws 42704. */
Datum
sessauth_resync(PG_FUNCTION_ARGS)
{
	static LedgerQuery ask = {
		"UPDATE sessauth.mirror_state SET resync_at = sessauth.ledger_time() WHERE name = $1 OR $1 IS NULL", 1, {TEXTOID}
	};

	return ask_worker(fcinfo, &ask);
}

PG_FUNCTION_INFO_V1(sessauth_reconcile);

/* reconcile(mirror default null) → integer: how many mirrors will be compared with the ledger. Throws 42704. */
Datum
sessauth_reconcile(PG_FUNCTION_ARGS)
{
	static LedgerQuery ask = {
		"UPDATE sessauth.mirror_state SET reconcile_at = sessauth.ledger_time() WHERE name = $1 OR $1 IS NULL", 1, {TEXTOID}
	};

	return ask_worker(fcinfo, &ask);
}

static Datum
ask_worker(FunctionCallInfo fcinfo, LedgerQuery *ask)
{
	LedgerCall	call;
	Datum		value = PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0);
	bool		isnull = PG_ARGISNULL(0);
	uint64		asked;

	access_require_owner(fcinfo);
	access_require_own_tenant(NULL);
	ledger_begin(&call, fcinfo);
	ledger_activate();
	asked = ledger_run(ask, &value, &isnull);
	if (asked == 0 && !isnull)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no enabled mirror \"%s\"", text_to_cstring(DatumGetTextPP(value))),
				 errhint("See the view sessauth.mirrors.")));
	ledger_end(&call);
	wake_worker_at_commit();
	PG_RETURN_INT32((int32) asked);
}

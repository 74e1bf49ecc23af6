/*
 * extension.c
 *		Do the loaded library and the SQL in this database belong together?
 *
 * They part when somebody forgets to restart the server after installing a new package, or to say ALTER EXTENSION
 * UPDATE after the restart. Neither half knows the other's tables then, so nothing may be written or answered.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "server/extension.h"

static bool known_to_match = false;

static void forget(Datum arg, Oid relid);

bool
extension_find(Extension *extension)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("sessauth"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		Datum		version = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(relation), &isnull);

		extension->oid = form->oid;
		extension->owner = form->extowner;
		strlcpy(extension->version, isnull ? "" : TextDatumGetCString(version), sizeof(extension->version));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

bool
extension_matches(const Extension *extension)
{
	return strcmp(extension->version, SESSAUTH_VERSION) == 0;
}

const char *
extension_hint(const Extension *extension)
{
	int			sql[2] = {0, 0};
	int			library[2] = {0, 0};

	(void) sscanf(extension->version, "%d.%d", &sql[0], &sql[1]);
	(void) sscanf(SESSAUTH_VERSION, "%d.%d", &library[0], &library[1]);
	if (sql[0] > library[0] || (sql[0] == library[0] && sql[1] > library[1]))
		return "Restart the server, so that it loads the new library.";
	return "Run ALTER EXTENSION sessauth UPDATE in this database.";
}

void
extension_require_match(void)
{
	static bool registered = false;
	Extension	extension;
	bool		found;

	if (known_to_match)
		return;
	if (!registered)
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
	registered = true;

	known_to_match = true;		/* before looking, so that news that arrives meanwhile is not lost */
	found = extension_find(&extension);
	if (found && extension_matches(&extension))
		return;
	known_to_match = false;
	if (!found)
		elog(ERROR, "a function of sessauth without its extension");
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the library and the SQL of sessauth are of different versions"),
			 errdetail("The loaded library is version %s, the extension in this database is version %s.",
					   SESSAUTH_VERSION, extension.version),
			 errhint("%s", extension_hint(&extension))));
}

/* pg_extension has no cache of its own whose invalidation one could wait for; its relation does. */
void
extension_changed(void)
{
	CacheInvalidateRelcacheByRelid(ExtensionRelationId);
}

static void
forget(Datum arg, Oid relid)
{
	if (relid == ExtensionRelationId || !OidIsValid(relid))
		known_to_match = false;
}

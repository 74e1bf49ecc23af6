/*
 * names.c
 *		The ids of what is in schema sessauth, by name.
 *
 * Every call asks for several, and again and again for the same; the answers
 * are kept until something in the catalogs changes that could change them.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ledger/ledger.h"

#define NAMES_MAX 16

static struct
{
	const char *name;
	Oid			relid;
}			known[NAMES_MAX];
static int	known_count = 0;
static uint64 changes = 0;

static void forget(Datum arg, int cacheid, uint32 hash);

Oid
ledger_relid(const char *name)
{
	static bool registered = false;
	uint64		before;
	Oid			relid;

	for (int i = 0; i < known_count; i++)
		if (known[i].name == name)
			return known[i].relid;
	if (!registered)
	{
		CacheRegisterSyscacheCallback(RELNAMENSP, forget, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACENAME, forget, (Datum) 0);
		registered = true;
	}
	before = changes;
	relid = get_relname_relid(name, get_namespace_oid("sessauth", false));
	if (OidIsValid(relid) && changes == before && known_count < NAMES_MAX)
	{
		known[known_count].name = name;
		known[known_count++].relid = relid;
	}
	return relid;
}

static void
forget(Datum arg, int cacheid, uint32 hash)
{
	known_count = 0;
	changes++;
}

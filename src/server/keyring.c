/*
 * keyring.c
 *		The secrets that the ledger has sealed under the master key.
 *
 * Beside each one stands the id of the key that sealed it, so that a server
 * with another key, a standby above all, can be told apart before it opens anything.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "core/seal.h"
#include "server/keyring.h"

static void secret_label(const char *name, char *label, size_t size);

bool
keyring_open_secret(const char *name, unsigned char out[SA_KEY_LEN])
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name)};
	char		label[64];
	bytea	   *sealed;
	char	   *sealed_by;
	char		id[MASTER_KEY_ID_SIZE];
	bool		isnull;

	/* As the signing keys are read: a login that sees the first of them must see the secrets that came with it. */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT sealed, sealed_by FROM sessauth.secret WHERE name = $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read sessauth.secret");
	PopActiveSnapshot();
	if (SPI_processed == 0)
		return false;
	sealed = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	sealed_by = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	secret_label(name, label, sizeof(label));
	master_key_id(master_key(), id);
	if (VARSIZE_ANY_EXHDR(sealed) != SA_KEY_LEN + SA_SEAL_OVERHEAD ||
		!sa_unseal(master_key(), label, (unsigned char *) VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), out))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the master key does not open the secret \"%s\"", name),
				 strcmp(id, sealed_by) == 0
				 ? errdetail("Its bytes were changed.")
				 : errdetail("It was sealed under the key with id %s; this server has the one with id %s.", sealed_by, id),
				 errhint(KEYRING_HINT)));
	return true;
}

bool
keyring_matches(MasterKeyProblem *problem)
{
	const unsigned char *key = master_key_try(problem);
	char		id[MASTER_KEY_ID_SIZE];
	char	   *sealed_by;

	if (key == NULL)
		return false;
	if (SPI_execute("SELECT sealed_by FROM sessauth.secret ORDER BY name LIMIT 1", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read sessauth.secret");
	if (SPI_processed == 0)
		return true;
	sealed_by = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	master_key_id(key, id);
	if (sealed_by[0] == '\0' || strcmp(id, sealed_by) == 0)
		return true;			/* or nobody has told yet: keyring_name_keys() */
	strlcpy(problem->message, "the master key is not the one that sealed the secrets of this ledger", sizeof(problem->message));
	snprintf(problem->detail, sizeof(problem->detail), "They were sealed under the key with id %s; this server has the one with id %s.",
			 sealed_by, id);
	problem->hint = KEYRING_HINT;
	return false;
}

void
keyring_name_keys(void)
{
	static const char *const names[] = {"link", "refresh"};
	MasterKeyProblem problem;
	const unsigned char *key = master_key_try(&problem);

	for (int i = 0; key != NULL && i < lengthof(names); i++)
	{
		Oid			types[] = {TEXTOID, TEXTOID};
		Datum		values[2] = {CStringGetTextDatum(names[i])};
		char		id[MASTER_KEY_ID_SIZE];
		unsigned char secret[SA_KEY_LEN];
		char		label[64];
		bytea	   *sealed;
		bool		isnull;
		bool		opened;

		if (SPI_execute_with_args("SELECT sealed FROM sessauth.secret WHERE name = $1 AND sealed_by = ''",
								  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read sessauth.secret");
		if (SPI_processed == 0)
			continue;
		sealed = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		secret_label(names[i], label, sizeof(label));
		opened = VARSIZE_ANY_EXHDR(sealed) == SA_KEY_LEN + SA_SEAL_OVERHEAD &&
			sa_unseal(key, label, (unsigned char *) VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), secret);
		sa_wipe(secret, sizeof(secret));
		if (!opened)
			continue;
		master_key_id(key, id);
		values[1] = CStringGetTextDatum(id);
		if (SPI_execute_with_args("UPDATE sessauth.secret SET sealed_by = $2 WHERE name = $1", 2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not write sessauth.secret");
	}
}

void
keyring_ensure_secrets(void)
{
	static const char *const names[] = {"link", "refresh"};

	for (int i = 0; i < lengthof(names); i++)
	{
		Oid			types[] = {TEXTOID, BYTEAOID, TEXTOID};
		Datum		values[3];
		char		id[MASTER_KEY_ID_SIZE];
		unsigned char secret[SA_KEY_LEN];
		bytea	   *sealed = palloc(VARHDRSZ + SA_KEY_LEN + SA_SEAL_OVERHEAD);
		char		label[64];
		bool		ok;

		/* A wrong master key must show itself here, before it seals anything beside what another one sealed. */
		if (keyring_open_secret(names[i], secret))
		{
			sa_wipe(secret, sizeof(secret));
			continue;
		}
		secret_label(names[i], label, sizeof(label));
		SET_VARSIZE(sealed, VARHDRSZ + SA_KEY_LEN + SA_SEAL_OVERHEAD);
		ok = sa_random(secret, sizeof(secret)) &&
			sa_seal(master_key(), label, secret, sizeof(secret), (unsigned char *) VARDATA(sealed));
		sa_wipe(secret, sizeof(secret));
		if (!ok)
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not make a random secret"), errdetail("OpenSSL refused.")));
		values[0] = CStringGetTextDatum(names[i]);
		values[1] = PointerGetDatum(sealed);
		master_key_id(master_key(), id);
		values[2] = CStringGetTextDatum(id);
		if (SPI_execute_with_args("INSERT INTO sessauth.secret (name, sealed, sealed_by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
								  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write sessauth.secret");
	}
}

static void
secret_label(const char *name, char *label, size_t size)
{
	snprintf(label, size, "sessauth/1/secret/%s", name);
}

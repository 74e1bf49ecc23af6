/*
 * keyring.c
 *		The master key, and the secrets sealed under it.
 *
 * The master key is read from its file on first use and kept in this process;
 * a process that changes to another file (after a reload) reads again. What
 * is read is never copied into palloc'ed memory, which nobody wipes.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/builtins.h"

#include "core/seal.h"
#include "server/keyring.h"
#include "server/settings.h"

#define MASTER_HINT \
	"Make one with: openssl rand -hex 32 > FILE; chmod 600 FILE. Set sessauth.master_key_file to it and reload; every standby needs the same file."

static struct
{
	bool		loaded;
	char		path[MAXPGPATH];
	unsigned char key[SA_KEY_LEN];
} master;

static void read_master(const char *path);
static void wipe_master(int code, Datum arg);
static void secret_label(const char *name, char *label, size_t size);

const unsigned char *
keyring_master(void)
{
	const char *path = setting_master_key_file;

	if (path == NULL || path[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("sessauth has no master key"),
				 errdetail("The setting sessauth.master_key_file is empty."),
				 errhint(MASTER_HINT)));
	if (!master.loaded || strcmp(master.path, path) != 0)
		read_master(path);
	return master.key;
}

bool
keyring_open_secret(const char *name, unsigned char out[SA_KEY_LEN])
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name)};
	char		label[64];
	bytea	   *sealed;
	bool		isnull;

	if (SPI_execute_with_args("SELECT sealed FROM sessauth.secret WHERE name = $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read sessauth.secret");
	if (SPI_processed == 0)
		return false;
	sealed = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	secret_label(name, label, sizeof(label));
	if (VARSIZE_ANY_EXHDR(sealed) != SA_KEY_LEN + SA_SEAL_OVERHEAD ||
		!sa_unseal(keyring_master(), label, (unsigned char *) VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), out))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the master key does not open the secret \"%s\"", name),
				 errdetail("It was sealed under another master key, or its bytes were changed."),
				 errhint("Point sessauth.master_key_file at the key this ledger was made with.")));
	return true;
}

void
keyring_ensure_secrets(void)
{
	static const char *const names[] = {"link", "refresh"};

	for (int i = 0; i < lengthof(names); i++)
	{
		Oid			types[] = {TEXTOID, BYTEAOID};
		Datum		values[2];
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
			sa_seal(keyring_master(), label, secret, sizeof(secret), (unsigned char *) VARDATA(sealed));
		sa_wipe(secret, sizeof(secret));
		if (!ok)
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not make a random secret")));
		values[0] = CStringGetTextDatum(names[i]);
		values[1] = PointerGetDatum(sealed);
		if (SPI_execute_with_args("INSERT INTO sessauth.secret (name, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING",
								  2, types, values, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write sessauth.secret");
	}
}

/*
 * The mode is checked on the open descriptor, so that what was checked is what
 * is read. Like the server's own TLS key, a file owned by root may be readable by a group.
 */
static void
read_master(const char *path)
{
	static bool wiping = false;
	char		text[256];
	struct stat st;
	ssize_t		len;
	int			fd;
	bool		ok;

	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open the master key file \"%s\": %m", path),
				 errhint(MASTER_HINT)));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
		(st.st_uid == geteuid() && (st.st_mode & (S_IRWXG | S_IRWXO))) ||
		(st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))) ||
		(st.st_uid != 0 && st.st_uid != geteuid()))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the master key file \"%s\" is not private", path),
				 errdetail("It must be a regular file owned by the server's user with mode 0600 or less, or by root with 0640 or less."),
				 errhint("chmod 600 on it, and make a new key if others may have read it.")));

	len = read(fd, text, sizeof(text));
	CloseTransientFile(fd);
	ok = len > 0 && len < (ssize_t) sizeof(text) && sa_key_text_parse(text, len, master.key);
	sa_wipe(text, sizeof(text));
	if (!ok)
	{
		master.loaded = false;
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the master key file \"%s\" does not hold a key", path),
				 errdetail("It must hold 32 bytes as 64 hex digits or as base64."),
				 errhint(MASTER_HINT)));
	}
	strlcpy(master.path, path, sizeof(master.path));
	master.loaded = true;
	if (!wiping)
	{
		on_proc_exit(wipe_master, (Datum) 0);
		wiping = true;
	}
}

static void
wipe_master(int code, Datum arg)
{
	sa_wipe(&master, sizeof(master));
}

static void
secret_label(const char *name, char *label, size_t size)
{
	snprintf(label, size, "sessauth/1/secret/%s", name);
}

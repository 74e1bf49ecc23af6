/*
 * master_key.c
 *		The master key, under which every secret of the ledger is sealed.
 *
 * It is never copied into palloc'ed memory, which nobody wipes, nor into the
 * buffer of a FILE. Reading reports a problem instead of throwing, because the postmaster must start
 * without a key as well: revocations need none.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "core/encoding.h"
#include "core/seal.h"
#include "server/compat.h"
#include "server/master_key.h"
#include "server/settings.h"

#define TEXT_MAX	256			/* more than any form of a key */

#define HINT_MAKE \
	"Make one with: openssl rand -hex 32 > FILE; chmod 600 FILE. Set sessauth.master_key_file to it and reload; every standby needs the same file."
#define HINT_PRIVATE	"chmod 600 on it, and make a new key if others may have read it."
#define HINT_ONE		"Remove one of the two settings and restart the server."
#define HINT_COMMAND \
	"It must print the key as 64 hex digits or as base64, and exit with 0; what it says on its error output is in the server's log. It is run once, when the server starts."

static struct
{
	bool		loaded;
	char		path[MAXPGPATH];	/* empty: it came from the command */
	unsigned char key[SA_KEY_LEN];
} master;

static MasterKeyProblem command_problem;
static bool started = false;	/* in the postmaster and all that it forks */
static shmem_startup_hook_type previous_startup = NULL;

static void read_at_start(void);
static bool settings_are_right(MasterKeyProblem *problem);
static bool load_from_file(const char *path, MasterKeyProblem *problem);
static bool load_from_command(MasterKeyProblem *problem);
static bool read_file(const char *path, unsigned char *key, MasterKeyProblem *problem);
static bool parse(const char *text, ssize_t len, unsigned char *key, MasterKeyProblem *problem);
static bool is_private(const struct stat *st);
static bool fail(MasterKeyProblem *problem, const char *hint, const char *detail, const char *format,...) pg_attribute_printf(4, 5);
static void wipe_at_exit(void);
static void wipe(int code, Datum arg);

void
master_key_init(void)
{
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = read_at_start;
}

/* Here the server does start: the library is loaded also to answer "postgres -C". After a crash, the postmaster still has the key. */
static void
read_at_start(void)
{
	MasterKeyProblem problem;

	if (previous_startup)
		previous_startup();
	if (started)
		return;
	started = true;
	wipe_at_exit();
	if (settings_are_right(&problem))
	{
		if (setting_master_key_command[0] == '\0' ? load_from_file(setting_master_key_file, &problem) : load_from_command(&problem))
			return;
		command_problem = problem;
	}
	ereport(LOG,
			(errmsg("sessauth: %s", problem.message),
			 problem.detail[0] ? errdetail("%s", problem.detail) : 0,
			 errhint("%s", problem.hint)));
}

/* In the postmaster, so that processes to come need not read it; those that run see the new path by themselves. */
void
master_key_file_assigned(const char *path, void *extra)
{
	MasterKeyProblem problem;

	if (!started || IsUnderPostmaster || path == NULL || path[0] == '\0' || setting_master_key_command[0] != '\0')
		return;
	if (!load_from_file(path, &problem))
		ereport(LOG, (errmsg("sessauth: %s", problem.message), errhint("%s", problem.hint)));
}

const unsigned char *
master_key(void)
{
	MasterKeyProblem problem;
	const unsigned char *key = master_key_try(&problem);

	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("%s", problem.message),
				 problem.detail[0] ? errdetail("%s", problem.detail) : 0,
				 errhint("%s", problem.hint)));
	return key;
}

const unsigned char *
master_key_try(MasterKeyProblem *problem)
{
	if (!settings_are_right(problem))
		return NULL;
	wipe_at_exit();
	if (master.loaded && strcmp(master.path, setting_master_key_file) == 0)
		return master.key;
	if (setting_master_key_command[0] != '\0')
	{
		*problem = command_problem;
		return NULL;
	}
	return load_from_file(setting_master_key_file, problem) ? master.key : NULL;
}

void
master_key_id(const unsigned char *key, char id[MASTER_KEY_ID_SIZE])
{
	SaField		label = SA_FIELD_STR("sessauth/1/master-id");
	unsigned char mac[SA_DIGEST_LEN];

	if (!sa_mac(key, &label, 1, mac))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute the id of the master key"), errdetail("OpenSSL refused.")));
	sa_hex_encode(mac, (MASTER_KEY_ID_SIZE - 1) / 2, id);
}

bool
master_key_file_is_same(MasterKeyProblem *problem)
{
	unsigned char key[SA_KEY_LEN];
	bool		same;

	if (!master.loaded || master.path[0] == '\0')
		return true;
	if (!read_file(master.path, key, problem))
		return false;
	same = sa_equal(key, master.key, SA_KEY_LEN);
	sa_wipe(key, sizeof(key));
	return same || fail(problem, "Put the key back that the server has read, or restart the server if the new one is right.", "",
						"the master key file \"%s\" holds another key than the server has read from it", master.path);
}

static bool
settings_are_right(MasterKeyProblem *problem)
{
	bool		file = setting_master_key_file != NULL && setting_master_key_file[0] != '\0';
	bool		command = setting_master_key_command[0] != '\0';

	if (file && command)
		return fail(problem, HINT_ONE, "A key that comes from two places could be two keys.",
					"sessauth.master_key_file and sessauth.master_key_command are both set");
	if (!file && !command)
		return fail(problem, HINT_MAKE, "The settings sessauth.master_key_file and sessauth.master_key_command are empty.",
					"sessauth has no master key");
	return true;
}

static bool
load_from_file(const char *path, MasterKeyProblem *problem)
{
	master.loaded = read_file(path, master.key, problem);
	strlcpy(master.path, path, sizeof(master.path));
	return master.loaded;
}

/* As the server runs its own ssl_passphrase_command. */
static bool
load_from_command(MasterKeyProblem *problem)
{
	char		text[TEXT_MAX];
	size_t		len;
	FILE	   *pipe;
	int			status;

	fflush(NULL);
	pipe = popen(setting_master_key_command, "r");
	if (pipe == NULL)
		return fail(problem, HINT_COMMAND, "", "the master key command could not be run: %m");
	setvbuf(pipe, NULL, _IONBF, 0);
	len = fread(text, 1, sizeof(text), pipe);
	status = pclose(pipe);
	if (status != 0)
	{
		char	   *how = status == -1 ? NULL : wait_result_to_str(status);

		(void) fail(problem, HINT_COMMAND, how ? how : "", "the master key command failed");
	}
	else if (parse(text, len, master.key, problem))
		master.loaded = true;
	else
		(void) fail(problem, HINT_COMMAND, problem->detail, "the master key command did not print a key");
	sa_wipe(text, sizeof(text));
	master.path[0] = '\0';
	return master.loaded;
}

/* The mode is checked on the open descriptor, so that what was checked is what is read; a pipe would make opening it wait. */
static bool
read_file(const char *path, unsigned char *key, MasterKeyProblem *problem)
{
	char		text[TEXT_MAX];
	struct stat st;
	ssize_t		len;
	int			fd;
	bool		ok = false;

	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | PG_BINARY, 0);
	if (fd < 0)
		return fail(problem, HINT_MAKE, "", "could not open the master key file \"%s\": %m", path);
	if (fstat(fd, &st) != 0 || !is_private(&st))
		(void) fail(problem, HINT_PRIVATE,
					"It must be a regular file owned by the server's user with mode 0600 or less, or by root with 0640 or less.",
					"the master key file \"%s\" is not private", path);
	else if ((len = read(fd, text, sizeof(text))) < 0)
		(void) fail(problem, HINT_MAKE, "", "could not read the master key file \"%s\": %m", path);
	else if (!(ok = parse(text, len, key, problem)))
		(void) fail(problem, HINT_MAKE, problem->detail, "the master key file \"%s\" does not hold a key", path);
	close(fd);
	sa_wipe(text, sizeof(text));
	return ok;
}

/* On failure only the problem's detail is set. */
static bool
parse(const char *text, ssize_t len, unsigned char *key, MasterKeyProblem *problem)
{
	static const char expected[] = "expected are 32 bytes as 64 hex digits or as base64";

	if (len > 0 && len < TEXT_MAX && sa_key_text_parse(text, len, key))
		return true;
	if (len == SA_KEY_LEN)
		snprintf(problem->detail, sizeof(problem->detail), "It is 32 bytes long, as a key in binary form is; %s.", expected);
	else
		snprintf(problem->detail, sizeof(problem->detail), "It is %s%d bytes long; %s.",
				 len == TEXT_MAX ? "at least " : "", (int) len, expected);
	return false;
}

/* As with the server's own TLS key, a group may read a file that belongs to root. */
static bool
is_private(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return false;
	if (st->st_uid == geteuid())
		return (st->st_mode & (S_IRWXG | S_IRWXO)) == 0;
	return st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) == 0;
}

/* Always false. The detail may be the problem's own. */
static bool
fail(MasterKeyProblem *problem, const char *hint, const char *detail, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(problem->message, sizeof(problem->message), format, args);
	va_end(args);
	if (detail != problem->detail)
		strlcpy(problem->detail, detail, sizeof(problem->detail));
	problem->hint = hint;
	return false;
}

/* A process inherits the key, but not what its parent wanted to do when it ends. */
static void
wipe_at_exit(void)
{
	static pid_t registered = 0;

	if (registered == MyProcPid)
		return;
	on_proc_exit(wipe, (Datum) 0);
	registered = MyProcPid;
}

static void
wipe(int code, Datum arg)
{
	sa_wipe(&master, sizeof(master));
}

/*
 * publisher.c
 *		The worker's pen, without the worker: entries, beats, answers and tokens for
 *		tests that play the worker themselves (test/lib/Sessauth/Publisher.pm).
 *
 *	publisher LINKKEY		(64 hex digits)
 *
 * Reads one command a line, its words separated by tabs, and answers each with
 * one line: values separated by tabs, or "error". Talks to nobody else. Built on src/core, so that what it
 * writes is what the protocol says.
 *
 *	entry STREAMKEY g n kind tid uid sid kid epoch eid at until		the arguments of XADD after the id
 *	beat STREAMKEY g n b low at										the same
 *	nonce NODESKEY node line										nonce max_staleness g n
 *	answer ANSWERSKEY node nonce g n low b at						the value of the answer
 *	token KEY tid uid sid epoch tepoch iat exp iss aud				an access token
 *	kid KEY, jwk KEY												of the signing key of that name, made when it is first named
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/key.h"
#include "core/seal.h"
#include "core/wire.h"

#define WORDS_MAX	16
#define KEYS_MAX	8
#define TAB			"\t"

static unsigned char link_key[SA_KEY_LEN];

static bool run(char **word, int count);
static bool write_entry(char **word);
static bool write_beat(char **word);
static bool write_args(const char *stream_key, const SaEntry *entry);
static bool read_nonce(char **word);
static bool write_answer(char **word);
static bool write_token(char **word);
static SaKey *key_of(const char *name);
static void copy(char *to, size_t size, const char *text);

int
main(int argc, char **argv)
{
	static char line[64 * 1024];

	if (argc != 2 || !sa_key_text_parse(argv[1], strlen(argv[1]), link_key))
	{
		fprintf(stderr, "usage: publisher LINKKEY\n");
		return 2;
	}
	while (fgets(line, sizeof(line), stdin))
	{
		char	   *word[WORDS_MAX] = {0};
		char	   *rest = line;
		int			count = 0;

		line[strcspn(line, "\n")] = '\0';
		while (count < WORDS_MAX && rest)
			word[count++] = strsep(&rest, TAB);
		if (!run(word, count))
			printf("error");
		printf("\n");
		fflush(stdout);
	}
	return 0;
}

static bool
run(char **word, int count)
{
	char		kid[SA_KID_LEN + 1];
	char	   *jwk;

	if (strcmp(word[0], "entry") == 0 && count == 13)
		return write_entry(word);
	if (strcmp(word[0], "beat") == 0 && count == 7)
		return write_beat(word);
	if (strcmp(word[0], "nonce") == 0 && count == 4)
		return read_nonce(word);
	if (strcmp(word[0], "answer") == 0 && count == 9)
		return write_answer(word);
	if (strcmp(word[0], "token") == 0 && count == 11)
		return write_token(word);
	if (count != 2 || (strcmp(word[0], "kid") != 0 && strcmp(word[0], "jwk") != 0) || !sa_key_thumbprint(key_of(word[1]), kid))
		return false;
	jwk = sa_key_public_jwk(key_of(word[1]), kid);
	printf("%s", word[0][0] == 'k' ? kid : jwk);
	free(jwk);
	return true;
}

static bool
write_entry(char **word)
{
	SaEntry		entry = {.n = atoll(word[3]), .epoch = atoll(word[9]), .eid = atoll(word[10]), .at = atoll(word[11]), .until = atoll(word[12])};

	copy(entry.g, sizeof(entry.g), word[2]);
	copy(entry.tid, sizeof(entry.tid), word[5]);
	copy(entry.uid, sizeof(entry.uid), word[6]);
	copy(entry.sid, sizeof(entry.sid), word[7]);
	copy(entry.kid, sizeof(entry.kid), word[8]);
	return sa_kind_parse(word[4], strlen(word[4]), &entry.kind) && write_args(word[1], &entry);
}

static bool
write_beat(char **word)
{
	SaEntry		entry = {.kind = SA_KIND_BEAT, .n = atoll(word[3]), .b = atoll(word[4]), .low = atoll(word[5]), .at = atoll(word[6])};

	copy(entry.g, sizeof(entry.g), word[2]);
	return write_args(word[1], &entry);
}

static bool
write_args(const char *stream_key, const SaEntry *entry)
{
	SaEntryStore store;
	SaField		args[SA_ENTRY_ARGS];
	size_t		count = sa_entry_args(link_key, stream_key, entry, &store, args);

	for (size_t i = 0; i < count; i++)
		printf("%s%.*s", i > 0 ? TAB : "", (int) args[i].len, (const char *) args[i].data);
	return count > 0;
}

static bool
read_nonce(char **word)
{
	SaNonce		nonce;

	if (!sa_nonce_read(link_key, word[1], word[2], strlen(word[2]), word[3], strlen(word[3]), &nonce))
		return false;
	printf("%s" TAB "%lld" TAB "%s" TAB "%lld", nonce.nonce, (long long) nonce.max_staleness, nonce.g, (long long) nonce.n);
	return true;
}

static bool
write_answer(char **word)
{
	SaAnswer	answer = {.n = atoll(word[5]), .low = atoll(word[6]), .b = atoll(word[7]), .at = atoll(word[8])};
	char		line[SA_LINE_SIZE];

	copy(answer.nonce, sizeof(answer.nonce), word[3]);
	copy(answer.g, sizeof(answer.g), word[4]);
	if (sa_answer_write(link_key, word[1], word[2], &answer, line) == 0)
		return false;
	printf("%s", line);
	return true;
}

static bool
write_token(char **word)
{
	SaTokenDraft draft = {
		.issuer = word[9], .audience = word[10], .tid = word[2], .uid = word[3], .sid = word[4],
		.epoch = atoll(word[5]), .tepoch = atoll(word[6]), .iat = atoll(word[7]), .exp = atoll(word[8])
	};
	SaKey	   *key = key_of(word[1]);
	char		kid[SA_KID_LEN + 1];
	char	   *token = sa_key_thumbprint(key, kid) ? sa_token_mint(key, kid, &draft) : NULL;

	if (token)
		printf("%s", token);
	free(token);
	return token != NULL;
}

static SaKey *
key_of(const char *name)
{
	static struct
	{
		char		name[32];
		SaKey	   *key;
	}			keys[KEYS_MAX];

	for (int i = 0; i < KEYS_MAX; i++)
	{
		if (keys[i].key == NULL)
		{
			copy(keys[i].name, sizeof(keys[i].name), name);
			keys[i].key = sa_key_generate(SA_ALG_ES256);
		}
		if (strcmp(keys[i].name, name) == 0)
			return keys[i].key;
	}
	fprintf(stderr, "publisher: too many keys\n");
	exit(1);
}

static void
copy(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text);
}

/*
 * node.c
 *		What test/bench/node.pl measures with: rates of decisions and of their floors in
 *		one process, and a filled stream.
 *
 *	node rates REDIS JWKS LINKKEY TOKENS SECONDS ROUNDS THREADS	medians, "name rate", of alternating rounds; name-cpu: by the threads' CPU time
 *	node fill REDIS LINKKEY-HEX STREAMKEY GENERATION COUNT AT UNTIL	revocations 1..COUNT, straight into the stream
 *	node join REDIS JWKS LINKKEY REVOCATIONS		waits until it knows that many and is ready: "ms bytes-each cpu-ms"
 *	node join-postgres CONNINFO REVOCATIONS			likewise, over PostgreSQL alone
 *	node drain REDIS STREAMKEY						reads the stream as a node does, and looks at nothing but ids: "ms"
 */
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/seal.h"
#include "core/wire.h"
#include "node/sessauth.h"

#define THREADS_MAX	64
#define ROUNDS_MAX	32
#define TOKENS_MAX	1024

typedef long (*Work) (int thread);	/* one batch; how many that were */

static SessauthNode *cached;
static SessauthNode *uncached;
static char tokens[TOKENS_MAX][2048];
static int	token_count;
static redisContext *redis[THREADS_MAX];
static EVP_PKEY *key;
static unsigned char signature[256];
static size_t signature_len;
static atomic_bool stop;
static Work work;
static atomic_long done;
static atomic_long cpu_ns;			/* that the threads have used */

typedef struct Rate
{
	double		wall;			/* a second */
	double		cpu;			/* a second, had the threads never waited for a processor */
} Rate;

static double
now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void
die(const char *what)
{
	fprintf(stderr, "bench: %s\n", what);
	exit(1);
}

/* ---- rates ---- */

static long
decide(SessauthNode *node, int thread, int count)
{
	static _Atomic unsigned int next[THREADS_MAX];
	unsigned int i = next[thread];

	for (int n = 0; n < count; n++, i++)
	{
		const char *token = tokens[(i + (unsigned int) thread * 97) % (unsigned int) token_count];
		SessauthDecision decision;

		if (sessauth_decide(node, token, strlen(token), sessauth_now(), &decision) != SESSAUTH_ACTIVE)
			die("a token was not active");
	}
	next[thread] = i;
	return count;
}

static long
decide_seen(int thread)
{
	return decide(cached, thread, 100);
}

static long
decide_new(int thread)
{
	return decide(uncached, thread, 10);
}

static long
redis_get(int thread)
{
	redisReply *reply = redisCommand(redis[thread], "GET bench:session");

	if (reply == NULL || reply->type != REDIS_REPLY_STRING)
		die("GET failed");
	freeReplyObject(reply);
	return 1;
}

static long
openssl_verify(int thread)
{
	(void) thread;
	for (int n = 0; n < 10; n++)
	{
		EVP_MD_CTX *context = EVP_MD_CTX_new();	/* the key is prepared; a context for each is what the manual shows */

		if (EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) != 1 ||
			EVP_DigestVerify(context, signature, signature_len, (unsigned char *) tokens[0], strlen(tokens[0]) - 87) != 1)
			die("OpenSSL does not verify");
		EVP_MD_CTX_free(context);
	}
	return 10;
}

static void *
run(void *arg)
{
	long		mine = 0;
	struct timespec ts;

	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		mine += work((int) (size_t) arg);
	atomic_fetch_add(&done, mine);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	atomic_fetch_add(&cpu_ns, ts.tv_sec * 1000000000 + ts.tv_nsec);
	return NULL;
}

static Rate
rate(Work of, int threads, double seconds)
{
	pthread_t	all[THREADS_MAX];
	struct timespec ts = {(time_t) seconds, (long) ((seconds - (double) (time_t) seconds) * 1e9)};
	double		begun = now_s();

	work = of;
	atomic_store(&stop, false);
	atomic_store(&done, 0);
	atomic_store(&cpu_ns, 0);
	for (int i = 0; i < threads; i++)
		pthread_create(&all[i], NULL, run, (void *) (size_t) i);
	nanosleep(&ts, NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < threads; i++)
		pthread_join(all[i], NULL);
	return (Rate) {(double) atomic_load(&done) / (now_s() - begun), (double) atomic_load(&done) * 1e9 * threads / (double) atomic_load(&cpu_ns)};
}

static int
by_wall(const void *a, const void *b)
{
	const Rate *x = a;
	const Rate *y = b;

	return x->wall < y->wall ? -1 : x->wall > y->wall;
}

static int
by_cpu(const void *a, const void *b)
{
	const Rate *x = a;
	const Rate *y = b;

	return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

/* A node that follows Redis: its URL, the keys, the link key. */
static SessauthOptions
options_of(char **files, size_t max_cached_tokens)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;

	options.redis_url = files[0];
	options.jwks_file = files[1];
	options.link_key_file = files[2];
	options.max_staleness_ms = 3600000;
	options.max_cached_tokens = max_cached_tokens;
	return options;
}

static SessauthNode *
open_with(const SessauthOptions *options)
{
	SessauthNode *node = sessauth_open(options);

	if (sessauth_error(node))
		die(sessauth_error(node));
	return node;
}

static void
rates(char **argv)
{
	const struct
	{
		const char *name;
		Work		of;
		bool		alone;
	}			all[] = {
		{"seen", decide_seen, false}, {"get", redis_get, false}, {"new", decide_new, false}, {"openssl", openssl_verify, false},
		{"seen-1", decide_seen, true}, {"new-1", decide_new, true}, {"get-1", redis_get, true}, {"openssl-1", openssl_verify, true}
	};
	enum
	{
		COUNT = sizeof(all) / sizeof(all[0])
	};
	static Rate results[COUNT][ROUNDS_MAX];
	double		seconds = atof(argv[4]);
	int			rounds = atoi(argv[5]);
	int			threads = atoi(argv[6]);
	FILE	   *file = fopen(argv[3], "r");
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	int			port = atoi(strstr(argv[0], "127.0.0.1:") + 10);
	SessauthOptions with_cache;
	SessauthOptions without;

	while (file && token_count < TOKENS_MAX && fgets(tokens[token_count], sizeof(tokens[0]), file))
	{
		tokens[token_count][strcspn(tokens[token_count], "\n")] = '\0';
		token_count++;
	}
	if (token_count == 0 || rounds > ROUNDS_MAX || threads > THREADS_MAX)
		die("wrong arguments");
	fclose(file);
	with_cache = options_of(argv, 65536);
	without = options_of(argv, 0);
	cached = open_with(&with_cache);
	uncached = open_with(&without);
	while (!sessauth_ready(cached) || !sessauth_ready(uncached))
		usleep(10000);
	for (int i = 0; i < threads; i++)
	{
		redis[i] = redisConnect("127.0.0.1", port);
		freeReplyObject(redisCommand(redis[i], "SET bench:session active"));
	}
	key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	signature_len = sizeof(signature);
	if (key == NULL || EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) != 1 ||
		EVP_DigestSign(context, signature, &signature_len, (unsigned char *) tokens[0], strlen(tokens[0]) - 87) != 1)
		die("OpenSSL does not sign");
	EVP_MD_CTX_free(context);
	(void) rate(decide_seen, threads, 0.2);

	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < COUNT; i++)
		{
			int			of = round % 2 ? COUNT - 1 - i : i;

			results[of][round] = rate(all[of].of, all[of].alone ? 1 : threads, seconds);
		}
	for (int i = 0; i < COUNT; i++)
	{
		qsort(results[i], (size_t) rounds, sizeof(Rate), by_wall);
		printf("%s %.0f\n", all[i].name, results[i][rounds / 2].wall);
		qsort(results[i], (size_t) rounds, sizeof(Rate), by_cpu);
		printf("%s-cpu %.0f\n", all[i].name, results[i][rounds / 2].cpu);
	}
	sessauth_close(cached);
	sessauth_close(uncached);
}

/* ---- a million revocations ---- */

static void put_page(redisContext *to, const unsigned char *link_key, const char *prefix, const SaEntry *last, const char *id, const char *body, size_t len);

static void
fill(char **argv)
{
	unsigned char link_key[SA_KEY_LEN];
	redisContext *to = redisConnect("127.0.0.1", atoi(strstr(argv[0], "127.0.0.1:") + 10));
	long		count = atol(argv[4]);
	static char page[SA_PAGE_ENTRIES * SA_PAGE_ENTRY_MAX];
	size_t		page_len = 0;
	char		prefix[SA_PREFIX_MAX + 1];
	redisReply *reply;

	if (to == NULL || to->err || !sa_key_text_parse(argv[1], strlen(argv[1]), link_key))
		die("cannot fill");
	snprintf(prefix, sizeof(prefix), "%.*s", (int) (strlen(argv[2]) - strlen("sessauth:revocations")), argv[2]);
	for (long n = 1; n <= count; n++)
	{
		SaEntry		entry = {.n = n, .kind = SA_KIND_USER, .tid = "acme", .epoch = 5, .eid = n, .at = atoll(argv[5]), .until = atoll(argv[6])};
		SaEntryStore store;
		SaField		fields[SA_ENTRY_ARGS];
		const char *args[SA_ENTRY_ARGS + 3] = {"XADD", argv[2], "*"};
		size_t		lens[SA_ENTRY_ARGS + 3] = {4, strlen(argv[2]), 1};
		size_t		fields_count;

		snprintf(entry.g, sizeof(entry.g), "%s", argv[3]);
		snprintf(entry.uid, sizeof(entry.uid), "revoked-user-%ld@example.com", n);
		fields_count = sa_entry_args(link_key, argv[2], &entry, &store, fields);
		for (size_t i = 0; i < fields_count; i++)
		{
			args[i + 3] = fields[i].data;
			lens[i + 3] = fields[i].len;
		}
		redisAppendCommandArgv(to, (int) fields_count + 3, args, lens);
		page_len += sa_page_put(&entry, page + page_len);
		for (long i = 0; n % SA_PAGE_ENTRIES == 0 && i < SA_PAGE_ENTRIES; i++)
		{
			if (redisGetReply(to, (void **) &reply) != REDIS_OK || reply->type != REDIS_REPLY_STRING)
				die("XADD failed");
			if (i == SA_PAGE_ENTRIES - 1)
			{
				put_page(to, link_key, prefix, &entry, reply->str, page, page_len);
				page_len = 0;
			}
			freeReplyObject(reply);
		}
	}
}

/* As the worker does when the stream ends with a page. */
static void
put_page(redisContext *to, const unsigned char *link_key, const char *prefix, const SaEntry *last, const char *id, const char *body, size_t len)
{
	char		key[SA_REDIS_KEY_SIZE];
	char		mac[SA_MAC_TEXT_LEN + 1];
	redisReply *reply;

	if (sa_name_page(prefix, last->g, SA_PAGE_FIRST(last->n), key) == 0 || !sa_page_mac(link_key, key, body, len, mac))
		die("no page");
	reply = redisCommand(to, "HSET %s id %s m %s b %b", key, id, mac, body, len);
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		die("HSET failed");
	freeReplyObject(reply);
}

static double
cpu_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static long
resident_bytes(void)
{
	FILE	   *file = fopen("/proc/self/statm", "r");
	long		pages = 0;

	if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1)
		die("no /proc/self/statm");
	fclose(file);
	return pages * sysconf(_SC_PAGESIZE);
}

static void
join(const SessauthOptions *options, long wanted)
{
	long		before = resident_bytes();
	double		begun = now_s();
	SessauthNode *node = open_with(options);
	SessauthStatus status;
	double		ready;

	do
	{
		usleep(1000);
		sessauth_status(node, &status);
	} while (!status.ready || status.revocations < wanted);
	ready = now_s() - begun;
	printf("%.0f %.1f %.0f\n", ready * 1000, (double) (resident_bytes() - before) / (double) wanted, cpu_s() * 1000);
	sessauth_close(node);
}

static void
join_redis(char **argv)
{
	SessauthOptions options = options_of(argv, 0);

	join(&options, atol(argv[3]));
}

static void
join_postgres(char **argv)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;

	options.pg_conninfo = argv[0];
	options.max_staleness_ms = 30000;
	options.max_cached_tokens = 0;
	join(&options, atol(argv[1]));
}

/* What no node can be faster than: Redis itself, read over one socket with one request under way. */
static void
drain(char **argv)
{
	static char bytes[1 << 20];
	static const char pong[] = "+PONG\r\n";
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(strstr(argv[0], "127.0.0.1:") + 10)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			fd = socket(AF_INET, SOCK_STREAM, 0);
	char		id[48] = "0-0";
	double		begun = now_s();

	if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		die("cannot connect");
	for (;;)
	{
		char		request[512];
		int			len = snprintf(request, sizeof(request), "XREAD COUNT 1000 STREAMS %s %s\r\nPING\r\n", argv[1], id);
		char	   *end = bytes;
		char	   *at;

		if (write(fd, request, (size_t) len) != len)
			die("cannot write");
		do
		{
			/* The last id is near the end of the reply, so the beginning may go. */
			ssize_t		n;

			if (end - bytes > (ssize_t) sizeof(bytes) / 2)
			{
				memmove(bytes, end - 4096, 4096);
				end = bytes + 4096;
			}
			n = read(fd, end, (size_t) (bytes + sizeof(bytes) - end));
			if (n <= 0)
				die("cannot read");
			end += n;
		} while (end - bytes < (ssize_t) sizeof(pong) - 1 || memcmp(end - (sizeof(pong) - 1), pong, sizeof(pong) - 1) != 0);
		if (end - bytes < 32 && memcmp(bytes, "*-1", 3) == 0)
			break;
		for (at = end - 7; at > bytes && memcmp(at, "\r\n*2\r\n$", 7) != 0; at--)
			;
		if (sscanf(at, "\r\n*2\r\n$%*d %47[0-9-]", id) != 1)
			die("no id");
	}
	printf("%.0f\n", (now_s() - begun) * 1000);
}

int
main(int argc, char **argv)
{
	if (argc == 9 && strcmp(argv[1], "rates") == 0)
		rates(argv + 2);
	else if (argc == 9 && strcmp(argv[1], "fill") == 0)
		fill(argv + 2);
	else if (argc == 6 && strcmp(argv[1], "join") == 0)
		join_redis(argv + 2);
	else if (argc == 4 && strcmp(argv[1], "join-postgres") == 0)
		join_postgres(argv + 2);
	else if (argc == 4 && strcmp(argv[1], "drain") == 0)
		drain(argv + 2);
	else
		die("see the top of test/bench/node.c");
	return 0;
}

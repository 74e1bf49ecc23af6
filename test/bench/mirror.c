/*
 * mirror.c
 *		What test/bench/mirror.pl measures with: how long a commit takes to arrive, and a copy of what the worker sends.
 *
 *	mirror stream CONNINFO REDIS-PORT SECONDS GAP-MS		COMMIT of a revocation → its entry at an XREAD BLOCK
 *	mirror listen CONNINFO REDIS-PORT SECONDS GAP-MS		COMMIT of a revocation → the notification that covers it
 *	mirror floor-stream ...					COMMIT of one inserted row, then XADD → the entry at an XREAD BLOCK
 *	mirror floor-listen ...					COMMIT of one inserted row and pg_notify → the notification
 *		each prints "count p50-us p99-us", counted from the moment that COMMIT is sent
 *	mirror record PORT TO-PORT FILE			relays the connections to PORT; FILE has what the last of them has sent
 */
#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROBES_MAX		100000
#define HINTS_MAX		1000000
#define WARM_UP			20			/* probes that do not count */
#define STREAM			"sessauth:revocations"
#define FLOOR_STREAM	"bench:floor"

static PGconn *writer;
static PGconn *listener;		/* NULL: a stream is read */
static redisContext *redis;		/* for XADD */
static redisContext *reader;
static const char *stream;
static char last_id[64];

/* What is waited for now: the number of an event, or of a probe of the floor. */
static char wanted[32];
static bool arrived;
static double arrived_at;

/* Notifications of the worker: all up to n. */
static struct
{
	double		at;
	long long	n;
}			hints[HINTS_MAX];
static int	hint_count;

static struct
{
	double		sent_at;
	char		event[32];
	double		us;
}			probes[PROBES_MAX];
static int	probe_count;

static double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec * 1e6 + (double) ts.tv_nsec / 1e3;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static PGresult *
sql(PGconn *conn, const char *text, int nargs, const char *const *args)
{
	PGresult   *result = PQexecParams(conn, text, nargs, NULL, args, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(text, PQerrorMessage(conn));
	return result;
}

static PGresult *
prepared(const char *name, const char *arg)
{
	PGresult   *result = PQexecPrepared(writer, name, 1, &arg, NULL, NULL, 0);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(name, PQerrorMessage(writer));
	return result;
}

static PGconn *
connect_pg(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		fail("PostgreSQL", PQerrorMessage(conn));
	return conn;
}

static redisContext *
connect_redis(int port)
{
	redisContext *context = redisConnect("127.0.0.1", port);
	int			on = 1;

	if (context == NULL || context->err)
		fail("Redis", context ? context->errstr : "out of memory");
	setsockopt(context->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return context;
}

static void
ask_stream(void)
{
	int			done = 0;

	redisAppendCommand(reader, "XREAD BLOCK 0 STREAMS %s %s", stream, last_id);
	while (!done)
		if (redisBufferWrite(reader, &done) != REDIS_OK)
			fail("Redis", reader->errstr);
}

static void
take_entry(const redisReply *entry)
{
	const redisReply *fields = entry->element[1];

	snprintf(last_id, sizeof(last_id), "%s", entry->element[0]->str);
	for (size_t i = 0; i + 1 < fields->elements; i += 2)
		if (strcmp(fields->element[i]->str, "eid") == 0 && strcmp(fields->element[i + 1]->str, wanted) == 0 && !arrived)
		{
			arrived = true;
			arrived_at = now_us();
		}
}

static void
read_stream(void)
{
	void	   *got = NULL;

	if (redisBufferRead(reader) != REDIS_OK)
		fail("Redis", reader->errstr);
	while (redisGetReplyFromReader(reader, &got) == REDIS_OK && got != NULL)
	{
		redisReply *reply = got;

		if (reply->type != REDIS_REPLY_ARRAY)
			fail("XREAD", reply->str ? reply->str : "no entries");
		for (size_t i = 0; i < reply->element[0]->element[1]->elements; i++)
			take_entry(reply->element[0]->element[1]->element[i]);
		freeReplyObject(reply);
		ask_stream();
	}
}

static void
read_notifications(void)
{
	PGnotify   *notify;

	if (!PQconsumeInput(listener))
		fail("listener", PQerrorMessage(listener));
	while ((notify = PQnotifies(listener)) != NULL)
	{
		const char *n = strstr(notify->extra, "\"n\":");

		if (n != NULL && hint_count < HINTS_MAX)
		{
			hints[hint_count].at = now_us();
			hints[hint_count++].n = atoll(n + 4);
		}
		if ((n != NULL || strcmp(notify->extra, wanted) == 0) && !arrived)
		{
			arrived = true;
			arrived_at = now_us();
		}
		PQfreemem(notify);
	}
}

/* Reads what arrives, until then or (deadline 0) until COMMIT has returned. */
static void
listen_until(double deadline)
{
	struct pollfd polls[2] = {
		{.fd = listener ? PQsocket(listener) : reader->fd, .events = POLLIN},
		{.fd = PQsocket(writer), .events = POLLIN},
	};

	for (;;)
	{
		double		left = deadline - now_us();

		if (deadline > 0 && left <= 0)
			return;
		poll(polls, deadline > 0 ? 1 : 2, deadline > 0 ? (int) (left / 1000) + 1 : 10000);
		if (polls[0].revents)
		{
			if (listener)
				read_notifications();
			else
				read_stream();
		}
		if (deadline == 0 && polls[1].revents)
		{
			if (!PQconsumeInput(writer))
				fail("COMMIT", PQerrorMessage(writer));
			if (!PQisBusy(writer))
				return;
		}
		if (deadline > 0 && arrived)
			return;
	}
}

static void
commit(void)
{
	PGresult   *result;

	arrived = false;
	probes[probe_count].sent_at = now_us();
	if (!PQsendQuery(writer, "COMMIT"))
		fail("COMMIT", PQerrorMessage(writer));
	listen_until(0);
	while ((result = PQgetResult(writer)) != NULL)
	{
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("COMMIT", PQerrorMessage(writer));
		PQclear(result);
	}
}

static void
await(void)
{
	double		given_up = now_us() + 30e6;

	while (!arrived)
	{
		listen_until(now_us() + 1e6);
		if (now_us() > given_up)
			fail("gave up waiting", wanted);
	}
}

static void
probe(void)
{
	char		user[32];
	PGresult   *result;

	snprintf(user, sizeof(user), "user%ld", 1 + random() % 10000);
	PQclear(sql(writer, "BEGIN", 0, NULL));
	result = prepared("revoke", user);
	snprintf(wanted, sizeof(wanted), "%s", PQgetvalue(result, 0, 0));
	snprintf(probes[probe_count].event, sizeof(wanted), "%s", wanted);
	PQclear(result);
	commit();
	await();
	probes[probe_count].us = arrived_at - probes[probe_count].sent_at;
	probe_count++;
}

/* An entry as long as a real one. */
static void
probe_floor(void)
{
	snprintf(wanted, sizeof(wanted), "probe%d", probe_count);
	PQclear(sql(writer, "BEGIN", 0, NULL));
	PQclear(prepared(listener ? "row_and_hint" : "row", wanted));
	commit();
	if (!listener)
	{
		int			done = 0;

		redisAppendCommand(redis, "XADD %s * g 2d5b0b7c-3f39-4d4c-9f35-2f4a77c9a1de n %d k user tid bench uid user12345 sid %s kid %s"
						   " epoch 123456 eid %s at 1790000000000 until 1790000360000 m %s", stream, probe_count, "", "", wanted,
						   "0123456789012345678901234567890123456789012");
		while (!done)
			if (redisBufferWrite(redis, &done) != REDIS_OK)
				fail("Redis", redis->errstr);
	}
	await();
	probes[probe_count].us = arrived_at - probes[probe_count].sent_at;
	probe_count++;
	if (!listener)
	{
		void	   *reply = NULL;

		if (redisGetReply(redis, &reply) != REDIS_OK || ((redisReply *) reply)->type == REDIS_REPLY_ERROR)
			fail("XADD", redis->errstr);
		freeReplyObject(reply);
	}
}

/* A notification says up to which number; which number each event had is asked when all is over. */
static void
match_hints(void)
{
	for (int i = 0; i < probe_count; i++)
	{
		const char *arg = probes[i].event;
		PGresult   *result = sql(writer, "SELECT max(n) FROM sessauth.revocation_log WHERE event_id = $1::bigint", 1, &arg);
		long long	n = atoll(PQgetvalue(result, 0, 0));
		int			low = 0;

		while (low < hint_count && (hints[low].at < probes[i].sent_at || hints[low].n < n))
			low++;
		if (n == 0 || low == hint_count)
			fail("no notification for event", arg);
		probes[i].us = hints[low].at - probes[i].sent_at;
		PQclear(result);
	}
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a,
				y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
latency(const char *what, const char *conninfo, int port, double seconds, double gap_ms)
{
	bool		floor = strncmp(what, "floor-", 6) == 0;
	const char *kind = floor ? what + 6 : what;
	bool		listens = strcmp(kind, "listen") == 0;
	double		end;
	double	   *us;
	int			count;

	writer = connect_pg(conninfo);
	redis = connect_redis(port);
	if (listens)
	{
		listener = connect_pg(conninfo);
		PQclear(sql(listener, floor ? "LISTEN bench_floor" : "LISTEN sessauth_revocation", 0, NULL));
	}
	else
	{
		redisReply *reply;

		stream = floor ? FLOOR_STREAM : STREAM;
		reader = connect_redis(port);
		reply = redisCommand(reader, "XREVRANGE %s + - COUNT 1", stream);
		if (reply == NULL || reply->type != REDIS_REPLY_ARRAY)
			fail("XREVRANGE", "no stream");
		snprintf(last_id, sizeof(last_id), "%s", reply->elements ? reply->element[0]->element[0]->str : "0");
		freeReplyObject(reply);
		ask_stream();
	}
	PQclear(PQprepare(writer, "revoke", "SELECT sessauth.revoke_user('bench', $1, 'benchmark', 'admin')", 0, NULL));
	PQclear(PQprepare(writer, "row", "INSERT INTO bench.probe (name) VALUES ($1)", 0, NULL));
	PQclear(PQprepare(writer, "row_and_hint", "WITH p AS (INSERT INTO bench.probe (name) VALUES ($1) RETURNING name)"
					  " SELECT pg_notify('bench_floor', name) FROM p", 0, NULL));
	srandom((unsigned) getpid());

	end = now_us() + seconds * 1e6;
	while ((now_us() < end || probe_count <= WARM_UP) && probe_count < PROBES_MAX)
	{
		if (floor)
			probe_floor();
		else
			probe();
		arrived = false;
		for (double next = now_us() + gap_ms * 1000 * (0.5 + (double) random() / RAND_MAX); now_us() < next; arrived = false)
			listen_until(next);
	}
	if (listens && !floor)
	{
		for (double next = now_us() + 500e3; now_us() < next; arrived = false)
			listen_until(next);
		match_hints();
	}

	count = probe_count - WARM_UP;
	us = malloc(sizeof(double) * (size_t) count);
	for (int i = 0; i < count; i++)
		us[i] = probes[WARM_UP + i].us;
	qsort(us, (size_t) count, sizeof(double), compare);
	printf("%d %.0f %.0f\n", count, us[count / 2], us[count * 99 / 100]);
}

static void
relay(int from, int to, FILE *copy)
{
	char		buffer[256 * 1024];

	for (;;)
	{
		struct pollfd polls[2] = {{.fd = from, .events = POLLIN}, {.fd = to, .events = POLLIN}};

		poll(polls, 2, -1);
		for (int i = 0; i < 2; i++)
		{
			ssize_t		got = polls[i].revents ? read(polls[i].fd, buffer, sizeof(buffer)) : -1;

			if (got == 0 || (polls[i].revents && got < 0))
				return;
			for (ssize_t at = 0, n; at < got; at += n)
				if ((n = write(polls[1 - i].fd, buffer + at, (size_t) (got - at))) <= 0)
					return;
			if (i == 0 && got > 0)
				fwrite(buffer, 1, (size_t) got, copy);
		}
		fflush(copy);
	}
}

static void
record(int port, int to_port, const char *file)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			server = socket(AF_INET, SOCK_STREAM, 0);
	int			on = 1;

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(server, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(server, 5) != 0)
		fail("relay", "cannot listen");
	address.sin_port = htons((uint16_t) to_port);
	for (;;)
	{
		int			from = accept(server, NULL, NULL);
		int			to = socket(AF_INET, SOCK_STREAM, 0);
		FILE	   *copy = fopen(file, "w");

		if (copy == NULL || connect(to, (struct sockaddr *) &address, sizeof(address)) != 0)
			fail("relay", file);
		setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		relay(from, to, copy);
		fclose(copy);
		close(from);
		close(to);
	}
}

int
main(int argc, char **argv)
{
	if (argc == 6)
		latency(argv[1], argv[2], atoi(argv[3]), atof(argv[4]), atof(argv[5]));
	else if (argc == 5 && strcmp(argv[1], "record") == 0)
		record(atoi(argv[2]), atoi(argv[3]), argv[4]);
	else
		fail("usage", "see the head of mirror.c");
	return 0;
}

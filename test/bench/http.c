/*
 * http.c
 *		What test/bench/node.pl measures the gate with: a client, and the server that is the floor.
 *
 *	http constant PORT THREADS						a libevent server that always answers 200
 *	http load PORT CONNECTIONS SECONDS RATE TOKEN	requests of /auth; RATE 0: as many as go;
 *					"rate p50-us p99-us errors alone-p99-us alone-%": the p99 of that part of the time in which the machine was ours alone
 *
 * Latency is the server's, and what it makes others wait: from the moment that a request is due until the kernel has put
 * its answer into the client's socket, however long slow answers have kept all connections busy by then. Only what the
 * client itself is late does not count, when a connection was free and nobody let it run.
 */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pauses.h"

#define SAMPLES_MAX	4000000
#define WINDOW		0.05		/* s */
#define SETTLING	0.02		/* s that a queue may take to go away */

typedef struct Client
{
	int			fd;
	bool		waiting;		/* for an answer */
	double		start;			/* of the request's latency */
	double		free_since;		/* when the last answer arrived */
} Client;

typedef struct Sample
{
	double		start;
	float		latency;
} Sample;

static void *run_constant(void *arg);
static void on_constant(struct evhttp_request *request, void *arg);
static Client *connect_all(const struct sockaddr_in *address, int count);
static Client *free_longest(Client *clients, int count);
static double receive(int fd, long *errors);
static void on_first_processor(void);
static void report(Sample *samples, long answered, double begun, double elapsed, long errors);
static double percentile_us(const Sample *sorted, long count, int percent);
static int	by_start(const void *a, const void *b);
static int	by_latency(const void *a, const void *b);

/* By the wall clock, because that is what the kernel stamps arrivals with. */
static double
now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void
die(const char *what)
{
	fprintf(stderr, "bench: %s\n", what);
	exit(1);
}

/* ---- the server ---- */

static void
constant(char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(argv[0])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			threads = atoi(argv[1]);
	pthread_t	thread;

	/* A socket for each, so that each has its share of the connections. */
	for (int i = 0; i < threads; i++)
	{
		int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		int			on = 1;

		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(fd, 128) != 0)
			die("cannot listen");
		pthread_create(&thread, NULL, run_constant, (void *) (size_t) fd);
	}
	printf("listening\n");
	fflush(stdout);
	pause();
}

static void *
run_constant(void *arg)
{
	struct event_base *base = event_base_new();
	struct evhttp *http = evhttp_new(base);

	evhttp_set_gencb(http, on_constant, NULL);
	evhttp_set_default_content_type(http, "text/plain");
	if (evhttp_accept_socket(http, (int) (size_t) arg) != 0)
		die("cannot accept");
	event_base_dispatch(base);
	return NULL;
}

static void
on_constant(struct evhttp_request *request, void *arg)
{
	struct evbuffer *body = evbuffer_new();

	(void) arg;
	evbuffer_add(body, "ok\n", 3);
	evhttp_send_reply(request, 200, "OK", body);
	evbuffer_free(body);
}

/* ---- the client ---- */

static void
load(char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(argv[0])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			count = atoi(argv[1]);
	double		seconds = atof(argv[2]);
	double		per_second = atof(argv[3]);
	char		request[4096];
	int			len = snprintf(request, sizeof(request), "GET /auth HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer %s\r\n\r\n", argv[4]);
	Client	   *clients = connect_all(&address, count);
	struct pollfd *polls = calloc((size_t) count, sizeof(struct pollfd));
	Sample	   *samples = malloc(SAMPLES_MAX * sizeof(Sample));
	long		answered = 0;
	long		sent = 0;
	long		errors = 0;
	double		held_up = 0;
	double		begun;
	double		now;

	pauses_watch();
	on_first_processor();
	prctl(PR_SET_TIMERSLACK, 1000);
	begun = now = now_s();
	for (int i = 0; i < count; i++)
	{
		polls[i] = (struct pollfd) {.fd = clients[i].fd, .events = POLLIN};
		clients[i].free_since = begun;
	}
	while (now - begun < seconds && answered < SAMPLES_MAX)
	{
		double		wait = 0.1;
		struct timespec timeout;
		Client	   *client;

		while ((client = free_longest(clients, count)) != NULL)
		{
			double		due = per_second > 0 ? begun + held_up + (double) sent / per_second : now;
			double		possible = due > client->free_since ? due : client->free_since;
			double		late;

			if (due > now)
			{
				wait = due - now < wait ? due - now : wait;
				break;
			}
			now = now_s();
			late = now - possible;
			client->start = now - (possible - due);
			client->waiting = true;
			if (write(client->fd, request, (size_t) len) != len)
				die("cannot write");
			sent++;

			/* More have become due meanwhile than there are connections for: they did not, or their queue would count as the server's. */
			if (per_second > 0 && late > count / per_second)
				held_up += late;
		}
		timeout = (struct timespec) {0, (long) (wait * 1e9)};
		ppoll(polls, (nfds_t) count, &timeout, NULL);
		now = now_s();
		for (int i = 0; i < count; i++)
		{
			if (!(polls[i].revents & POLLIN))
				continue;
			clients[i].free_since = receive(clients[i].fd, &errors);
			clients[i].waiting = false;
			samples[answered++] = (Sample) {clients[i].start, (float) (clients[i].free_since - clients[i].start)};
		}
	}
	pauses_end();
	report(samples, answered, begun, now - begun, errors);
}

/* A window in which the host had a processor stand still says nothing about the server, and neither does what is left of a queue after that. */
static void
report(Sample *samples, long answered, double begun, double elapsed, long errors)
{
	Sample	   *alone = malloc((size_t) answered * sizeof(Sample));
	long		alone_count = 0;
	int			windows = (int) (elapsed / WINDOW);
	int			alone_windows = 0;
	long		next = 0;

	if (answered < 100)
		die("no answers");
	qsort(samples, (size_t) answered, sizeof(Sample), by_start);
	for (int i = 0; i < windows; i++)
	{
		double		from = begun + i * WINDOW;
		bool		is_alone = !pauses_between(from - SETTLING, from + WINDOW);

		alone_windows += is_alone;
		for (; next < answered && samples[next].start < from + WINDOW; next++)
			if (is_alone)
				alone[alone_count++] = samples[next];
	}
	qsort(samples, (size_t) answered, sizeof(Sample), by_latency);
	qsort(alone, (size_t) alone_count, sizeof(Sample), by_latency);
	printf("%.0f %.0f %.0f %ld %.0f %.1f\n", (double) answered / elapsed, percentile_us(samples, answered, 50), percentile_us(samples, answered, 99), errors,
		   percentile_us(alone, alone_count, 99), 100.0 * alone_windows / windows);
	free(alone);
}

static Client *
connect_all(const struct sockaddr_in *address, int count)
{
	Client	   *clients = calloc((size_t) count, sizeof(Client));
	int			on = 1;

	for (int i = 0; i < count; i++)
	{
		int			fd = socket(AF_INET, SOCK_STREAM, 0);

		if (connect(fd, (const struct sockaddr *) address, sizeof(*address)) != 0)
			die("cannot connect");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
		fcntl(fd, F_SETFL, O_NONBLOCK);
		clients[i].fd = fd;
	}
	return clients;
}

/* NULL: all are waiting. */
static Client *
free_longest(Client *clients, int count)
{
	Client	   *found = NULL;

	for (int i = 0; i < count; i++)
		if (!clients[i].waiting && (found == NULL || clients[i].free_since < found->free_since))
			found = &clients[i];
	return found;
}

/* An answer; returns when it arrived. */
static double
receive(int fd, long *errors)
{
	char		answer[4096];
	char		control[256];
	struct iovec vector = {answer, sizeof(answer)};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t		n = recvmsg(fd, &message, 0);

	if (n < 15 || memcmp(answer + n - 3, "ok\n", 3) != 0 || memcmp(answer + 9, "200", 3) != 0)
		++*errors;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); n > 0 && header; header = CMSG_NXTHDR(&message, header))
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS)
		{
			struct timespec ts;

			memcpy(&ts, CMSG_DATA(header), sizeof(ts));
			return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
		}

	/* The kernel begins to stamp a moment after it was asked to. */
	return now_s();
}

/* The client has a processor for itself where there are two: whoever measures shall not wait for one. */
static void
on_first_processor(void)
{
	cpu_set_t	all;
	cpu_set_t	first;

	CPU_ZERO(&first);
	if (sched_getaffinity(0, sizeof(all), &all) != 0 || CPU_COUNT(&all) < 2)
		return;
	for (int i = 0; CPU_COUNT(&first) == 0; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &first);
	sched_setaffinity(0, sizeof(first), &first);
}

static double
percentile_us(const Sample *sorted, long count, int percent)
{
	return count > 0 ? (double) sorted[count * percent / 100].latency * 1e6 : 0;
}

static int
by_start(const void *a, const void *b)
{
	double		x = ((const Sample *) a)->start;
	double		y = ((const Sample *) b)->start;

	return x < y ? -1 : x > y;
}

static int
by_latency(const void *a, const void *b)
{
	float		x = ((const Sample *) a)->latency;
	float		y = ((const Sample *) b)->latency;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "constant") == 0)
		constant(argv + 2);
	else if (argc == 7 && strcmp(argv[1], "load") == 0)
		load(argv + 2);
	else
		die("see the top of test/bench/http.c");
	return 0;
}

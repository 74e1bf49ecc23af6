/*
 * pauses.c
 *		When the host of a virtual machine let one of its processors stand still.
 *
 * /proc/stat counts stolen time by hundredths of a second, and a latency of a millisecond needs to know better. A thread on each
 * processor sleeps for half a millisecond at a time. When it comes late, either another thread had the processor, and then
 * the kernel has counted the wait as this one's (schedstat), or nobody had, because the timer's interrupt came late.
 */
#include "pauses.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EVERY_NS	500000
#define SHORTEST_NS 200000
#define PAUSES_MAX	100000
#define PROCESSORS_MAX 64

static struct
{
	double		from;
	double		to;
}			pauses[PAUSES_MAX];
static atomic_int count;
static atomic_bool stop;
static pthread_t threads[PROCESSORS_MAX];
static int	thread_count;

static void *watch(void *arg);
static long long waited_ns(int schedstat);

static long long
now_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

void
pauses_watch(void)
{
	cpu_set_t	all;

	sched_getaffinity(getpid(), sizeof(all), &all);
	for (int i = 0; i < CPU_SETSIZE && thread_count < PROCESSORS_MAX; i++)
		if (CPU_ISSET(i, &all))
			pthread_create(&threads[thread_count++], NULL, watch, (void *) (size_t) i);
}

void
pauses_end(void)
{
	atomic_store(&stop, true);
	for (int i = 0; i < thread_count; i++)
		pthread_join(threads[i], NULL);
}

bool
pauses_between(double from, double to)
{
	for (int i = 0; i < count && i < PAUSES_MAX; i++)
		if (pauses[i].from < to && pauses[i].to > from)
			return true;
	return false;
}

static void *
watch(void *arg)
{
	cpu_set_t	mine;
	int			schedstat = open("/proc/thread-self/schedstat", O_RDONLY);
	long long	due = now_ns(CLOCK_MONOTONIC);
	long long	waited = waited_ns(schedstat);

	CPU_ZERO(&mine);
	CPU_SET((size_t) arg, &mine);
	pthread_setaffinity_np(pthread_self(), sizeof(mine), &mine);
	while (!atomic_load(&stop))
	{
		struct timespec until;
		long long	late;
		long long	waited_before = waited;
		int			i;

		due += EVERY_NS;
		until = (struct timespec) {due / 1000000000, due % 1000000000};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		late = now_ns(CLOCK_MONOTONIC) - due;
		waited = waited_ns(schedstat);
		if (late - (waited - waited_before) > SHORTEST_NS && (i = atomic_fetch_add(&count, 1)) < PAUSES_MAX)
		{
			pauses[i].to = (double) now_ns(CLOCK_REALTIME) / 1e9;
			pauses[i].from = pauses[i].to - (double) (late + EVERY_NS) / 1e9;	/* it may have begun before it was noticed */
		}
		if (late > EVERY_NS)
			due += late;
	}
	close(schedstat);
	return NULL;
}

/* How long this thread has waited for a processor while it could have run. */
static long long
waited_ns(int schedstat)
{
	char		text[128];
	ssize_t		n = pread(schedstat, text, sizeof(text) - 1, 0);
	long long	waited = 0;

	text[n < 0 ? 0 : n] = '\0';
	if (sscanf(text, "%*d %lld", &waited) != 1)
	{
		fprintf(stderr, "bench: no /proc/thread-self/schedstat\n");
		exit(1);
	}
	return waited;
}

/*
 * tap.h
 *		Just enough of the Test Anything Protocol for a C program that `prove` runs.
 */
#ifndef SESSAUTH_TEST_TAP_H
#define SESSAUTH_TEST_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int	tap_run;
static int	tap_failed;

static bool __attribute__((format(printf, 4, 5)))
tap_ok(bool good, const char *file, int line, const char *name, ...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_run);
	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	printf("\n");
	if (!good)
	{
		tap_failed++;
		printf("# failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return good;
}

#define ok(good, ...)	tap_ok((good), __FILE__, __LINE__, __VA_ARGS__)

#define is_text(got, want, ...) \
	do { \
		const char *tap_got = (got); \
		const char *tap_want = (want); \
		if (!ok(tap_got != NULL && strcmp(tap_got, tap_want) == 0, __VA_ARGS__)) \
			printf("#  got: %s\n# want: %s\n", tap_got ? tap_got : "(null)", tap_want); \
	} while (0)

/* Return this from main. */
static inline int
tap_done(void)
{
	printf("1..%d\n", tap_run);
	return tap_failed == 0 ? 0 : 1;
}

#endif							/* SESSAUTH_TEST_TAP_H */

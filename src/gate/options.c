/*
 * options.c
 *		The gate's flags and environment variables.
 *
 * One table drives both, so that every flag has its variable: --max-staleness
 * is SESSAUTH_MAX_STALENESS.
 */
#include "gate/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTIONS_MAX	65536

typedef enum Target
{
	LISTEN, ADMIN_LISTEN, REDIS, REDIS_PASSWORD_FILE, PG, MAX_STALENESS, NODE, ISSUER, AUDIENCE, LEEWAY, JWKS, LINK_KEY_FILE,
	COOKIE, THREADS, MAX_CONNECTIONS, IDLE_TIMEOUT, MAX_REVOCATIONS, MAX_CACHED_TOKENS, ASK_CONNECTIONS, ASK_TIMEOUT, TRUST_REDIS
} Target;

static const struct
{
	const char *flag;
	Target		target;
	const char *what;
}			flags[] = {
	{"--listen", LISTEN, "host:port or unix:/path to serve HTTP on, or several with commas (127.0.0.1:8600; port 0: any free one)"},
	{"--admin-listen", ADMIN_LISTEN, "the same, one, for /metrics and /revocations (off)"},
	{"--redis", REDIS, "redis://[user@]host[:port][/db], rediss://... (TLS) or unix:///path; ?prefix=, cacert=, cert=, key="},
	{"--redis-password-file", REDIS_PASSWORD_FILE, "file with the password, not readable by others"},
	{"--pg", PG, "conninfo of a PostgreSQL role with access \"node\": gives keys and revocations"},
	{"--max-staleness", MAX_STALENESS, "how old the proof of knowing everything may be (5s)"},
	{"--node", NODE, "name of this node (host:pid)"},
	{"--issuer", ISSUER, "iss that tokens must have (sessauth)"},
	{"--audience", AUDIENCE, "aud that tokens must have (sessauth)"},
	{"--leeway", LEEWAY, "stretches iat and exp (0s)"},
	{"--jwks", JWKS, "file with the public keys, instead of --pg"},
	{"--link-key-file", LINK_KEY_FILE, "file with the link key, instead of --pg"},
	{"--cookie", COOKIE, "name of a cookie with the token, for requests without Authorization: Bearer (none)"},
	{"--threads", THREADS, "that serve requests (as many as there are cores)"},
	{"--max-connections", MAX_CONNECTIONS, "of clients; more wait until others have gone (65536, and never more than descriptors)"},
	{"--idle-timeout", IDLE_TIMEOUT, "how long a connection may be idle, and a request or its answer on their way (30s)"},
	{"--max-revocations", MAX_REVOCATIONS, "in memory; beyond it the node cannot tell (4000000)"},
	{"--max-cached-tokens", MAX_CACHED_TOKENS, "verified tokens to remember, 0 or at least 256 (65536)"},
	{"--ask-connections", ASK_CONNECTIONS, "to --pg, for tokens that the node cannot decide alone; 0: it is never asked (4)"},
	{"--trust-redis", TRUST_REDIS, "or =off: keys in Redis may also accept such tokens; nobody but sessauth's worker must be able to write there (off)"},
	{"--ask-timeout", ASK_TIMEOUT, "how long such a question may take (2s)"},
};

#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

static void usage(FILE *to);
static const char *variable_of(const char *flag, char *out, size_t size);
static bool set(GateOptions *out, size_t i, const char *value);
static bool parse_listen(GateOptions *out, const char *value);
static bool parse_cookie_name(const char *value);
static bool parse_number(const char *value, int64_t min, int64_t max, int64_t *number);
static int count_of_cores(void);
static bool parse_duration_ms(const char *value, int64_t *ms);

OptionsResult
options_read(int argc, char **argv, GateOptions *out)
{
	char		name[64];

	*out = (GateOptions) {
		.threads = count_of_cores(), .max_connections = CONNECTIONS_MAX, .idle_timeout_s = 30, .node = SESSAUTH_OPTIONS_INIT
	};
	(void) parse_listen(out, "127.0.0.1:8600");
	for (size_t i = 0; i < FLAG_COUNT; i++)
	{
		const char *value = getenv(variable_of(flags[i].flag, name, sizeof(name)));

		if (value && !set(out, i, value))
		{
			fprintf(stderr, "sessauth-gate: invalid value of %s\n", name);
			return OPTIONS_EXIT_USAGE;
		}
	}
	for (int a = 1; a < argc; a++)
	{
		const char *equals = strchr(argv[a], '=');
		size_t		len = equals ? (size_t) (equals - argv[a]) : strlen(argv[a]);
		const char *value;
		size_t		i = 0;

		if (strcmp(argv[a], "--help") == 0)
		{
			usage(stdout);
			return OPTIONS_EXIT_OK;
		}
		if (strcmp(argv[a], "--version") == 0)
		{
			printf("sessauth-gate %s\n", sessauth_version());
			return OPTIONS_EXIT_OK;
		}
		while (i < FLAG_COUNT && (strlen(flags[i].flag) != len || strncmp(flags[i].flag, argv[a], len) != 0))
			i++;
		value = equals ? equals + 1 : i < FLAG_COUNT && flags[i].target == TRUST_REDIS ? "on" : a + 1 < argc ? argv[a + 1] : NULL;
		if (i == FLAG_COUNT || value == NULL)
		{
			fprintf(stderr, "sessauth-gate: %s %.*s\nTry --help.\n", i == FLAG_COUNT ? "unknown option" : "missing value of", (int) len, argv[a]);
			return OPTIONS_EXIT_USAGE;
		}
		if (!equals && flags[i].target != TRUST_REDIS)
			a++;
		if (!set(out, i, value))
		{
			fprintf(stderr, "sessauth-gate: invalid value of %s\n", flags[i].flag);
			return OPTIONS_EXIT_USAGE;
		}
	}
	return OPTIONS_RUN;
}

static void
usage(FILE *to)
{
	char		name[64];

	fprintf(to, "sessauth-gate answers /auth with 200, 401 or 503 for the token of a request.\n\nUsage: sessauth-gate [options]\n\n");
	for (size_t i = 0; i < FLAG_COUNT; i++)
		fprintf(to, "  %-22s %s\n", flags[i].flag, flags[i].what);
	fprintf(to, "  --help, --version\n\nEach option is also an environment variable, as --max-staleness is %s.\n"
			"Needed: --pg, or --redis with --jwks and --link-key-file; with --redis and --pg either may be away. Durations: 500ms, 5s (or 5), 2min, 1h.\n\n"
			"Endpoints: /auth, /healthz, /readyz, /.well-known/jwks.json; on --admin-listen /metrics, /revocations?tenant=.\n"
			"Signals: SIGHUP reads keys and files again; SIGTERM and SIGINT end it when the requests under way have been answered.\n"
			"Exit status: 0 stopped, 1 could not listen or start, 2 wrong options.\n",
			variable_of("--max-staleness", name, sizeof(name)));
}

static const char *
variable_of(const char *flag, char *out, size_t size)
{
	snprintf(out, size, "SESSAUTH_%s", flag + 2);
	for (char *c = out; *c; c++)
		*c = *c == '-' ? '_' : (char) toupper((unsigned char) *c);
	return out;
}

static bool
set(GateOptions *out, size_t i, const char *value)
{
	int64_t		ms;
	int64_t		number;

	switch (flags[i].target)
	{
		case LISTEN:
			return parse_listen(out, value);
		case ADMIN_LISTEN:
			out->has_admin = listen_address_parse(value, strlen(value), &out->admin_listen);
			return out->has_admin;
		case COOKIE:
			out->cookie = value;
			return parse_cookie_name(value);
		case THREADS:
			if (!parse_number(value, 1, THREADS_MAX, &number))
				return false;
			out->threads = (int) number;
			return true;
		case MAX_CONNECTIONS:
			if (!parse_number(value, 1, CONNECTIONS_MAX, &number))
				return false;
			out->max_connections = (int) number;
			return true;
		case IDLE_TIMEOUT:
			if (!parse_duration_ms(value, &ms) || ms % 1000 != 0 || ms < 1000 || ms > 3600000)
				return false;
			out->idle_timeout_s = (int) (ms / 1000);
			return true;
		case MAX_REVOCATIONS:
			if (!parse_number(value, 1, INT64_C(1) << 32, &number))
				return false;
			out->node.max_revocations = (size_t) number;
			return true;
		case MAX_CACHED_TOKENS:
			if (!parse_number(value, 0, INT64_C(1) << 30, &number))
				return false;
			out->node.max_cached_tokens = (size_t) number;
			return true;
		case ASK_CONNECTIONS:
			if (!parse_number(value, 0, 64, &number))
				return false;
			out->node.ask_connections = (int) number;
			return true;
		case TRUST_REDIS:
			out->node.trust_redis = strcmp(value, "on") == 0;
			return out->node.trust_redis || strcmp(value, "off") == 0;
		case ASK_TIMEOUT:
			return parse_duration_ms(value, &out->node.ask_timeout_ms);
		case REDIS:
			out->node.redis_url = value;
			return true;
		case REDIS_PASSWORD_FILE:
			out->node.redis_password_file = value;
			return true;
		case PG:
			out->node.pg_conninfo = value;
			return true;
		case MAX_STALENESS:
			return parse_duration_ms(value, &out->node.max_staleness_ms);
		case NODE:
			out->node.name = value;
			return true;
		case ISSUER:
			out->node.issuer = value;
			return true;
		case AUDIENCE:
			out->node.audience = value;
			return true;
		case LEEWAY:
			if (!parse_duration_ms(value, &ms) || ms % 1000 != 0)
				return false;		/* tokens know only whole seconds */
			out->node.leeway_s = ms / 1000;
			return true;
		case JWKS:
			out->node.jwks_file = value;
			return true;
		case LINK_KEY_FILE:
			out->node.link_key_file = value;
			return true;
	}
	return false;
}

/* Replaces what was there: an option wins over its variable as a whole. */
static bool
parse_listen(GateOptions *out, const char *value)
{
	out->listen_count = 0;
	for (;;)
	{
		size_t		len = strcspn(value, ",");

		if (out->listen_count == LISTEN_MAX || !listen_address_parse(value, len, &out->listen[out->listen_count]))
			return false;
		out->listen_count++;
		if (value[len] == '\0')
			return true;
		value += len + 1;
	}
}

/* RFC 6265: a token of RFC 2616. */
static bool
parse_cookie_name(const char *value)
{
	for (const char *c = value; *c; c++)
		if (*c <= ' ' || *c > '~' || strchr("()<>@,;:\\\"/[]?={}", *c))
			return false;
	return value[0] != '\0';
}

static bool
parse_number(const char *value, int64_t min, int64_t max, int64_t *number)
{
	char	   *end;

	if (!isdigit((unsigned char) value[0]))
		return false;
	errno = 0;
	*number = strtoll(value, &end, 10);
	return errno == 0 && *end == '\0' && *number >= min && *number <= max;
}

static int
count_of_cores(void)
{
	long		count = sysconf(_SC_NPROCESSORS_ONLN);

	return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (int) count;
}

/* 5s, 500ms, 2min, 1h; a bare number is seconds. */
static bool
parse_duration_ms(const char *value, int64_t *ms)
{
	static const struct
	{
		const char *unit;
		int64_t		ms;
	}			units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"min", 60000}, {"h", 3600000}};
	char	   *end;
	long long	number;

	if (!isdigit((unsigned char) value[0]))
		return false;
	errno = 0;
	number = strtoll(value, &end, 10);
	if (errno != 0 || number > 1000000000)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0)
		{
			*ms = number * units[i].ms;
			return true;
		}
	return false;
}

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

typedef enum Target
{
	LISTEN, REDIS, REDIS_PASSWORD_FILE, PG, MAX_STALENESS, NODE, ISSUER, AUDIENCE, LEEWAY, JWKS, LINK_KEY_FILE
} Target;

static const struct
{
	const char *flag;
	Target		target;
	const char *what;
}			flags[] = {
	{"--listen", LISTEN, "host:port to serve HTTP on (127.0.0.1:8600; port 0: any free one)"},
	{"--redis", REDIS, "redis://[user@]host[:port][/db], rediss://... (TLS) or unix:///path; ?prefix=, cacert=, cert=, key="},
	{"--redis-password-file", REDIS_PASSWORD_FILE, "file with the password, not readable by others"},
	{"--pg", PG, "conninfo of a PostgreSQL role with access \"node\": gives the keys"},
	{"--max-staleness", MAX_STALENESS, "how old the proof of knowing everything may be (5s)"},
	{"--node", NODE, "name of this node (host:pid)"},
	{"--issuer", ISSUER, "iss that tokens must have (sessauth)"},
	{"--audience", AUDIENCE, "aud that tokens must have (sessauth)"},
	{"--leeway", LEEWAY, "stretches iat and exp (0s)"},
	{"--jwks", JWKS, "file with the public keys, instead of --pg"},
	{"--link-key-file", LINK_KEY_FILE, "file with the link key, instead of --pg"},
};

#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

static void usage(FILE *to);
static const char *variable_of(const char *flag, char *out, size_t size);
static bool set(GateOptions *out, size_t i, const char *value);
static bool parse_listen(GateOptions *out, const char *value);
static bool parse_duration_ms(const char *value, int64_t *ms);

OptionsResult
options_read(int argc, char **argv, GateOptions *out)
{
	char		name[64];

	*out = (GateOptions) {.listen_host = "127.0.0.1", .listen_port = 8600, .node = SESSAUTH_OPTIONS_INIT};
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
		value = equals ? equals + 1 : a + 1 < argc ? argv[a + 1] : NULL;
		if (i == FLAG_COUNT || value == NULL)
		{
			fprintf(stderr, "sessauth-gate: %s %.*s\nTry --help.\n", i == FLAG_COUNT ? "unknown option" : "missing value of", (int) len, argv[a]);
			return OPTIONS_EXIT_USAGE;
		}
		if (!equals)
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

	fprintf(to, "sessauth-gate answers GET /auth with 200, 401 or 503 for the bearer token of a request.\n\nUsage: sessauth-gate [options]\n\n");
	for (size_t i = 0; i < FLAG_COUNT; i++)
		fprintf(to, "  %-24s %s\n", flags[i].flag, flags[i].what);
	fprintf(to, "  --help, --version\n\nEach option is also an environment variable, as --max-staleness is %s.\n"
			"Endpoints: /auth, /healthz, /readyz, /.well-known/jwks.json. SIGTERM ends it.\n",
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

	switch (flags[i].target)
	{
		case LISTEN:
			return parse_listen(out, value);
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

/* host:port, [v6]:port */
static bool
parse_listen(GateOptions *out, const char *value)
{
	const char *colon = strrchr(value, ':');
	size_t		len;
	char	   *end;
	long		port;

	if (colon == NULL || colon == value)
		return false;
	len = (size_t) (colon - value);
	if (value[0] == '[' && value[len - 1] == ']')
	{
		value++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(out->listen_host) || !isdigit((unsigned char) colon[1]))
		return false;
	port = strtol(colon + 1, &end, 10);
	if (*end != '\0' || port > 65535)
		return false;
	memcpy(out->listen_host, value, len);
	out->listen_host[len] = '\0';
	out->listen_port = (int) port;
	return true;
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

/*
 * test_redis_url.c
 *		The URL of a mirror: what is understood, and that everything else is refused.
 */
#include "core/redis_url.h"
#include "tap.h"

static SaRedisUrl url;

static bool
reads(const char *text)
{
	const char *why = sa_redis_url_parse(text, &url);

	if (why)
		printf("# %s: %s\n", text, why);
	return why == NULL;
}

static void
test_places(void)
{
	ok(reads("redis://localhost") && !url.is_tls && !url.is_unix && url.db == 0, "a host is enough");
	is_text(url.host, "localhost", "it is the host");
	is_text(url.port, "6379", "the port is Redis's own");
	is_text(url.user, "", "there is no user");
	is_text(url.prefix, "", "and no prefix");

	ok(reads("rediss://worker@[2001:db8::1]:6380/12") && url.is_tls && url.db == 12, "user, IPv6 address, port and database");
	is_text(url.host, "2001:db8::1", "the address has no brackets");
	is_text(url.port, "6380", "the port");
	is_text(url.user, "worker", "the user");

	ok(reads("unix:///run/redis/s?db=3") && url.is_unix && url.db == 3, "a socket");
	is_text(url.host, "/run/redis/s", "its path ends before the options");
	ok(reads("redis://h/") && url.db == 0, "an empty database is the first");
}

static void
test_options(void)
{
	ok(reads("redis://h?prefix=app1:"), "options may follow the host");
	is_text(url.prefix, "app1:", "the prefix");
	ok(reads("redis://h/2?prefix=a%26b%25"), "values are percent-decoded");
	is_text(url.prefix, "a&b%", "so they may hold what separates them");
	is_text(url.host, "h", "the host ends before them");
	ok(url.db == 2, "and so does the database");
	ok(reads("rediss://h:1/0?cacert=/etc/ca%20s.pem&cert=/c.pem&key=/k.pem&prefix=x."), "the files of TLS");
	is_text(url.ca_file, "/etc/ca s.pem", "the CA");
	is_text(url.cert_file, "/c.pem", "the certificate");
	is_text(url.key_file, "/k.pem", "and its key");
	ok(reads("redis://h/0?prefix=/@:?"), "a value may look like another part of the URL");
	is_text(url.prefix, "/@:?", "and is taken as it is");
}

static void
test_refused(void)
{
	static const char *const wrong[] = {
		"", "h", "http://h", "redis:/h", "redis://", "redis://:6379", "redis://u:secret@h", "redis://:secret@h",
		"redis://@h", "redis://h:0", "redis://h:65536", "redis://h:1x", "redis://h:", "redis://h/x", "redis://h/-1",
		"redis://h/123456", "redis://h h", "redis://h/0#x", "redis://[::1", "redis://[]", "redis://[::1]x",
		"unix://relative", "unix:///s?db=x", "unix:///s?", "unix:///s?db", "unix:///s?cacert=/x",
		"redis://h?db=1", "redis://h?prefix=", "redis://h?prefix", "redis://h?", "redis://h?=x", "redis://h?prefix=a&",
		"redis://h?prefix=a&prefix=b", "redis://h?prefix={", "redis://h?prefix=a%20b", "redis://h?prefix=%00",
		"redis://h?prefix=%0a", "redis://h?prefix=%4", "redis://h?prefix=%zz", "redis://h?prefix=%", "redis://h?Prefix=a",
		"redis://h?cacert=/x", "rediss://h?cacert=x", "rediss://h?cert=/x", "rediss://h?key=/x", "rediss://h?password=x",
	};
	char		text[1200] = "redis://h?prefix=";

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ok(sa_redis_url_parse(wrong[i], &url) != NULL, "refused: %s", wrong[i]);
	memset(text + strlen(text), 'p', SA_PREFIX_MAX);
	ok(reads(text), "the longest prefix");
	strcat(text, "p");
	ok(sa_redis_url_parse(text, &url) != NULL, "and no longer one");
	memset(text, 0, sizeof(text));
	strcpy(text, "rediss://h?cacert=/");
	memset(text + strlen(text), 'p', SA_REDIS_FILE_SIZE);
	ok(sa_redis_url_parse(text, &url) != NULL, "a path that is too long");
	memset(text, 0, sizeof(text));
	strcpy(text, "redis://");
	memset(text + strlen(text), 'h', 256);
	ok(sa_redis_url_parse(text, &url) != NULL, "a host that is too long");
}

static void
test_same_place(void)
{
	static const struct
	{
		const char *a;
		const char *b;
		bool		same;
	}			pairs[] = {
		{"redis://h", "redis://h:6379/0", true},
		{"redis://Host:6380/1", "redis://me@hOST:06380/1", true},
		{"redis://h?prefix=a:", "redis://h?prefix=%61:", true},
		{"redis://h:1", "rediss://h:1?cacert=/x", true},
		{"redis://[::1]", "redis://[::1]:6379", true},
		{"unix:///s", "unix:///s?db=0", true},
		{"redis://h", "redis://h:6380", false},
		{"redis://h", "redis://h/1", false},
		{"redis://h", "redis://h?prefix=a:", false},
		{"redis://h?prefix=a:", "redis://h?prefix=A:", false},
		{"redis://h", "redis://i", false},
		{"unix:///s", "unix:///S", false},
		{"unix:///s", "unix:///s?db=1", false},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		SaRedisUrl	a;

		ok(reads(pairs[i].a), "read: %s", pairs[i].a);
		a = url;
		ok(reads(pairs[i].b) && sa_redis_url_same_place(&a, &url) == pairs[i].same && sa_redis_url_same_place(&url, &a) == pairs[i].same,
		   "%s the same place as %s", pairs[i].same ? "it is" : "it is not", pairs[i].b);
	}
}

int
main(void)
{
	test_places();
	test_same_place();
	test_options();
	test_refused();
	return tap_done();
}

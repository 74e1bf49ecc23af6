/*
 * redis_url.c
 *		Reading the URL of a mirror. Strict: what is not understood is refused
 *		when the mirror is added, not when the first revocation is lost.
 */
#include "redis_url.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *parse_server(const char *text, size_t len, SaRedisUrl *out);
static const char *parse_port(const char *text, size_t len, char out[8]);
static const char *parse_db(const char *text, size_t len, int *db);
static const char *parse_options(const char *text, SaRedisUrl *out);
static const char *parse_option(const char *name, size_t namelen, const char *value, size_t len, SaRedisUrl *out);
static const char *copy_value(const char *value, size_t len, char *out, size_t size);
static bool is_word(const char *text, size_t len, const char *word);

const char *
sa_redis_url_parse(const char *url, SaRedisUrl *out)
{
	const char *query = strchr(url, '?');
	const char *rest;
	const char *slash;
	const char *why;
	size_t		len;

	memset(out, 0, sizeof(*out));
	for (const char *c = url; *c; c++)
	{
		if ((unsigned char) *c <= ' ' || (unsigned char) *c >= 0x7f)
			return "it contains a space or a character outside ASCII";
		if (*c == '#')
			return "it contains a \"#\"";
	}

	if (strncmp(url, "unix://", 7) == 0)
	{
		rest = url + 7;
		len = query ? (size_t) (query - rest) : strlen(rest);
		if (rest[0] != '/')
			return "the path of the socket must be absolute";
		if (len >= 108)
			return "the path of the socket is too long";
		memcpy(out->host, rest, len);
		out->is_unix = true;
		return query ? parse_options(query + 1, out) : NULL;
	}
	out->is_tls = strncmp(url, "rediss://", 9) == 0;
	if (!out->is_tls && strncmp(url, "redis://", 8) != 0)
		return "it must begin with redis://, rediss:// or unix:///";

	rest = url + (out->is_tls ? 9 : 8);
	len = query ? (size_t) (query - rest) : strlen(rest);
	slash = memchr(rest, '/', len);
	why = parse_server(rest, slash ? (size_t) (slash - rest) : len, out);
	if (why == NULL && slash && slash + 1 < rest + len)
		why = parse_db(slash + 1, (size_t) (rest + len - slash - 1), &out->db);
	if (why == NULL && query)
		why = parse_options(query + 1, out);
	if (why == NULL && (out->cert_file[0] == '\0') != (out->key_file[0] == '\0'))
		why = "cert and key belong together";
	return why;
}

bool
sa_redis_url_same_place(const SaRedisUrl *a, const SaRedisUrl *b)
{
	if (a->is_unix != b->is_unix || a->db != b->db || strcmp(a->prefix, b->prefix) != 0)
		return false;
	if (a->is_unix)
		return strcmp(a->host, b->host) == 0;
	return strcasecmp(a->host, b->host) == 0 && atoi(a->port) == atoi(b->port);
}

/* [user@]host[:port] */
static const char *
parse_server(const char *text, size_t len, SaRedisUrl *out)
{
	const char *at = memchr(text, '@', len);
	const char *colon;

	if (at)
	{
		size_t		userlen = (size_t) (at - text);

		if (memchr(text, ':', userlen))
			return "it contains a password";
		if (userlen == 0 || userlen >= sizeof(out->user))
			return "the user name is empty or too long";
		memcpy(out->user, text, userlen);
		len -= userlen + 1;
		text = at + 1;
	}
	strcpy(out->port, "6379");
	if (len > 0 && text[0] == '[')
	{
		const char *close = memchr(text, ']', len);

		if (close == NULL || close - text - 1 >= (ptrdiff_t) sizeof(out->host) || close == text + 1)
			return "the IPv6 address is not closed";
		memcpy(out->host, text + 1, (size_t) (close - text - 1));
		len -= (size_t) (close + 1 - text);
		text = close + 1;
		if (len > 0 && text[0] != ':')
			return "there is something behind the IPv6 address";
		colon = len > 0 ? text : NULL;
	}
	else
	{
		size_t		hostlen;

		colon = memchr(text, ':', len);
		hostlen = colon ? (size_t) (colon - text) : len;
		if (hostlen == 0 || hostlen >= sizeof(out->host))
			return "the host name is empty or too long";
		memcpy(out->host, text, hostlen);
	}
	return colon ? parse_port(colon + 1, (size_t) (text + len - colon - 1), out->port) : NULL;
}

static const char *
parse_port(const char *text, size_t len, char out[8])
{
	char	   *end;
	long		port;

	if (len == 0 || len > 5 || text[0] < '0' || text[0] > '9')
		return "the port is not a number from 1 to 65535";
	memcpy(out, text, len);
	out[len] = '\0';
	port = strtol(out, &end, 10);
	if (*end != '\0' || port < 1 || port > 65535)
		return "the port is not a number from 1 to 65535";
	return NULL;
}

static const char *
parse_db(const char *text, size_t len, int *db)
{
	int			number = 0;

	if (len == 0 || len > 5)
		return "the database is not a number";
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return "the database is not a number";
		number = number * 10 + (text[i] - '0');
	}
	*db = number;
	return NULL;
}

static const char *
parse_options(const char *text, SaRedisUrl *out)
{
	const char *seen[8];
	size_t		lens[8];
	int			count = 0;

	for (;;)
	{
		size_t		len = strcspn(text, "&");
		const char *equals = memchr(text, '=', len);
		size_t		namelen = equals ? (size_t) (equals - text) : len;
		const char *why;

		for (int i = 0; i < count; i++)
			if (lens[i] == namelen && memcmp(seen[i], text, namelen) == 0)
				return "an option is given twice";
		if (equals == NULL || namelen + 1 == len || count == 8)
			return "an option has no value";
		why = parse_option(text, namelen, equals + 1, len - namelen - 1, out);
		if (why)
			return why;
		seen[count] = text;
		lens[count++] = namelen;
		if (text[len] == '\0')
			return NULL;
		text += len + 1;
	}
}

static const char *
parse_option(const char *name, size_t namelen, const char *value, size_t len, SaRedisUrl *out)
{
	if (is_word(name, namelen, "db"))
		return out->is_unix ? parse_db(value, len, &out->db) : "the database belongs into the path: /n";
	if (is_word(name, namelen, "prefix"))
	{
		const char *why = copy_value(value, len, out->prefix, sizeof(out->prefix));

		return why ? why : sa_prefix_valid(out->prefix) ? NULL : "the prefix contains a space, a brace or a character outside ASCII";
	}
	for (int i = 0; i < 3; i++)
	{
		static const char *const names[] = {"cacert", "cert", "key"};
		char	   *const files[] = {out->ca_file, out->cert_file, out->key_file};
		const char *why;

		if (!is_word(name, namelen, names[i]))
			continue;
		if (!out->is_tls)
			return "cacert, cert and key need TLS: rediss://";
		why = copy_value(value, len, files[i], SA_REDIS_FILE_SIZE);
		return why ? why : files[i][0] == '/' ? NULL : "the path of a file must be absolute";
	}
	return "an option is not one of prefix, db, cacert, cert and key";
}

static const char *
copy_value(const char *value, size_t len, char *out, size_t size)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (c == '%')
		{
			if (len - i < 3 || !sa_hex_decode(value + i + 1, 2, &c, 1) || c < ' ' || c == 0x7f)
				return "a \"%\" is not followed by two hex digits of a printable character";
			i += 2;
		}
		if (n + 1 >= size)
			return "the value of an option is too long";
		out[n++] = (char) c;
	}
	out[n] = '\0';
	return NULL;
}

static bool
is_word(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

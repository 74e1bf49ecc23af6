/*
 * redis_url.c
 *		Reading the URL of a mirror. Strict: what is not understood is refused
 *		when the mirror is added, not when the first revocation is lost.
 */
#include "redis_url.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *parse_db(const char *text, int *db);

const char *
sa_redis_url_parse(const char *url, SaRedisUrl *out)
{
	const char *rest;
	const char *slash;
	const char *at;
	const char *colon;
	size_t		len;

	memset(out, 0, sizeof(*out));
	for (const char *c = url; *c; c++)
		if ((unsigned char) *c <= ' ' || (unsigned char) *c >= 0x7f)
			return "it contains a space or a character outside ASCII";

	if (strncmp(url, "unix://", 7) == 0)
	{
		const char *query = strchr(url + 7, '?');

		rest = url + 7;
		len = query ? (size_t) (query - rest) : strlen(rest);
		if (rest[0] != '/')
			return "the path of the socket must be absolute";
		if (len >= 108)
			return "the path of the socket is too long";
		memcpy(out->host, rest, len);
		out->is_unix = true;
		if (query == NULL)
			return NULL;
		if (strncmp(query, "?db=", 4) != 0)
			return "the only option of a unix URL is db";
		return parse_db(query + 4, &out->db);
	}
	if (strncmp(url, "rediss://", 9) == 0)
		return "TLS (rediss://) is not supported by this version";
	if (strncmp(url, "redis://", 8) != 0)
		return "it must begin with redis:// or unix:///";

	rest = url + 8;
	slash = strchr(rest, '/');
	len = slash ? (size_t) (slash - rest) : strlen(rest);
	at = memchr(rest, '@', len);
	if (at)
	{
		size_t		userlen = at - rest;

		if (memchr(rest, ':', userlen))
			return "it contains a password";
		if (userlen == 0 || userlen >= sizeof(out->user))
			return "the user name is empty or too long";
		memcpy(out->user, rest, userlen);
		len -= userlen + 1;
		rest = at + 1;
	}
	strcpy(out->port, "6379");
	if (rest[0] == '[')
	{
		const char *close = memchr(rest, ']', len);

		if (close == NULL || close - rest - 1 >= (ptrdiff_t) sizeof(out->host) || close == rest + 1)
			return "the IPv6 address is not closed";
		memcpy(out->host, rest + 1, close - rest - 1);
		len -= close + 1 - rest;
		rest = close + 1;
		if (len > 0 && rest[0] != ':')
			return "there is something behind the IPv6 address";
		colon = len > 0 ? rest : NULL;
	}
	else
	{
		size_t		hostlen;

		colon = memchr(rest, ':', len);
		hostlen = colon ? (size_t) (colon - rest) : len;
		if (hostlen == 0 || hostlen >= sizeof(out->host))
			return "the host name is empty or too long";
		memcpy(out->host, rest, hostlen);
	}
	if (colon)
	{
		size_t		portlen = rest + len - colon - 1;
		long		port;
		char	   *end;

		if (portlen == 0 || portlen > 5)
			return "the port is not a number from 1 to 65535";
		memcpy(out->port, colon + 1, portlen);
		out->port[portlen] = '\0';
		port = strtol(out->port, &end, 10);
		if (*end != '\0' || out->port[0] < '0' || out->port[0] > '9' || port < 1 || port > 65535)
			return "the port is not a number from 1 to 65535";
	}
	if (slash == NULL || slash[1] == '\0')
		return NULL;
	return parse_db(slash + 1, &out->db);
}

static const char *
parse_db(const char *text, int *db)
{
	size_t		len = strlen(text);

	if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
		return "the database is not a number";
	*db = atoi(text);
	return NULL;
}

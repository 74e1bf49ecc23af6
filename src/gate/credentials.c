/*
 * credentials.c
 *		Where the token is in a request.
 *
 * Two of a kind are refused: a proxy before us may have looked at the other one.
 */
#include "gate/credentials.h"

#include <event2/keyvalq_struct.h>
#include <event2/util.h>
#include <string.h>

static const char *from_authorization(struct evkeyvalq *headers, size_t *len, const char **problem);
static const char *from_cookie(struct evkeyvalq *headers, const char *name, size_t *len, const char **problem);

const char *
credentials_token(struct evhttp_request *request, const char *cookie, size_t *len, const char **problem)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
	const char *token;

	*problem = NULL;
	token = from_authorization(headers, len, problem);
	if (token == NULL && *problem == NULL && cookie)
		token = from_cookie(headers, cookie, len, problem);
	return token;
}

/* Exactly one Authorization header, scheme Bearer in any case. */
static const char *
from_authorization(struct evkeyvalq *headers, size_t *len, const char **problem)
{
	const char *value = NULL;

	for (struct evkeyval *header = headers->tqh_first; header; header = header->next.tqe_next)
	{
		if (evutil_ascii_strcasecmp(header->key, "Authorization") != 0)
			continue;
		if (value)
		{
			*problem = "more than one Authorization header";
			return NULL;
		}
		value = header->value;
	}
	if (value == NULL || evutil_ascii_strncasecmp(value, "Bearer", 6) != 0 || (value[6] != ' ' && value[6] != '\0'))
		return NULL;
	value += 6 + strspn(value + 6, " ");
	*len = strlen(value);
	return value;
}

/* RFC 6265, section 4.2.1: name=value pairs between "; ". A token has none of the characters that would be quoted. */
static const char *
from_cookie(struct evkeyvalq *headers, const char *name, size_t *len, const char **problem)
{
	const char *found = NULL;
	size_t		name_len = strlen(name);

	for (struct evkeyval *header = headers->tqh_first; header; header = header->next.tqe_next)
	{
		const char *pair = header->value;

		if (evutil_ascii_strcasecmp(header->key, "Cookie") != 0)
			continue;
		while (*pair)
		{
			size_t		size;

			pair += strspn(pair, " \t;");
			size = strcspn(pair, ";");
			if (size > name_len && pair[name_len] == '=' && strncmp(pair, name, name_len) == 0)
			{
				if (found)
				{
					*problem = "more than one cookie of that name";
					return NULL;
				}
				found = pair + name_len + 1;
				*len = size - name_len - 1;
				while (*len > 0 && (found[*len - 1] == ' ' || found[*len - 1] == '\t'))
					--*len;
			}
			pair += size;
		}
	}
	return found;
}

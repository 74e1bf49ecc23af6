/*
 * pg_hosts.c
 *		The hosts that a conninfo lists, one by one. See pg_hosts.h.
 */
#include "node/pg_hosts.h"

#include <libpq-fe.h>
#include <string.h>

typedef struct Lists
{
	PQconninfoOption *options;	/* owns the texts */
	const char *host;
	const char *hostaddr;
	const char *port;
} Lists;

static bool read_lists(const char *conninfo, Lists *out);
static int count_items(const char *list);
static bool has_gap(const char *list);
static bool copy_item(const char *list, int index, char *out, size_t size);

int
pg_hosts_count(const char *conninfo)
{
	Lists		lists;
	int			count = 1;

	if (!read_lists(conninfo, &lists))
		return 1;
	count = count_items(lists.hostaddr[0] ? lists.hostaddr : lists.host);
	if ((lists.hostaddr[0] && lists.host[0] && count_items(lists.host) != count) ||
		(count_items(lists.port) != 1 && count_items(lists.port) != count) ||
		has_gap(lists.host) || has_gap(lists.hostaddr) || has_gap(lists.port))
		count = 1;
	PQconninfoFree(lists.options);
	return count;
}

bool
pg_hosts_get(const char *conninfo, int index, PgHost *out)
{
	Lists		lists;
	bool		fits;

	if (!read_lists(conninfo, &lists))
		return false;
	fits = copy_item(lists.host, index, out->host, sizeof(out->host)) &&
		copy_item(lists.hostaddr, index, out->hostaddr, sizeof(out->hostaddr)) &&
		copy_item(lists.port, count_items(lists.port) == 1 ? 0 : index, out->port, sizeof(out->port));
	PQconninfoFree(lists.options);
	return fits;
}

static bool
read_lists(const char *conninfo, Lists *out)
{
	*out = (Lists) {PQconninfoParse(conninfo, NULL), "", "", ""};
	for (const PQconninfoOption *option = out->options; option && option->keyword; option++)
	{
		const char *value = option->val ? option->val : "";

		if (strcmp(option->keyword, "host") == 0)
			out->host = value;
		else if (strcmp(option->keyword, "hostaddr") == 0)
			out->hostaddr = value;
		else if (strcmp(option->keyword, "port") == 0)
			out->port = value;
	}
	return out->options != NULL;
}

static int
count_items(const char *list)
{
	int			count = 1;

	for (; *list; list++)
		count += *list == ',';
	return count;
}

/* An empty item, which libpq fills in; given alone it would be taken for none, and the list would stand. */
static bool
has_gap(const char *list)
{
	size_t		len = strlen(list);

	return len > 0 && (list[0] == ',' || list[len - 1] == ',' || strstr(list, ",,") != NULL);
}

/* Items are separated by commas. Nothing has nothing at any place. */
static bool
copy_item(const char *list, int index, char *out, size_t size)
{
	size_t		len;

	while (*list && index > 0)
		index -= *list++ == ',';
	len = strcspn(list, ",");
	if (len >= size)
		return false;
	memcpy(out, list, len);
	out[len] = '\0';
	return true;
}

/*
 * wire_page.c
 *		The mirror protocol: pages, the stream's revocations by the thousand under one MAC.
 *
 * The numbers are not written: a page's first one is in its name, and each entry has the next.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "wire.h"
#include "wire_text.h"

#define FRAME_LEN	4			/* bytes before a field that say how many it has */

static size_t put(const char *data, size_t len, char *out);
static size_t put_number(int64_t number, char *out);
static bool take(const char **at, const char *end, SaField *out);
static bool take_number(const char **at, const char *end, int64_t *out);
static size_t mac_fields(const char *page_key, const char *body, size_t len, SaField out[3]);

size_t
sa_page_put(const SaEntry *entry, char out[SA_PAGE_ENTRY_MAX])
{
	const char *kind = sa_kind_name(entry->kind);
	size_t		n;

	if (!sa_revocation_valid(entry))
		return 0;
	n = put(kind, strlen(kind), out);
	n += put(entry->tid, strlen(entry->tid), out + n);
	n += put(entry->uid, strlen(entry->uid), out + n);
	n += put(entry->sid, strlen(entry->sid), out + n);
	n += put(entry->kid, strlen(entry->kid), out + n);
	n += put_number(entry->epoch, out + n);
	n += put_number(entry->eid, out + n);
	n += put_number(entry->at, out + n);
	return n + put_number(entry->until, out + n);
}

bool
sa_page_mac(const unsigned char link[SA_KEY_LEN], const char *page_key, const char *body, size_t len, char out[SA_MAC_TEXT_LEN + 1])
{
	SaField		fields[3];

	return sa_mac_text(link, fields, mac_fields(page_key, body, len, fields), out);
}

bool
sa_page_authentic(SaMacKey *link, const char *page_key, const char *body, size_t len, const char *mac, size_t maclen)
{
	SaField		fields[3];
	char		right[SA_MAC_TEXT_LEN + 1];

	return maclen == SA_MAC_TEXT_LEN && sa_mac_key_text(link, fields, mac_fields(page_key, body, len, fields), right) &&
		sa_equal(mac, right, SA_MAC_TEXT_LEN);
}

bool
sa_page_take(const char **at, const char *end, SaEntry *out)
{
	SaField		kind;
	SaField		tid;
	SaField		uid;
	SaField		sid;
	SaField		kid;

	memset(out, 0, sizeof(*out));
	return take(at, end, &kind) && sa_kind_parse(kind.data, kind.len, &out->kind) &&
		take(at, end, &tid) && sa_text_copy(&tid, out->tid, sizeof(out->tid)) &&
		take(at, end, &uid) && sa_text_copy(&uid, out->uid, sizeof(out->uid)) &&
		take(at, end, &sid) && sa_text_copy(&sid, out->sid, sizeof(out->sid)) &&
		take(at, end, &kid) && sa_text_copy(&kid, out->kid, sizeof(out->kid)) &&
		take_number(at, end, &out->epoch) && take_number(at, end, &out->eid) &&
		take_number(at, end, &out->at) && take_number(at, end, &out->until) && sa_revocation_valid(out);
}

static size_t
put(const char *data, size_t len, char *out)
{
	for (int i = 0; i < FRAME_LEN; i++)
		out[i] = (char) (unsigned char) (len >> 8 * (FRAME_LEN - 1 - i));
	memcpy(out + FRAME_LEN, data, len);
	return FRAME_LEN + len;
}

static size_t
put_number(int64_t number, char *out)
{
	char		text[SA_NUMBER_SIZE];

	return put(text, sa_number_write(number, text), out);
}

static bool
take(const char **at, const char *end, SaField *out)
{
	size_t		len = 0;

	if (end - *at < FRAME_LEN)
		return false;
	for (int i = 0; i < FRAME_LEN; i++)
		len = len << 8 | (unsigned char) (*at)[i];
	if ((size_t) (end - *at) - FRAME_LEN < len)
		return false;
	*out = SA_FIELD(*at + FRAME_LEN, len);
	*at += FRAME_LEN + len;
	return true;
}

static bool
take_number(const char **at, const char *end, int64_t *out)
{
	SaField		field;

	return take(at, end, &field) && sa_number_parse(field.data, field.len, out);
}

static size_t
mac_fields(const char *page_key, const char *body, size_t len, SaField out[3])
{
	out[0] = SA_FIELD_STR("sessauth/1/page");
	out[1] = SA_FIELD_STR(page_key);
	out[2] = SA_FIELD(body, len);
	return 3;
}

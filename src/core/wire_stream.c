/*
 * wire_stream.c
 *		Entries of the revocation stream: revocations and beats.
 *
 * One table per kind of entry lists its fields in the order of the protocol.
 * Writer, reader and MAC all walk that table, so they cannot disagree on the order.
 */
#include <string.h>

#include "wire.h"
#include "wire_text.h"

typedef enum FieldId
{
	F_G, F_N, F_K, F_TID, F_UID, F_SID, F_KID, F_EPOCH, F_EID, F_AT, F_UNTIL, F_B, F_LOW, F_M,
	F_COUNT
} FieldId;

static const char *const field_names[F_COUNT] = {
	[F_G] = "g", [F_N] = "n", [F_K] = "k", [F_TID] = "tid", [F_UID] = "uid", [F_SID] = "sid", [F_KID] = "kid",
	[F_EPOCH] = "epoch", [F_EID] = "eid", [F_AT] = "at", [F_UNTIL] = "until", [F_B] = "b", [F_LOW] = "low",
	[F_M] = "m"
};

static const FieldId revocation_fields[SA_ENTRY_FIELDS] = {
	F_G, F_N, F_K, F_TID, F_UID, F_SID, F_KID, F_EPOCH, F_EID, F_AT, F_UNTIL, F_M
};
static const FieldId beat_fields[SA_BEAT_FIELDS] = {
	F_G, F_N, F_K, F_B, F_LOW, F_AT, F_M
};

static const char *const kind_names[] = {
	[SA_KIND_SESSION] = "session",
	[SA_KIND_USER] = "user",
	[SA_KIND_TENANT] = "tenant",
	[SA_KIND_KEY] = "key",
	[SA_KIND_BEAT] = "beat"
};

static size_t entry_fields(SaKind kind, const FieldId **fields);
static bool entry_valid(const SaEntry *entry);
static bool text_valid(const char *text, bool wanted, size_t max);
static void entry_values(const SaEntry *entry, SaEntryStore *store, SaField values[F_COUNT]);
static size_t mac_fields(SaKind kind, const char *stream_key, const SaField values[F_COUNT], SaField *out);
static bool fields_take(const SaField *args, size_t nargs, SaField values[F_COUNT], SaKind *kind);
static bool field_find(const SaField *name, size_t at, FieldId *id);
static bool is_field(FieldId id, const SaField *name);
static bool entry_take(SaKind kind, const SaField values[F_COUNT], const char mac[SA_MAC_TEXT_LEN + 1], SaEntry *out);
static bool entry_parse(const SaField values[F_COUNT], SaEntry *entry);
static bool number_parse(const SaField *value, int64_t *out);

const char *
sa_kind_name(SaKind kind)
{
	return kind_names[kind];
}

bool
sa_kind_parse(const char *name, size_t len, SaKind *kind)
{
	for (size_t i = 0; i < sizeof(kind_names) / sizeof(kind_names[0]); i++)
	{
		if (strlen(kind_names[i]) == len && memcmp(kind_names[i], name, len) == 0)
		{
			*kind = (SaKind) i;
			return true;
		}
	}
	return false;
}

size_t
sa_entry_args(const unsigned char link[SA_KEY_LEN], const char *stream_key, const SaEntry *entry,
			  SaEntryStore *store, SaField args[SA_ENTRY_ARGS])
{
	const FieldId *fields;
	size_t		nfields = entry_fields(entry->kind, &fields);
	SaField		values[F_COUNT];
	SaField		framed[SA_ENTRY_FIELDS + 1];
	size_t		n = 0;

	if (!entry_valid(entry))
		return 0;
	entry_values(entry, store, values);
	if (!sa_mac_text(link, framed, mac_fields(entry->kind, stream_key, values, framed), store->mac))
		return 0;
	values[F_M] = SA_FIELD(store->mac, SA_MAC_TEXT_LEN);

	for (size_t i = 0; i < nfields; i++)
	{
		args[n++] = SA_FIELD_STR(field_names[fields[i]]);
		args[n++] = values[fields[i]];
	}
	return n;
}

static size_t
entry_fields(SaKind kind, const FieldId **fields)
{
	*fields = kind == SA_KIND_BEAT ? beat_fields : revocation_fields;
	return kind == SA_KIND_BEAT ? SA_BEAT_FIELDS : SA_ENTRY_FIELDS;
}

/* What the protocol page says an entry of its kind can be. Holds for what is written and for what is read. */
static bool
entry_valid(const SaEntry *entry)
{
	if (!sa_uuid_valid(entry->g, strlen(entry->g)) || entry->at < 0)
		return false;

	/* A joining node needs low to n, nothing when low is n + 1. */
	if (entry->kind == SA_KIND_BEAT)
		return entry->n >= 0 && entry->b >= 0 && entry->low >= 1 && entry->low - 1 <= entry->n;

	return entry->n >= 1 && sa_revocation_valid(entry);
}

bool
sa_revocation_valid(const SaEntry *entry)
{
	bool		of_key = entry->kind == SA_KIND_KEY;
	bool		of_tenant = entry->kind == SA_KIND_TENANT;
	bool		has_epoch = of_tenant || entry->kind == SA_KIND_USER;

	return entry->kind != SA_KIND_BEAT && entry->eid >= 0 && entry->at >= 0 && entry->until >= 0 &&
		(has_epoch ? entry->epoch >= 0 : entry->epoch == 0) &&
		text_valid(entry->tid, !of_key, SA_TENANT_ID_MAX) &&
		text_valid(entry->uid, !of_key && !of_tenant, SA_USER_ID_MAX) &&
		text_valid(entry->kid, of_key, sizeof(entry->kid) - 1) &&
		(entry->kind == SA_KIND_SESSION ? sa_uuid_valid(entry->sid, strlen(entry->sid)) : entry->sid[0] == '\0');
}

/* Clean text when it is wanted, else nothing. */
static bool
text_valid(const char *text, bool wanted, size_t max)
{
	size_t		len = strnlen(text, max + 1);

	if (!wanted)
		return len == 0;
	return len > 0 && len <= max && sa_text_is_clean(text, len);
}

/* The value of every field that the entry's kind has, but for the MAC. */
static void
entry_values(const SaEntry *entry, SaEntryStore *store, SaField values[F_COUNT])
{
	memset(values, 0, sizeof(SaField) * F_COUNT);
	values[F_G] = SA_FIELD_STR(entry->g);
	values[F_K] = SA_FIELD_STR(sa_kind_name(entry->kind));
	values[F_N] = SA_FIELD(store->numbers[0], sa_number_write(entry->n, store->numbers[0]));
	values[F_AT] = SA_FIELD(store->numbers[1], sa_number_write(entry->at, store->numbers[1]));
	if (entry->kind == SA_KIND_BEAT)
	{
		values[F_B] = SA_FIELD(store->numbers[2], sa_number_write(entry->b, store->numbers[2]));
		values[F_LOW] = SA_FIELD(store->numbers[3], sa_number_write(entry->low, store->numbers[3]));
		return;
	}
	values[F_TID] = SA_FIELD_STR(entry->tid);
	values[F_UID] = SA_FIELD_STR(entry->uid);
	values[F_SID] = SA_FIELD_STR(entry->sid);
	values[F_KID] = SA_FIELD_STR(entry->kid);
	values[F_EPOCH] = SA_FIELD(store->numbers[2], sa_number_write(entry->epoch, store->numbers[2]));
	values[F_EID] = SA_FIELD(store->numbers[3], sa_number_write(entry->eid, store->numbers[3]));
	values[F_UNTIL] = SA_FIELD(store->numbers[4], sa_number_write(entry->until, store->numbers[4]));
}

/*
 * What the MAC covers: the label, the stream's key, then all fields but the
 * MAC in their order. A beat's label already says what k is.
 */
static size_t
mac_fields(SaKind kind, const char *stream_key, const SaField values[F_COUNT], SaField *out)
{
	const FieldId *fields;
	size_t		nfields = entry_fields(kind, &fields);
	size_t		n = 0;

	if (kind == SA_KIND_BEAT)
		out[n++] = SA_FIELD_STR("sessauth/1/beat");
	else
		out[n++] = SA_FIELD_STR("sessauth/1/entry");
	out[n++] = SA_FIELD_STR(stream_key);
	for (size_t i = 0; i < nfields; i++)
	{
		if (fields[i] != F_M && !(kind == SA_KIND_BEAT && fields[i] == F_K))
			out[n++] = values[fields[i]];
	}
	return n;
}

/* Both authenticate the bytes as they came; only then is looked at what they say. */
bool
sa_entry_read(const unsigned char link[SA_KEY_LEN], const char *stream_key,
			  const SaField *args, size_t nargs, SaEntry *out)
{
	SaField		values[F_COUNT];
	SaField		framed[SA_ENTRY_FIELDS + 1];
	SaKind		kind;
	char		mac[SA_MAC_TEXT_LEN + 1];

	return fields_take(args, nargs, values, &kind) &&
		sa_mac_text(link, framed, mac_fields(kind, stream_key, values, framed), mac) &&
		entry_take(kind, values, mac, out);
}

bool
sa_entry_read_with(SaMacKey *link, const char *stream_key, const SaField *args, size_t nargs, SaEntry *out)
{
	SaField		values[F_COUNT];
	SaField		framed[SA_ENTRY_FIELDS + 1];
	SaKind		kind;
	char		mac[SA_MAC_TEXT_LEN + 1];

	return fields_take(args, nargs, values, &kind) &&
		sa_mac_key_text(link, framed, mac_fields(kind, stream_key, values, framed), mac) &&
		entry_take(kind, values, mac, out);
}

/* Each field of the entry's kind once, and no other one. */
static bool
fields_take(const SaField *args, size_t nargs, SaField values[F_COUNT], SaKind *kind)
{
	const FieldId *fields;
	size_t		nfields;

	memset(values, 0, sizeof(SaField) * F_COUNT);
	if (nargs % 2 != 0 || nargs > (size_t) SA_ENTRY_ARGS)
		return false;
	for (size_t i = 0; i < nargs; i += 2)
	{
		FieldId		id;

		/* No value is NULL, so NULL means that the field has not come yet. */
		if (!field_find(&args[i], i / 2, &id) || values[id].data != NULL)
			return false;
		values[id] = SA_FIELD(args[i + 1].data ? args[i + 1].data : "", args[i + 1].len);
	}

	/* As many fields as the kind has, and each of those: then there is no other one. */
	if (values[F_K].data == NULL || !sa_kind_parse(values[F_K].data, values[F_K].len, kind))
		return false;
	nfields = entry_fields(*kind, &fields);
	if (nargs != nfields * 2)
		return false;
	for (size_t i = 0; i < nfields; i++)
	{
		if (values[fields[i]].data == NULL)
			return false;
	}
	return true;
}

/* Any order is right, but that of the protocol is the one that comes: looked at first. */
static bool
field_find(const SaField *name, size_t at, FieldId *id)
{
	*id = revocation_fields[at];
	if (is_field(*id, name))
		return true;
	for (int i = 0; i < F_COUNT; i++)
	{
		*id = (FieldId) i;
		if (is_field(*id, name))
			return true;
	}
	return false;
}

static bool
is_field(FieldId id, const SaField *name)
{
	return strlen(field_names[id]) == name->len && memcmp(field_names[id], name->data, name->len) == 0;
}

static bool
entry_take(SaKind kind, const SaField values[F_COUNT], const char mac[SA_MAC_TEXT_LEN + 1], SaEntry *out)
{
	SaEntry		entry;

	if (values[F_M].len != SA_MAC_TEXT_LEN || !sa_equal(mac, values[F_M].data, SA_MAC_TEXT_LEN))
		return false;
	memset(&entry, 0, sizeof(entry));
	entry.kind = kind;
	if (!entry_parse(values, &entry) || !entry_valid(&entry))
		return false;
	*out = entry;
	return true;
}

/* Fills what fits and is canonical; whether the values make sense together is entry_valid's question. */
static bool
entry_parse(const SaField values[F_COUNT], SaEntry *entry)
{
	if (!sa_text_copy(&values[F_G], entry->g, sizeof(entry->g)) ||
		!number_parse(&values[F_N], &entry->n) ||
		!number_parse(&values[F_AT], &entry->at))
		return false;
	if (entry->kind == SA_KIND_BEAT)
		return number_parse(&values[F_B], &entry->b) &&
			number_parse(&values[F_LOW], &entry->low);
	return sa_text_copy(&values[F_TID], entry->tid, sizeof(entry->tid)) &&
		sa_text_copy(&values[F_UID], entry->uid, sizeof(entry->uid)) &&
		sa_text_copy(&values[F_SID], entry->sid, sizeof(entry->sid)) &&
		sa_text_copy(&values[F_KID], entry->kid, sizeof(entry->kid)) &&
		number_parse(&values[F_EPOCH], &entry->epoch) &&
		number_parse(&values[F_EID], &entry->eid) &&
		number_parse(&values[F_UNTIL], &entry->until);
}

static bool
number_parse(const SaField *value, int64_t *out)
{
	return sa_number_parse(value->data, value->len, out);
}

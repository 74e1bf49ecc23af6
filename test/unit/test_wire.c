/*
 * test_wire.c
 *		The mirror protocol: names, entries, nonces, answers; whatever is not exactly that is refused.
 */
#include <stdlib.h>

#include "core/wire.h"
#include "core/wire_text.h"
#include "tap.h"

#define G		"0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a01"
#define G2		"0b0e7c3a-8d7f-4a51-9f43-0d8f8f7a7a02"
#define SID		"11111111-2222-4333-8444-555555555555"
#define STREAM	"P:sessauth:revocations"
#define NODE	"api-1:8600/00112233445566778899aabbccddeeff"
#define NONCE	"ffeeddccbbaa99887766554433221100"

static unsigned char link_key[SA_KEY_LEN];

static void
test_names(void)
{
	char		out[SA_REDIS_KEY_SIZE];
	char		tid[SA_TENANT_ID_MAX + 1];
	char		uid[SA_USER_ID_MAX + 1];
	char		prefix[SA_PREFIX_MAX + 2];
	size_t		n;

	n = sa_name_user_epoch("", "a:b}{", 5, "%", 1, out);
	is_text(out, "user_epoch:{a%3Ab%7D%7B}:%25", "the epoch key of user %% of tenant a:b}{");
	ok(n == strlen(out), "its length is right");
	n = sa_name_tenant_epoch("P:", "a:b}{", 5, out);
	is_text(out, "P:tenant_epoch:{a%3Ab%7D%7B}", "that of the tenant, with a prefix");
	ok(n == strlen(out), "its length is right");
	n = sa_name_session("P:", "a:b}{", 5, SID, out);
	is_text(out, "P:session:{a%3Ab%7D%7B}:" SID, "a session's key");
	ok(n == strlen(out), "its length is right");
	ok(sa_name_stream("P:", out) == strlen(out), "the stream");
	is_text(out, STREAM, "has its name");
	n = sa_name_page("P:", G, 1001, out);
	ok(n == strlen(out) && strcmp(out, "P:sessauth:page:" G ":1001") == 0, "a page");
	ok(sa_name_page("", G, 0, out) == 0 && sa_name_page("", G, -999, out) == 0 && sa_name_page("", G, 2, out) == 0 && out[0] == '\0' &&
	   sa_name_page("", G, 1000, out) == 0 && sa_name_page("", "g", 1, out) == 0, "no page begins elsewhere, or is of no generation");
	ok(SA_PAGE_FIRST(1) == 1 && SA_PAGE_FIRST(1000) == 1 && SA_PAGE_FIRST(1001) == 1001, "each number is in one page");
	ok(sa_name_mirror("", out) == strlen(out) && strcmp(out, "sessauth:mirror") == 0, "so has the mirror");
	ok(sa_name_nodes("", out) == strlen(out) && strcmp(out, "sessauth:nodes") == 0, "so have the nodes");
	ok(sa_name_answers("x", out) == strlen(out) && strcmp(out, "xsessauth:answers") == 0, "and the answers");

	memset(tid, 0xff, sizeof(tid));
	memset(uid, 0xff, sizeof(uid));
	memset(prefix, 'p', sizeof(prefix));
	prefix[SA_PREFIX_MAX] = '\0';
	n = sa_name_user_epoch(prefix, tid, SA_TENANT_ID_MAX, uid, SA_USER_ID_MAX, out);
	ok(n == strlen(out) && n == SA_PREFIX_MAX + 14 + 3 * (SA_TENANT_ID_MAX + SA_USER_ID_MAX), "the longest name fits");
	ok(sa_name_user_epoch("", tid, SA_TENANT_ID_MAX + 1, uid, 1, out) == 0 && out[0] == '\0' &&
	   sa_name_user_epoch("", tid, 1, uid, SA_USER_ID_MAX + 1, out) == 0 && sa_name_user_epoch("", tid, 0, uid, 1, out) == 0 &&
	   sa_name_user_epoch("", tid, 1, uid, 0, out) == 0 && sa_name_tenant_epoch("", tid, SA_TENANT_ID_MAX + 1, out) == 0 &&
	   sa_name_session("", tid, SA_TENANT_ID_MAX + 1, SID, out) == 0, "there is none for ids that are too long or empty");
	ok(sa_name_session("", "t", 1, "x", out) == 0 && sa_name_session("", "t", 1, SID "0", out) == 0, "nor for what is no session id");
	prefix[SA_PREFIX_MAX] = 'p';
	prefix[SA_PREFIX_MAX + 1] = '\0';
	ok(!sa_prefix_valid(prefix) && sa_name_stream(prefix, out) == 0 && out[0] == '\0', "nor with a prefix that is too long");
	ok(sa_prefix_valid("") && sa_prefix_valid("prod:") && sa_prefix_valid("a!~"), "a prefix may be empty or printable");
	ok(!sa_prefix_valid("a b") && !sa_prefix_valid("a\n") && !sa_prefix_valid("\xc3\xa9") && !sa_prefix_valid("{a") && !sa_prefix_valid("a}"),
	   "a space, control characters, other bytes and braces are refused");

	ok(sa_node_name_valid("api-1.eu_west:8600@x", 20) && sa_node_name_valid("a", 1), "names of nodes");
	memset(uid, 'n', sizeof(uid));
	ok(sa_node_name_valid(uid, 64) && !sa_node_name_valid(uid, 65) && !sa_node_name_valid("", 0) && !sa_node_name_valid("a/b", 3) &&
	   !sa_node_name_valid("a b", 3) && !sa_node_name_valid("a\0", 2) && !sa_node_name_valid("\xc3\xa9", 2), "and what is none");
}

/* No two of these tenants and users may share a key. */
static void
test_names_differ(void)
{
	static const char *const ids[] = {"a", "a:b", "a}:b", "a}", "{a", "%", "%25", "a%7D", "A", "a:b}{", ":", "}:"};
	enum
	{
		N = sizeof(ids) / sizeof(ids[0])
	};
	static char names[N * N][SA_REDIS_KEY_SIZE];
	int			equal = 0;

	for (int i = 0; i < N * N; i++)
	{
		(void) sa_name_user_epoch("", ids[i / N], strlen(ids[i / N]), ids[i % N], strlen(ids[i % N]), names[i]);
		for (int j = 0; j < i; j++)
			equal += strcmp(names[i], names[j]) == 0;
	}
	ok(equal == 0, "%d pairs of tenant and user have as many keys", N * N);
}

static void
test_numbers(void)
{
	static const int64_t written[] = {0, 1, 9, 10, 1700000000000, INT64_MAX, -1, INT64_MIN};
	int64_t		n = -7;

	ok(sa_number_parse("0", 1, &n) && n == 0 && sa_number_parse("42", 2, &n) && n == 42, "decimals are read");
	ok(sa_number_parse("9223372036854775807", 19, &n) && n == INT64_MAX, "up to 2^63 - 1");
	n = -7;
	ok(!sa_number_parse("9223372036854775808", 19, &n) && !sa_number_parse("9223372036854775810", 19, &n) &&
	   !sa_number_parse("10000000000000000000", 20, &n) && !sa_number_parse("99999999999999999999999999", 26, &n), "and not beyond");
	ok(!sa_number_parse("", 0, &n) && !sa_number_parse("00", 2, &n) && !sa_number_parse("01", 2, &n) && !sa_number_parse("-1", 2, &n) &&
	   !sa_number_parse("+1", 2, &n) && !sa_number_parse(" 1", 2, &n) && !sa_number_parse("1 ", 2, &n) && !sa_number_parse("1\0", 2, &n) &&
	   !sa_number_parse("1e3", 3, &n) && !sa_number_parse("0x1", 3, &n) && !sa_number_parse("1.0", 3, &n), "nothing else is a number");
	ok(n == -7, "and nothing else is stored");
	for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
	{
		char		text[SA_NUMBER_SIZE];
		char		right[SA_NUMBER_SIZE];
		size_t		len = sa_number_write(written[i], text);

		snprintf(right, sizeof(right), "%lld", (long long) written[i]);
		is_text(text, right, "a number is written");
		ok(len == strlen(right), "as long as it is");
	}
}

static void
test_key_macs(void)
{
	char		m[SA_MAC_TEXT_LEN + 1];
	char		m2[SA_MAC_TEXT_LEN + 1];

	ok(sa_epoch_mac(link_key, "user_epoch:{a%3Ab%7D%7B}:%25", 42, m), "an epoch has a MAC");
	is_text(m, "P-Zi5R4rlx4X3OLo6Nxb9HNz4rPXtN6Ca6WeGwdt_x8", "as Python computes it");
	ok(sa_session_mac(link_key, "session:{a%3Ab%7D%7B}:" SID, "%", 1, 77, 78, 1700000300, "active", 2, m), "a session has a MAC");
	is_text(m, "xogK5QBzhs45kQYwvcaYzC5BlsOP8avtGk5O3c_VZAI", "as Python computes it");
	ok(sa_session_mac(link_key, "session:{a%3Ab%7D%7B}:" SID, "%", 1, 77, 78, 1700000300, "revoked", 2, m2) && strcmp(m, m2) != 0,
	   "and another one when it is revoked");
	ok(!sa_epoch_mac(link_key, "k", -1, m) && !sa_session_mac(link_key, "k", "u", 1, 1, -1, 1, "active", 1, m), "negative numbers have none");
}

static SaEntry
revocation(SaKind kind)
{
	SaEntry		e;

	memset(&e, 0, sizeof(e));
	strcpy(e.g, G);
	e.kind = kind;
	e.at = 1700000000123;
	e.until = 1700000300000;
	strcpy(e.tid, "a:b}{");
	switch (kind)
	{
		case SA_KIND_SESSION:
			e.n = 3;
			e.eid = 99;
			strcpy(e.uid, "%");
			strcpy(e.sid, SID);
			break;
		case SA_KIND_USER:
			e.n = 4;
			e.eid = 100;
			e.epoch = 77;
			strcpy(e.uid, "%");
			break;
		case SA_KIND_TENANT:
			e.n = 5;
			e.eid = 101;
			e.epoch = 78;
			break;
		case SA_KIND_KEY:
			e.n = 6;
			e.eid = 102;
			memset(e.tid, 0, sizeof(e.tid));
			strcpy(e.kid, "old-key");
			break;
		case SA_KIND_BEAT:
			memset(&e, 0, sizeof(e));
			strcpy(e.g, G);
			e.kind = kind;
			e.n = 6;
			e.b = 9;
			e.low = 2;
			e.at = 1700000000456;
			break;
	}
	return e;
}

/* With the key as it is and prepared: both must say the same. */
static bool
read_from(const char *stream, const SaField *args, size_t nargs, SaEntry *out)
{
	SaEntry		with;
	bool		is_read = sa_entry_read(link_key, stream, args, nargs, out);
	SaMacKey   *prepared = sa_mac_key_new(link_key);

	if (prepared == NULL || sa_entry_read_with(prepared, stream, args, nargs, &with) != is_read ||
		(is_read && memcmp(&with, out, sizeof(with)) != 0))
		ok(false, "a prepared key reads the same");
	sa_mac_key_free(prepared);
	return is_read;
}

static bool
reads(const SaField *args, size_t nargs)
{
	SaEntry		out;

	return read_from(STREAM, args, nargs, &out);
}

/* Every change of every byte of names and values, every cut, every field missing, doubled, swapped. */
static void
test_key_values(void)
{
	const char *key = "session:{acme}:" SID;
	char		m[SA_MAC_TEXT_LEN + 1];
	char		em[SA_MAC_TEXT_LEN + 1];
	SaSessionValue read;
	int64_t		epoch;

	(void) sa_session_mac(link_key, key, "alice", 5, 77, 78, 1700000300, "revoked", 2, m);
	(void) sa_epoch_mac(link_key, "tenant_epoch:{acme}", 42, em);
	{
		SaField		session[] = {SA_FIELD_STR("uid"), SA_FIELD_STR("alice"), SA_FIELD_STR("epoch"), SA_FIELD_STR("77"), SA_FIELD_STR("tepoch"), SA_FIELD_STR("78"),
			SA_FIELD_STR("exp"), SA_FIELD_STR("1700000300"), SA_FIELD_STR("v"), SA_FIELD_STR("2"), SA_FIELD_STR("state"), SA_FIELD_STR("revoked"),
			SA_FIELD_STR("m"), SA_FIELD_STR(m), SA_FIELD_STR("x"), SA_FIELD_STR("y")};
		SaField		tenant[] = {SA_FIELD_STR("m"), SA_FIELD_STR(em), SA_FIELD_STR("epoch"), SA_FIELD_STR("42")};

		ok(sa_session_read(link_key, key, session, 14, &read) && strcmp(read.uid, "alice") == 0 && read.epoch == 77 && read.tepoch == 78 &&
		   read.exp == 1700000300 && read.version == 2 && !read.live, "a session's value is read, in any order of fields");
		ok(!sa_session_read(link_key, key, session, 16, &read), "not with a field more");
		ok(!sa_session_read(link_key, key, session, 12, &read) && !sa_session_read(link_key, key, session, 13, &read) &&
		   !sa_session_read(link_key, key, session, 0, &read), "nor with fewer");
		ok(!sa_session_read(link_key, "session:{acme}:" G, session, 14, &read), "nor under another name");
		session[11] = SA_FIELD_STR("active");
		ok(!sa_session_read(link_key, key, session, 14, &read), "nor with another state");
		session[11] = SA_FIELD_STR("");
		ok(!sa_session_read(link_key, key, session, 14, &read), "or none");
		session[11] = SA_FIELD_STR("revoked");
		session[3] = SA_FIELD_STR("077");
		ok(!sa_session_read(link_key, key, session, 14, &read), "nor with a number that is not canonical");
		session[3] = SA_FIELD_STR("77");
		session[2] = SA_FIELD_STR("tepoch");
		ok(!sa_session_read(link_key, key, session, 14, &read), "nor with a field twice");

		ok(sa_epoch_read(link_key, "tenant_epoch:{acme}", tenant, 4, &epoch) && epoch == 42, "an epoch's value is read");
		ok(!sa_epoch_read(link_key, "tenant_epoch:{acm}", tenant, 4, &epoch), "not under another name");
		tenant[3] = SA_FIELD_STR("43");
		ok(!sa_epoch_read(link_key, "tenant_epoch:{acme}", tenant, 4, &epoch), "nor changed");
		tenant[3] = SA_FIELD_STR("42");
		em[0] ^= 1;
		ok(!sa_epoch_read(link_key, "tenant_epoch:{acme}", tenant, 4, &epoch), "nor with another MAC");
		tenant[1] = SA_FIELD("", 0);
		ok(!sa_epoch_read(link_key, "tenant_epoch:{acme}", tenant, 4, &epoch), "nor without one");
	}
}

static void
test_hostile_entry(const char *name, const SaField *args, size_t nargs)
{
	SaField		bent[SA_ENTRY_ARGS + 2];
	int			accepted = 0;

	for (size_t i = 0; i < nargs; i++)
	{
		size_t		len = args[i].len;
		unsigned char *copy = malloc(len + 1);

		memcpy(bent, args, sizeof(SaField) * nargs);
		bent[i].data = copy;
		for (size_t at = 0; at < len; at++)
		{
			for (int c = 0; c < 256; c++)
			{
				memcpy(copy, args[i].data, len);
				if (copy[at] == c)
					continue;
				copy[at] = (unsigned char) c;
				accepted += reads(bent, nargs);
			}
		}
		memcpy(copy, args[i].data, len);
		copy[len] = '0';
		for (size_t shorter = 0; shorter < len; shorter++)
		{
			bent[i].len = shorter;
			accepted += reads(bent, nargs);
		}
		bent[i].len = len + 1;
		accepted += reads(bent, nargs);
		copy[len] = '\0';
		accepted += reads(bent, nargs);
		free(copy);
	}
	ok(accepted == 0, "%s: no byte of it can be changed, cut off or added", name);

	for (size_t i = 0; i < nargs; i += 2)
	{
		/* missing */
		memcpy(bent, args, sizeof(SaField) * nargs);
		memmove(bent + i, bent + i + 2, sizeof(SaField) * (nargs - i - 2));
		accepted += reads(bent, nargs - 2);
		/* doubled in place of another, and in addition */
		for (size_t j = 0; j < nargs; j += 2)
		{
			memcpy(bent, args, sizeof(SaField) * nargs);
			if (i == j)
				continue;
			bent[j] = bent[i];
			bent[j + 1] = bent[i + 1];
			accepted += reads(bent, nargs);
			/* values exchanged */
			memcpy(bent, args, sizeof(SaField) * nargs);
			bent[i + 1] = args[j + 1];
			bent[j + 1] = args[i + 1];
			if (args[i + 1].len != args[j + 1].len || memcmp(args[i + 1].data, args[j + 1].data, args[i + 1].len) != 0)
				accepted += reads(bent, nargs);
		}
		memcpy(bent, args, sizeof(SaField) * nargs);
		bent[nargs] = args[i];
		bent[nargs + 1] = args[i + 1];
		accepted += reads(bent, nargs + 2);
	}
	memcpy(bent, args, sizeof(SaField) * nargs);
	bent[nargs] = SA_FIELD_STR("x");
	bent[nargs + 1] = SA_FIELD_STR("");
	accepted += reads(bent, nargs + 2);
	bent[nargs] = SA_FIELD("", 0);
	accepted += reads(bent, nargs + 2);
	/* fields of the other kind of entry */
	bent[nargs] = nargs == SA_BEAT_FIELDS * 2 ? SA_FIELD_STR("tid") : SA_FIELD_STR("b");
	accepted += reads(bent, nargs + 2);
	for (size_t i = 0; i < nargs; i++)
		accepted += reads(args, i);
	ok(accepted == 0, "%s: no field can be missing, doubled, exchanged or added", name);
}

static void
test_entry(SaKind kind, const char *mac)
{
	const char *name = sa_kind_name(kind);
	SaEntry		e = revocation(kind);
	SaEntry		out;
	SaEntryStore store;
	SaField		args[SA_ENTRY_ARGS];
	SaField		reversed[SA_ENTRY_ARGS];
	SaKind		parsed;
	size_t		n;

	ok(sa_kind_parse(name, strlen(name), &parsed) && parsed == kind && !sa_kind_parse(name, strlen(name) - 1, &parsed) &&
	   !sa_kind_parse(name, strlen(name) + 1, &parsed), "%s: its name is parsed", name);
	n = sa_entry_args(link_key, STREAM, &e, &store, args);
	if (!ok(n == (size_t) (kind == SA_KIND_BEAT ? SA_BEAT_FIELDS : SA_ENTRY_FIELDS) * 2, "%s: it is written", name))
		return;
	ok(args[n - 1].len == SA_MAC_TEXT_LEN && args[n - 2].len == 1 && memcmp(args[0].data, "g", 1) == 0, "%s: g first, MAC last", name);
	is_text((const char *) args[n - 1].data, mac, "%s: its MAC is as Python computes it", name);
	memset(&out, 0x55, sizeof(out));
	ok(read_from(STREAM, args, n, &out) && memcmp(&out, &e, sizeof(e)) == 0, "%s: it comes back", name);
	for (size_t i = 0; i < n; i += 2)
	{
		reversed[i] = args[n - 2 - i];
		reversed[i + 1] = args[n - 1 - i];
	}
	ok(read_from(STREAM, reversed, n, &out) && memcmp(&out, &e, sizeof(e)) == 0, "%s: in any order of fields", name);

	ok(!read_from("sessauth:revocations", args, n, &out), "%s: not from another stream", name);
	link_key[0] ^= 1;
	ok(!reads(args, n), "%s: not under another key", name);
	link_key[0] ^= 1;
	test_hostile_entry(name, args, n);
}

static size_t
written(const SaEntry *e)
{
	SaEntryStore store;
	SaField		args[SA_ENTRY_ARGS];

	return sa_entry_args(link_key, STREAM, e, &store, args);
}

/* The writer refuses what the protocol does not have; the reader shares the check. */
static void
test_entry_rules(void)
{
	SaEntry		e;

#define no_entry(kind, change, name) \
	do { e = revocation(kind); change; ok(written(&e) == 0, "there is no %s", name); } while (0)

	no_entry(SA_KIND_SESSION, e.n = 0, "revocation 0");
	no_entry(SA_KIND_SESSION, e.n = -1, "negative number");
	no_entry(SA_KIND_SESSION, e.g[0] = '\0', "entry without a generation");
	no_entry(SA_KIND_SESSION, e.g[0] = 'X', "generation that is no UUID");
	no_entry(SA_KIND_SESSION, e.sid[0] = '\0', "session entry without a session");
	no_entry(SA_KIND_SESSION, e.uid[0] = '\0', "session entry without a user");
	no_entry(SA_KIND_SESSION, e.epoch = 1, "session entry with an epoch");
	no_entry(SA_KIND_SESSION, strcpy(e.kid, "k"), "session entry with a key");
	no_entry(SA_KIND_USER, strcpy(e.sid, SID), "user entry with a session");
	no_entry(SA_KIND_USER, e.tid[0] = '\0', "user entry without a tenant");
	no_entry(SA_KIND_USER, strcpy(e.uid, "a\nb"), "user with a line break");
	no_entry(SA_KIND_USER, strcpy(e.uid, "\xff"), "user that is not UTF-8");
	no_entry(SA_KIND_USER, e.epoch = -1, "negative epoch");
	no_entry(SA_KIND_TENANT, strcpy(e.uid, "u"), "tenant entry with a user");
	no_entry(SA_KIND_KEY, e.kid[0] = '\0', "key entry without a key");
	no_entry(SA_KIND_KEY, strcpy(e.tid, "t"), "key entry with a tenant");
	no_entry(SA_KIND_KEY, e.at = -1, "negative time");
	no_entry(SA_KIND_KEY, e.until = -1, "negative until");
	no_entry(SA_KIND_KEY, e.eid = -1, "negative event");
	no_entry(SA_KIND_BEAT, e.low = 0, "beat that needs number 0");
	no_entry(SA_KIND_BEAT, e.low = e.n + 2, "beat that needs more than the next number");
	no_entry(SA_KIND_BEAT, e.b = -1, "beat with a negative count");

	e = revocation(SA_KIND_BEAT);
	e.n = 0;
	e.low = 1;
	ok(written(&e) > 0, "a beat of an empty generation needs nothing");
	e.n = INT64_MAX;
	e.low = INT64_MAX;
	ok(written(&e) > 0, "the last beat of all does not overflow");

	/* Genuine MACs over what the writer would refuse: the reader must not rely on the MAC alone. */
	{
		const char *numbers[] = {"03", "+3", "", "9223372036854775808", "0"};

		for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		{
			const char *values[] = {G, numbers[i], "session", "t", "u", SID, "", "0", "1", "2", "3"};
			const char *names[] = {"g", "n", "k", "tid", "uid", "sid", "kid", "epoch", "eid", "at", "until", "m"};
			SaField		framed[13];
			SaField		args[SA_ENTRY_ARGS];
			char		m[SA_MAC_TEXT_LEN + 1];
			SaEntry		out;

			for (int good = 0; good < 2; good++)
			{
				if (good)
					values[1] = "3";
				framed[0] = SA_FIELD_STR("sessauth/1/entry");
				framed[1] = SA_FIELD_STR(STREAM);
				for (size_t f = 0; f < 11; f++)
				{
					framed[f + 2] = SA_FIELD_STR(values[f]);
					args[f * 2] = SA_FIELD_STR(names[f]);
					args[f * 2 + 1] = framed[f + 2];
				}
				(void) sa_mac_text(link_key, framed, 13, m);
				args[22] = SA_FIELD_STR("m");
				args[23] = SA_FIELD_STR(m);
				ok(read_from(STREAM, args, 24, &out) == (good == 1), "an authentic entry with n = '%s' is %s", values[1],
				   good ? "read" : "refused");
			}
		}
	}
}

static void
test_lease(void)
{
	SaNonce		nonce;
	SaNonce		nonce_out;
	SaAnswer	answer;
	SaAnswer	answer_out;
	char		line[SA_LINE_SIZE];
	char		bent[SA_LINE_SIZE + 1];
	size_t		n;
	size_t		nodelen = strlen(NODE);
	int			accepted = 0;

	memset(&nonce, 0, sizeof(nonce));
	strcpy(nonce.nonce, NONCE);
	nonce.max_staleness = 5000;
	n = sa_nonce_write(link_key, "sessauth:nodes", NODE, &nonce, line);
	is_text(line, NONCE " 5000 - 0 K0J7aagfPvSJGp0sXszQzB9Ia4VJ-Hck56gxkrIM0IM", "a first nonce");
	ok(n == strlen(line) && sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, line, n, &nonce_out) &&
	   memcmp(&nonce, &nonce_out, sizeof(nonce)) == 0, "comes back");
	strcpy(nonce.g, G);
	nonce.n = 6;
	n = sa_nonce_write(link_key, "sessauth:nodes", NODE, &nonce, line);
	is_text(line, NONCE " 5000 " G " 6 41UXEnrkWT5N6xt68tdKhonKm28f7470CAPZUps_oqw", "a later nonce");
	ok(n == strlen(line) && sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, line, n, &nonce_out) &&
	   memcmp(&nonce, &nonce_out, sizeof(nonce)) == 0, "comes back");
	for (size_t i = 0; i < n; i++)
	{
		for (int c = 0; c < 256; c++)
		{
			memcpy(bent, line, n);
			if (bent[i] == (char) c)
				continue;
			bent[i] = (char) c;
			accepted += sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, bent, n, &nonce_out);
		}
		accepted += sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, line, i, &nonce_out);
		/* a space more */
		memcpy(bent, line, i);
		bent[i] = ' ';
		memcpy(bent + i + 1, line + i, n - i);
		accepted += sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, bent, n + 1, &nonce_out);
	}
	memcpy(bent, line, n);
	bent[n] = ' ';
	accepted += sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, bent, n + 1, &nonce_out);
	bent[n] = '\0';
	accepted += sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, bent, n + 1, &nonce_out);
	ok(accepted == 0, "no byte of a nonce can be changed, cut off or added");
	ok(!sa_nonce_read(link_key, "sessauth:answers", NODE, nodelen, line, n, &nonce_out), "its place is part of it");
	ok(!sa_nonce_read(link_key, "sessauth:nodes", "api-2:8600/00112233445566778899aabbccddeeff", nodelen, line, n, &nonce_out),
	   "another node cannot use it");
	ok(!sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen - 1, line, n, &nonce_out) &&
	   !sa_nonce_read(link_key, "sessauth:nodes", "", 0, line, n, &nonce_out), "nor can what is no node");
	link_key[31] ^= 1;
	ok(!sa_nonce_read(link_key, "sessauth:nodes", NODE, nodelen, line, n, &nonce_out), "nor can who has another key");
	link_key[31] ^= 1;

	memset(&answer, 0, sizeof(answer));
	strcpy(answer.nonce, NONCE);
	strcpy(answer.g, G);
	answer.n = 6;
	answer.low = 2;
	answer.b = 9;
	answer.at = 1700000000456;
	n = sa_answer_write(link_key, "sessauth:answers", NODE, &answer, line);
	is_text(line, NONCE " " G " 6 2 9 1700000000456 6SP_zB-Ok2k4ljxXvdQK_NFsl42WOTcJ2hsQ1bWhJAU", "an answer");
	ok(n == strlen(line) && sa_answer_read(link_key, "sessauth:answers", NODE, line, n, &answer_out) &&
	   memcmp(&answer, &answer_out, sizeof(answer)) == 0, "comes back");
	for (size_t i = 0; i < n; i++)
	{
		for (int c = 0; c < 256; c++)
		{
			memcpy(bent, line, n);
			if (bent[i] == (char) c)
				continue;
			bent[i] = (char) c;
			accepted += sa_answer_read(link_key, "sessauth:answers", NODE, bent, n, &answer_out);
		}
		accepted += sa_answer_read(link_key, "sessauth:answers", NODE, line, i, &answer_out);
		memcpy(bent, line, i);
		bent[i] = ' ';
		memcpy(bent + i + 1, line + i, n - i);
		accepted += sa_answer_read(link_key, "sessauth:answers", NODE, bent, n + 1, &answer_out);
	}
	ok(accepted == 0, "no byte of an answer can be changed, cut off or added");
	ok(!sa_answer_read(link_key, "sessauth:answers", "api-1:8600/00112233445566778899aabbccddeefe", line, n, &answer_out),
	   "another process of the node cannot use it");
	ok(!sa_answer_read(link_key, "xsessauth:answers", NODE, line, n, &answer_out), "its place is part of it");
	ok(!sa_nonce_read(link_key, "sessauth:answers", NODE, nodelen, line, n, &nonce_out), "an answer is no nonce");
	memset(bent, 'a', sizeof(bent));
	ok(!sa_answer_read(link_key, "sessauth:answers", NODE, bent, sizeof(bent), &answer_out) &&
	   !sa_answer_read(link_key, "sessauth:answers", NODE, "", 0, &answer_out) &&
	   !sa_answer_read(link_key, "sessauth:answers", NODE, "      ", 6, &answer_out), "a long, an empty and a blank line are refused");

	answer.low = 8;
	ok(sa_answer_write(link_key, "sessauth:answers", NODE, &answer, line) == 0 && line[0] == '\0', "low is at most n + 1");
	answer.low = 7;
	ok(sa_answer_write(link_key, "sessauth:answers", NODE, &answer, line) > 0, "n + 1 means that nothing is needed");
	answer.nonce[0] = 'F';
	ok(sa_answer_write(link_key, "sessauth:answers", NODE, &answer, line) == 0, "a nonce is lower-case hex");
	ok(sa_nonce_write(link_key, "sessauth:nodes", "api-1:8600", &nonce, line) == 0 &&
	   sa_nonce_write(link_key, "sessauth:nodes", "/00112233445566778899aabbccddeeff", &nonce, line) == 0 &&
	   sa_nonce_write(link_key, "sessauth:nodes", "a b/00112233445566778899aabbccddeeff", &nonce, line) == 0 &&
	   sa_nonce_write(link_key, "sessauth:nodes", "a/00112233445566778899AABBCCDDEEFF", &nonce, line) == 0, "a node is a name and an incarnation");
	nonce.max_staleness = 0;
	ok(sa_nonce_write(link_key, "sessauth:nodes", NODE, &nonce, line) == 0, "a lease of no time is none");
	nonce.max_staleness = 1;
	nonce.g[0] = '\0';
	ok(sa_nonce_write(link_key, "sessauth:nodes", NODE, &nonce, line) == 0, "without a generation there is no number");
	strcpy(nonce.g, G2);
	nonce.n = INT64_MAX;
	nonce.max_staleness = INT64_MAX;
	ok(sa_nonce_write(link_key, "sessauth:nodes", NODE, &nonce, line) > 0, "the largest numbers fit in a line");
}

static void
test_pages(void)
{
	static const SaKind kinds[] = {SA_KIND_SESSION, SA_KIND_USER, SA_KIND_TENANT, SA_KIND_KEY};
	static const char body_of_user[] = "\0\0\0\4user\0\0\0\5a:b}{\0\0\0\1%\0\0\0\0\0\0\0\0\0\0\0\00277\0\0\0\003100"
		"\0\0\0\r1700000000123\0\0\0\r1700000300000";
	char		body[4 * SA_PAGE_ENTRY_MAX];
	char		m[SA_MAC_TEXT_LEN + 1];
	SaMacKey   *prepared = sa_mac_key_new(link_key);
	SaEntry		longest = revocation(SA_KIND_USER);
	SaEntry		out;
	const char *at = body;
	size_t		n = 0;
	int			same = 0;
	int			accepted = 0;

	for (int i = 0; i < 4; i++)
	{
		SaEntry		e = revocation(kinds[i]);

		n += sa_page_put(&e, body + n);
	}
	for (int i = 0; i < 4; i++)
	{
		SaEntry		e = revocation(kinds[i]);

		memset(e.g, 0, sizeof(e.g));
		e.n = 0;
		same += sa_page_take(&at, body + n, &out) && memcmp(&e, &out, sizeof(e)) == 0;
	}
	ok(same == 4 && at == body + n && !sa_page_take(&at, body + n, &out), "what is put into a page comes out of it, and then no more");
	at = body;
	for (size_t len = 0; len < sizeof(body_of_user) - 1; len++, at = body)
	{
		memcpy(body, body_of_user, len);
		accepted += sa_page_take(&at, body + len, &out);
	}
	ok(accepted == 0, "no piece of an entry is one");
	longest.n = longest.epoch = longest.eid = longest.at = longest.until = INT64_MAX;
	memset(longest.tid, 't', SA_TENANT_ID_MAX);
	memset(longest.uid, 'u', SA_USER_ID_MAX);
	n = sa_page_put(&longest, body);
	at = body;
	ok(n > 0 && n <= SA_PAGE_ENTRY_MAX && sa_page_take(&at, body + n, &out) && strlen(out.uid) == SA_USER_ID_MAX, "the longest fits");
	memcpy(body, body_of_user, sizeof(body_of_user));
	n = sizeof(body_of_user) - 1;
	at = body;
	longest = revocation(SA_KIND_USER);
	ok(sa_page_take(&at, body + n, &out) && at == body + n && out.epoch == 77 && out.eid == 100, "an entry of the protocol's page is read");
	ok(sa_page_put(&longest, body) == n && memcmp(body, body_of_user, n) == 0, "and written");
	longest.kind = SA_KIND_BEAT;
	ok(sa_page_put(&longest, body) == 0, "a beat is in no page");

	ok(sa_page_mac(link_key, "sessauth:page:" G ":1", body_of_user, n, m) &&
	   sa_page_authentic(prepared, "sessauth:page:" G ":1", body_of_user, n, m, strlen(m)), "a page has a MAC");
	ok(!sa_page_authentic(prepared, "sessauth:page:" G ":1001", body_of_user, n, m, strlen(m)) &&
	   !sa_page_authentic(prepared, "sessauth:page:" G ":1", body_of_user, n - 1, m, strlen(m)) &&
	   !sa_page_authentic(prepared, "sessauth:page:" G ":1", body_of_user, n, m, strlen(m) - 1), "for its place and all of its bytes");
	m[0] = m[0] == 'A' ? 'B' : 'A';
	ok(!sa_page_authentic(prepared, "sessauth:page:" G ":1", body_of_user, n, m, strlen(m)), "and no other one");
	sa_mac_key_free(prepared);
}

int
main(void)
{
	for (int i = 0; i < SA_KEY_LEN; i++)
		link_key[i] = (unsigned char) i;
	test_names();
	test_key_values();
	test_names_differ();
	test_numbers();
	test_key_macs();
	test_entry(SA_KIND_SESSION, "NIYs5dZr3pZN7rxm0-nlm0xN4XEgWEhVw9PPre5wniE");
	test_entry(SA_KIND_USER, "VTVuH0bFlyodvYIDSH2sR-TEPa05cOvxiSYGMxVaM_4");
	test_entry(SA_KIND_TENANT, "zJidyzCBB9L6cWbB9ZLepFEllM2gopGZHvM-u1wQ9MU");
	test_entry(SA_KIND_KEY, "dAY_jd0yvX2LsMMHgwYawyA6WpiVQEnyXodimP-cEOk");
	test_entry(SA_KIND_BEAT, "nYtmgqLQARw7UQfi14N88XnsN6FC4Nm66FVkvQyNfpA");
	test_entry_rules();
	test_pages();
	test_lease();
	return tap_done();
}

/*
 * test_json.c
 *		The JSON reader: it must agree with jansson on every text, and read the same out of it.
 *
 * jansson is used here only. The texts are a few seeds bent at random, always the same
 * way: a failure can be repeated.
 */
#include <stdlib.h>

#include <jansson.h>

#include "core/json.h"
#include "tap.h"

#define ROUNDS	200000

static const char *const seeds[] = {
	"{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"ec\"}",
	" { \"a\" : [ 1 , -2.5e+3 , true , false , null , \"x\\n\\u00e9\\ud83d\\ude00\\\"\\\\\" ] , \"b\" : { \"c\" : { } , \"\" : [ ] } } ",
	"{\"a\":1,\"b\":2,\"\\u0061b\":3,\"ab\\u0000\":4}",
	"[0,-0,0.0,1e5,10,123456789,-9223372036854775808,9223372036854775807]",
	"{\"J\xc3\xbcrgen\":\"\xe2\x82\xac\xf0\x9f\x98\x80\",\"J\\u00fcrgen2\":[[[[]]]]}",
	"\"text\"", "12", "{\"a\":{\"a\":{\"a\":{\"b\":1,\"a\":2}}}}"
};

static uint64_t state = 88172645463325252u;

static unsigned
roll(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned) (state >> 33) % n;
}

static size_t
bend(const char *seed, char *out)
{
	static const char alphabet[] = "{}[]\",:\\u0d8e1.-+EntT/ \t\n\x7f\x80\xc3\xff\x01";
	size_t		len = strlen(seed);

	memcpy(out, seed, len);
	for (unsigned i = roll(4); i > 0; i--)
	{
		size_t		at = roll((unsigned) len + 1);
		char		c = alphabet[roll(sizeof(alphabet))];

		switch (roll(4))
		{
			case 0:				/* replace */
				if (at < len)
					out[at] = c;
				break;
			case 1:				/* insert */
				memmove(out + at + 1, out + at, len - at);
				out[at] = c;
				len++;
				break;
			case 2:				/* delete */
				if (at < len)
				{
					memmove(out + at, out + at + 1, len - at - 1);
					len--;
				}
				break;
			default:			/* repeat a piece */
				{
					size_t		n = roll(12);

					if (at + n <= len && len + n < 400)
					{
						memmove(out + at + n, out + at, len - at);
						len += n;
					}
				}
		}
	}
	return len;
}

/* Compares a value with jansson's, all the way down. */
static bool
same(SaJson value, const json_t *want)
{
	char		text[512];
	int64_t		number;
	size_t		n;
	SaJson		name;
	SaJson		item;
	size_t		count = 0;

	switch (json_typeof(want))
	{
		case JSON_OBJECT:
			if (!sa_json_is_object(value))
				return false;
			for (SaJson rest = value; sa_json_next(&rest, &name, &item); count++)
			{
				const json_t *member;
				SaJson		found;

				if (!sa_json_string(name, text, sizeof(text), &n) || strlen(text) != n)
					return false;
				member = json_object_get(want, text);
				if (member == NULL || !same(item, member) || !sa_json_equals(name, text) ||
					!sa_json_member(value, text, &found) || found.at != item.at || found.len != item.len)
					return false;
			}
			return count == json_object_size(want);
		case JSON_ARRAY:
			if (!sa_json_is_array(value))
				return false;
			for (SaJson rest = value; sa_json_next(&rest, NULL, &item); count++)
			{
				if (count >= json_array_size(want) || !same(item, json_array_get(want, count)))
					return false;
			}
			return count == json_array_size(want);
		case JSON_STRING:
			return sa_json_string(value, text, sizeof(text), &n) && n == json_string_length(want) &&
				memcmp(text, json_string_value(want), n) == 0 && sa_json_equals(value, text) &&
				!sa_json_string(value, text, n, &n);
		case JSON_INTEGER:
			return sa_json_integer(value, &number) && number == json_integer_value(want) && !sa_json_is_string(value);
		default:
			return !sa_json_integer(value, &number) && !sa_json_string(value, text, sizeof(text), &n) && value.len > 0 &&
				value.at[value.len - 1] > ' ' && value.at[value.len - 1] != ',';
	}
}

static void
test_against_jansson(void)
{
	int			accepted = 0;
	int			differ = 0;
	int			wrong = 0;

	for (int i = 0; i < ROUNDS; i++)
	{
		char		out[600];
		size_t		len = bend(seeds[roll(sizeof(seeds) / sizeof(seeds[0]))], out);
		char	   *exact = malloc(len + (len == 0));
		json_error_t error;
		json_t	   *want;
		SaJson		value;
		SaJsonResult result;

		memcpy(exact, out, len);
		want = json_loadb(exact, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
		result = sa_json_check(exact, len, SA_JSON_NAMES_MAX, &value);
		accepted += result == SA_JSON_OK;

		/* jansson overlooks a NUL after a number. */
		if (memchr(exact, '\0', len) != NULL)
		{
			json_decref(want);
			want = NULL;
		}
		/* Numbers of any size are kept as they are. */
		else if (want == NULL && json_error_code(&error) == json_error_numeric_overflow)
			result = SA_JSON_INVALID;
		if ((want != NULL) != (result == SA_JSON_OK) ||
			(want == NULL && json_error_code(&error) == json_error_duplicate_key) != (result == SA_JSON_DUPLICATE))
		{
			/* Whichever error comes first may be named. */
			if (want != NULL || result == SA_JSON_OK)
			{
				if (differ++ < 5)
					printf("# %s, we say %d: %.*s\n", want ? "valid" : error.text, result, (int) len, exact);
			}
		}
		else if (want != NULL && !same(value, want))
		{
			if (wrong++ < 5)
				printf("# read differently: %.*s\n", (int) len, exact);
		}
		json_decref(want);
		free(exact);
	}
	ok(differ == 0, "of %d texts, the same %d are JSON to us and to jansson", ROUNDS, accepted);
	ok(wrong == 0, "and say the same");
	ok(accepted > ROUNDS / 20 && accepted < ROUNDS / 20 * 19, "the texts are neither all good nor all bad");
}

static SaJsonResult
check(const char *text, size_t names)
{
	SaJson		value;

	return sa_json_check(text, strlen(text), names, &value);
}

static void
test_bounds(void)
{
	char		text[20000];
	size_t		n;
	int64_t		number;

	ok(check("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}", 3) == SA_JSON_OK, "names count while their object is open");
	ok(check("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}", 2) == SA_JSON_TOO_MANY, "and no more than allowed");
	n = (size_t) sprintf(text, "{");
	for (int i = 0; i < 513; i++)
	{
		n += (size_t) sprintf(text + n, "%s\"%d\":0", i ? "," : "", i);
		if (i == 511)
		{
			strcpy(text + n, "}");
			ok(check(text, 9999) == SA_JSON_OK, "512 members are read");
		}
	}
	strcpy(text + n, "}");
	ok(check(text, 9999) == SA_JSON_TOO_MANY, "513 are not, whoever asks");
	ok(check("{\"a\":1,\"\\u0061\":2}", 9) == SA_JSON_DUPLICATE && check("{\"\\u00e9\":1,\"\xc3\xa9\":2}", 9) == SA_JSON_DUPLICATE &&
	   check("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", 9) == SA_JSON_DUPLICATE && check("{\"\\/\":1,\"/\":2}", 9) == SA_JSON_DUPLICATE,
	   "a name is the same however it is escaped");
	ok(check("{\"a\":{\"a\":{}},\"b\":{\"a\":0}}", 9) == SA_JSON_OK, "and another one in another object");

	n = 0;
	for (int i = 0; i < 32; i++)
		n += (size_t) sprintf(text + n, "{\"a\":");
	memcpy(text + n, "1", 1);
	memset(text + n + 1, '}', 32);
	text[n + 33] = '\0';
	ok(check(text, 9999) == SA_JSON_OK, "32 objects within each other are read");
	memmove(text + 5, text, n + 34);
	memcpy(text, "{\"a\":", 5);
	ok(check(text, 9999) == SA_JSON_TOO_DEEP, "33 are not");

	ok(sa_json_integer((SaJson) {"-9223372036854775808", 20}, &number) && number == INT64_MIN &&
	   sa_json_integer((SaJson) {"9223372036854775807", 19}, &number) && number == INT64_MAX, "the ends of int64");
	ok(!sa_json_integer((SaJson) {"-9223372036854775809", 20}, &number) && !sa_json_integer((SaJson) {"9223372036854775808", 19}, &number) &&
	   !sa_json_integer((SaJson) {"99999999999999999999", 20}, &number), "and beyond");
}

static void
test_writer(void)
{
	char		out[100];
	SaJsonWriter writer;
	size_t		n;
	json_t	   *read;
	int			lies = 0;

	for (size_t size = 0; size <= sizeof(out); size++)
	{
		memset(out, '#', sizeof(out));
		sa_json_begin(&writer, out, size);
		sa_json_add_string(&writer, "a\"b", "x\\y\n\x01\xc3\xa9");
		sa_json_add_integer(&writer, "n", INT64_MIN);
		sa_json_add_string(&writer, "", "");
		n = sa_json_end(&writer);
		lies += n > size || (size < sizeof(out) && out[size] != '#');
	}
	ok(lies == 0, "the writer stays within its buffer");
	read = json_loadb(out, n, 0, NULL);
	ok(n > 0 && read != NULL && strcmp(json_string_value(json_object_get(read, "a\"b")), "x\\y\n\x01\xc3\xa9") == 0 &&
	   json_integer_value(json_object_get(read, "n")) == INT64_MIN && strcmp(json_string_value(json_object_get(read, "")), "") == 0,
	   "and jansson reads what it wrote");
	json_decref(read);
}

int
main(void)
{
	test_against_jansson();
	test_bounds();
	test_writer();
	return tap_done();
}

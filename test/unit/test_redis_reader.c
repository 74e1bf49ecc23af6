/*
 * test_redis_reader.c
 *		Replies cut from memory that is used again: equal to hiredis's own, however the bytes come.
 */
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "node/redis_reader.h"
#include "tap.h"

static const char stream[] =
"+OK\r\n-ERR no\r\n:42\r\n$-1\r\n*-1\r\n$0\r\n\r\n*0\r\n$5\r\na\0b\r\n\r\n"
"*1\r\n*2\r\n$6\r\nstream\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*4\r\n$1\r\ng\r\n$3\r\nabc\r\n$1\r\nn\r\n$1\r\n7\r\n"
"*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\nk\r\n$4\r\nbeat\r\n"
":-9223372036854775808\r\n";

#define REPLIES		10

static bool
same(const redisReply *a, const redisReply *b)
{
	if (a->type != b->type || a->integer != b->integer || a->len != b->len || a->elements != b->elements ||
		(a->len > 0 && memcmp(a->str, b->str, a->len) != 0))
		return false;
	for (size_t i = 0; i < a->elements; i++)
	{
		if (!same(a->element[i], b->element[i]))
			return false;
	}
	return true;
}

/* In pieces of one size; false when a reply is missing, too many, or not what hiredis makes of it. */
static bool
reads_in_pieces(RedisReader *reader, size_t size)
{
	redisReader *theirs = redisReaderCreate();
	const redisReply *reply;
	void	   *expected;
	int			count = 0;
	bool		ok = true;

	redisReaderFeed(theirs, stream, sizeof(stream) - 1);
	for (size_t at = 0; ok && at < sizeof(stream) - 1; at += size)
	{
		size_t		left = sizeof(stream) - 1 - at;

		ok = redis_reader_feed(reader, stream + at, left < size ? left : size);
		while (ok && (ok = redis_reader_next(reader, &reply)) && reply)
		{
			ok = redisReaderGetReply(theirs, &expected) == REDIS_OK && expected && same(reply, expected);
			if (ok)
				freeReplyObject(expected);
			count++;
		}
	}
	redisReaderFree(theirs);
	return ok && count == REPLIES;
}

/* A reply of many strings, larger than what is kept. */
static bool
reads_large(RedisReader *reader, int strings)
{
	char		head[32];
	char		item[2000];
	const redisReply *reply = NULL;
	bool		ok;

	ok = redis_reader_feed(reader, head, (size_t) snprintf(head, sizeof(head), "*%d\r\n", strings));
	for (int i = 0; ok && i < strings; i++)
	{
		int			len = snprintf(item, sizeof(item), "$1500\r\n%01500d\r\n", i);

		ok = redis_reader_feed(reader, item, (size_t) len) && reply == NULL && redis_reader_next(reader, &reply);
	}
	ok = ok && reply && reply->elements == (size_t) strings;
	for (int i = 0; ok && i < strings; i++)
		ok = reply->element[i]->len == 1500 && atoi(reply->element[i]->str) == i && reply->element[i]->str[1500] == '\0';
	return ok;
}

static bool
refuses(RedisReader *reader, const char *bytes)
{
	const redisReply *reply;

	return redis_reader_restart(reader) &&
		(!redis_reader_feed(reader, bytes, strlen(bytes)) || !redis_reader_next(reader, &reply));
}

int
main(void)
{
	RedisReader *reader = redis_reader_new();
	static char piece[1024 * 1024];
	const redisReply *reply;
	int			good = 0;

	for (size_t size = 1; size < sizeof(stream); size++)
		good += reads_in_pieces(reader, size);
	ok(good == (int) sizeof(stream) - 1, "%d replies, cut in every way, are what hiredis makes of them", REPLIES);
	ok(reads_large(reader, 8000) && reads_large(reader, 3) && reads_large(reader, 4000), "large and small ones in turn");

	ok(refuses(reader, "GET / HTTP/1.1\r\n"), "what is no reply is refused");
	ok(refuses(reader, "*2000000\r\n"), "more elements than anybody asks for are refused before memory is taken for them");
	ok(redis_reader_restart(reader) && reads_in_pieces(reader, 7), "after that it can be started again");

	redis_reader_restart(reader);
	memset(piece, 'x', sizeof(piece));
	ok(redis_reader_feed(reader, "$100000000\r\n", 12), "a long reply begins");
	for (good = 0; good < 100 && redis_reader_feed(reader, piece, sizeof(piece)) && redis_reader_next(reader, &reply) && reply == NULL; good++)
		;
	ok(good == 15, "it is refused when 16 MiB have come");
	redis_reader_free(reader);
	redis_reader_free(NULL);
	return tap_done();
}

/*
 * redis_reader.c
 *		Replies of Redis out of bytes. See redis_reader.h.
 *
 * The server may be anything, so a reply is bounded before memory is taken for it.
 */
#include "node/redis_reader.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_BYTES_MAX		(16 * 1024 * 1024)
#define REPLY_ELEMENTS_MAX	(1024 * 1024)	/* of one array: room for all of them is taken at once */
#define PIECE_SIZE			(256 * 1024)
#define PIECES_KEPT			16		/* for the next reply */
#define BUFFER_KEPT			(1024 * 1024)

typedef struct Piece
{
	struct Piece *next;
	size_t		size;
	size_t		used;
	alignas(max_align_t) char bytes[];
} Piece;

struct RedisReader
{
	redisReader *codec;
	size_t		reply_bytes;	/* fed since the last whole reply */
	Piece	   *first;
	Piece	   *current;		/* pieces behind it are empty */
};

static void *create_string(const redisReadTask *task, char *text, size_t len);
#if HIREDIS_MAJOR < 1
static void *create_array(const redisReadTask *task, int elements);
#else
static void *create_array(const redisReadTask *task, size_t elements);
static void *refuse_double(const redisReadTask *task, double value, char *text, size_t len);
static void *refuse_bool(const redisReadTask *task, int value);
#endif
static void *create_integer(const redisReadTask *task, long long value);
static void *create_nil(const redisReadTask *task);
static void keep_object(void *object);
static redisReply *new_reply(const redisReadTask *task, size_t more);
static void *take(RedisReader *reader, size_t size);
static Piece *next_piece(RedisReader *reader, size_t size);
static void empty(RedisReader *reader);
static void free_pieces(Piece *piece);

static redisReplyObjectFunctions functions = {
	.createString = create_string,
	.createArray = create_array,
	.createInteger = create_integer,
	.createNil = create_nil,
#if HIREDIS_MAJOR >= 1
	.createDouble = refuse_double,
	.createBool = refuse_bool,
#endif
	.freeObject = keep_object
};

RedisReader *
redis_reader_new(void)
{
	RedisReader *reader = calloc(1, sizeof(*reader));

	if (reader != NULL && redis_reader_restart(reader))
		return reader;
	redis_reader_free(reader);
	return NULL;
}

void
redis_reader_free(RedisReader *reader)
{
	if (reader == NULL)
		return;
	if (reader->codec)
		redisReaderFree(reader->codec);
	free_pieces(reader->first);
	free(reader);
}

bool
redis_reader_restart(RedisReader *reader)
{
	redisReader *codec = redisReaderCreateWithFunctions(&functions);

	if (codec == NULL)
		return false;
	if (reader->codec)
		redisReaderFree(reader->codec);
	codec->privdata = reader;
	codec->maxbuf = BUFFER_KEPT;
	reader->codec = codec;
	reader->reply_bytes = 0;
	return true;
}

bool
redis_reader_feed(RedisReader *reader, const void *bytes, size_t len)
{
	reader->reply_bytes += len;
	return reader->reply_bytes <= REPLY_BYTES_MAX && redisReaderFeed(reader->codec, bytes, len) == REDIS_OK;
}

bool
redis_reader_next(RedisReader *reader, const redisReply **reply)
{
	void	   *object = NULL;

	/* Without a begun reply, all pieces hold the one before. */
	if (reader->codec->ridx == -1)
		empty(reader);
	if (redisReaderGetReply(reader->codec, &object) != REDIS_OK)
		return false;
	if (object != NULL)
		reader->reply_bytes = 0;
	*reply = object;
	return true;
}

static void *
create_string(const redisReadTask *task, char *text, size_t len)
{
	redisReply *reply = new_reply(task, len + 1);

	if (reply == NULL)
		return NULL;
	reply->str = (char *) (reply + 1);
	memcpy(reply->str, text, len);
	reply->str[len] = '\0';
	reply->len = len;
	return reply;
}

static void *
#if HIREDIS_MAJOR < 1
create_array(const redisReadTask *task, int elements)
#else
create_array(const redisReadTask *task, size_t elements)
#endif
{
	redisReply *reply = elements <= REPLY_ELEMENTS_MAX ? new_reply(task, (size_t) elements * sizeof(redisReply *)) : NULL;

	if (reply == NULL)
		return NULL;
	reply->element = (redisReply **) (reply + 1);
	memset(reply->element, 0, (size_t) elements * sizeof(redisReply *));
	reply->elements = (size_t) elements;
	return reply;
}

static void *
create_integer(const redisReadTask *task, long long value)
{
	redisReply *reply = new_reply(task, 0);

	if (reply != NULL)
		reply->integer = value;
	return reply;
}

static void *
create_nil(const redisReadTask *task)
{
	redisReply *reply = new_reply(task, 0);

	if (reply != NULL)
		reply->type = REDIS_REPLY_NIL;	/* the task only knows what is missing */
	return reply;
}

#if HIREDIS_MAJOR >= 1
/* We speak RESP2, which has neither. */
static void *
refuse_double(const redisReadTask *task, double value, char *text, size_t len)
{
	(void) task;
	(void) value;
	(void) text;
	(void) len;
	return NULL;
}

static void *
refuse_bool(const redisReadTask *task, int value)
{
	(void) task;
	(void) value;
	return NULL;
}
#endif

static void
keep_object(void *object)
{
	(void) object;				/* it goes with the piece that it lies in */
}

/* With room behind it, and in its place in the array that it belongs to. NULL makes hiredis give up. */
static redisReply *
new_reply(const redisReadTask *task, size_t more)
{
	redisReply *reply = take(task->privdata, sizeof(*reply) + more);

	if (reply == NULL)
		return NULL;
	memset(reply, 0, sizeof(*reply));
	reply->type = task->type;
	if (task->parent)
		((redisReply *) task->parent->obj)->element[task->idx] = reply;
	return reply;
}

static void *
take(RedisReader *reader, size_t size)
{
	Piece	   *piece = reader->current;

	size = (size + alignof(max_align_t) - 1) / alignof(max_align_t) * alignof(max_align_t);
	if (piece == NULL || size > piece->size - piece->used)
		piece = next_piece(reader, size);
	if (piece == NULL)
		return NULL;
	piece->used += size;
	return piece->bytes + piece->used - size;
}

/* One with that much room: an empty one, or a new one. */
static Piece *
next_piece(RedisReader *reader, size_t size)
{
	Piece	   *last = reader->current;
	size_t		room = size > PIECE_SIZE ? size : PIECE_SIZE;
	Piece	   *piece;

	for (piece = last ? last->next : NULL; piece && size > piece->size; piece = piece->next)
		last = piece;
	if (piece == NULL)
	{
		piece = malloc(sizeof(Piece) + room);
		if (piece == NULL)
			return NULL;
		*piece = (Piece) {.size = room};
		if (last)
			last->next = piece;
		else
			reader->first = piece;
	}
	reader->current = piece;
	return piece;
}

static void
empty(RedisReader *reader)
{
	Piece	   *piece = reader->first;

	reader->current = piece;
	for (int kept = 1; piece; piece = piece->next, kept++)
	{
		piece->used = 0;
		if (kept == PIECES_KEPT || (piece->next && piece->next->size > PIECE_SIZE))
		{
			free_pieces(piece->next);
			piece->next = NULL;
		}
	}
}

static void
free_pieces(Piece *piece)
{
	while (piece)
	{
		Piece	   *next = piece->next;

		free(piece);
		piece = next;
	}
}

/*
 * redact.c
 *		Finding tokens in a text that somebody is about to log, and taking them out.
 *
 * Runs inside the server's error reporting, so it allocates nothing, cannot
 * fail, and looks at every byte a bounded number of times.
 */
#include <string.h>

#include "redact.h"
#include "refresh.h"

#define REFRESH_START	SA_REFRESH_PREFIX "A"	/* base64url of the version, which keeps "caesar_salad" out */
#define REFRESH_MIN		20		/* up to here it holds eleven bytes of the session's id, and nothing secret */
#define JWS_START		"eyJ"	/* base64url of an opening brace and quote */
#define HEADER_MIN		10		/* the shortest header, {"alg":1}, takes 12 */
#define PAYLOAD_MIN		4

typedef struct Span
{
	size_t		start;
	size_t		end;
	size_t		keep;			/* how much of its beginning may be shown */
} Span;

static bool next_token(const char *text, size_t len, size_t from, Span *span);
static size_t jws_end(const char *text, size_t len, size_t start, size_t header_end);
static size_t dotted_end(const char *text, size_t len, size_t from);
static size_t run_end(const char *text, size_t len, size_t from);
static bool starts_with(const char *text, size_t len, const char *prefix);

bool
sa_has_token(const char *text, size_t len)
{
	Span		span;

	return next_token(text, len, 0, &span);
}

size_t
sa_redact(char *text, size_t len)
{
	size_t		read = 0;
	size_t		written = 0;
	Span		span;

	while (next_token(text, len, read, &span))
	{
		size_t		kept = span.start + span.keep - read;

		memmove(text + written, text + read, kept);
		written += kept;
		memcpy(text + written, SA_REDACTED, strlen(SA_REDACTED));
		written += strlen(SA_REDACTED);
		read = span.end;
	}
	if (written != read)
		memmove(text + written, text + read, len - read);
	return written + len - read;
}

static bool
next_token(const char *text, size_t len, size_t from, Span *span)
{
	while (from < len)
	{
		size_t		end = run_end(text, len, from);

		for (; from < end; from++)
		{
			span->start = from;
			if (end - from >= REFRESH_MIN && starts_with(text + from, end - from, REFRESH_START))
			{
				span->end = starts_with(text + end, len - end, "." JWS_START) ? dotted_end(text, len, end) : end;
				span->keep = strlen(SA_REFRESH_PREFIX);
				return true;
			}
			if (starts_with(text + from, end - from, JWS_START) && (span->end = jws_end(text, len, from, end)) > 0)
			{
				span->keep = strlen(JWS_START);
				return true;
			}
		}
		from = end + 1;
	}
	return false;
}

/* Where the JWS ends whose header is text[start, header_end); 0 when it is none. A long payload is read only where there is one. */
static size_t
jws_end(const char *text, size_t len, size_t start, size_t header_end)
{
	size_t		payload = header_end + 1;
	size_t		end;

	if (header_end - start < HEADER_MIN || payload >= len || text[header_end] != '.' ||
		!starts_with(text + payload, len - payload, JWS_START))
		return 0;
	end = run_end(text, len, payload);
	if (end - payload < PAYLOAD_MIN)
		return 0;
	return dotted_end(text, len, end);
}

/* The end of all that is joined to a token by dots: whatever a second one, set right behind it, would have left over. */
static size_t
dotted_end(const char *text, size_t len, size_t from)
{
	size_t		end = from;

	while (end < len && text[end] == '.')
	{
		from = end;
		end = run_end(text, len, end + 1);
		if (end == from + 1)
			return from;
	}
	return end;
}

/* The end of the base64url characters that begin here. */
static size_t
run_end(const char *text, size_t len, size_t from)
{
	while (from < len &&
		   ((text[from] >= 'A' && text[from] <= 'Z') || (text[from] >= 'a' && text[from] <= 'z') ||
			(text[from] >= '0' && text[from] <= '9') || text[from] == '-' || text[from] == '_'))
		from++;
	return from;
}

static bool
starts_with(const char *text, size_t len, const char *prefix)
{
	size_t		n = strlen(prefix);

	return len >= n && memcmp(text, prefix, n) == 0;
}

/*
 * wire_lease.c
 *		Nonces and answers: the two lines that make a lease.
 *
 * A line is cut at single spaces into a fixed number of fields. The MAC goes
 * over the fields as they came, so a line that says the same in other bytes is refused.
 */
#include <string.h>

#include "wire.h"
#include "wire_text.h"

#define NONCE_BYTES			16
#define INCARNATION_BYTES	16

/* Fields of a line; the last one is the MAC. */
#define NONCE_FIELDS		5	/* nonce max_staleness g n m */
#define ANSWER_FIELDS		7	/* nonce g n low b at m */
#define FIELDS_MAX			ANSWER_FIELDS

#define NO_GENERATION		"-"

static size_t line_write(const unsigned char *link, const char *label, const char *key, const char *node,
						 const SaField *fields, size_t nfields, char *out);
static bool line_read(const unsigned char *link, const char *label, const char *key, const char *node, size_t nodelen,
					  const char *line, size_t len, SaField *fields, size_t nfields);
static bool line_split(const char *line, size_t len, SaField *fields, size_t nfields);
static size_t line_framed(const char *label, const char *key, const char *node, size_t nodelen,
						  const SaField *fields, size_t nfields, SaField *out);
static bool nonce_valid(const SaNonce *nonce);
static bool answer_valid(const SaAnswer *answer);
static bool field_text(const SaField *field, char *out, size_t outsize);
static bool field_number(const SaField *field, int64_t *out);

size_t
sa_nonce_write(const unsigned char link[SA_KEY_LEN], const char *nodes_key, const char *node,
			   const SaNonce *nonce, char *out)
{
	char		staleness[SA_NUMBER_SIZE];
	char		n[SA_NUMBER_SIZE];
	SaField		fields[NONCE_FIELDS - 1];

	out[0] = '\0';
	if (!nonce_valid(nonce))
		return 0;
	fields[0] = SA_FIELD_STR(nonce->nonce);
	fields[1] = SA_FIELD(staleness, sa_number_write(nonce->max_staleness, staleness));
	fields[2] = SA_FIELD_STR(nonce->g);
	if (fields[2].len == 0)
		fields[2] = SA_FIELD_STR(NO_GENERATION);
	fields[3] = SA_FIELD(n, sa_number_write(nonce->n, n));
	return line_write(link, "sessauth/1/nonce", nodes_key, node, fields, NONCE_FIELDS - 1, out);
}

bool
sa_nonce_read(const unsigned char link[SA_KEY_LEN], const char *nodes_key, const char *node, size_t nodelen,
			  const char *line, size_t len, SaNonce *out)
{
	SaField		fields[NONCE_FIELDS];
	SaNonce		nonce;

	memset(&nonce, 0, sizeof(nonce));
	if (!line_read(link, "sessauth/1/nonce", nodes_key, node, nodelen, line, len, fields, NONCE_FIELDS))
		return false;
	if (!field_text(&fields[0], nonce.nonce, sizeof(nonce.nonce)) ||
		!field_number(&fields[1], &nonce.max_staleness) ||
		!field_text(&fields[2], nonce.g, sizeof(nonce.g)) ||
		!field_number(&fields[3], &nonce.n))
		return false;
	if (strcmp(nonce.g, NO_GENERATION) == 0)
		nonce.g[0] = '\0';
	if (!nonce_valid(&nonce))
		return false;
	*out = nonce;
	return true;
}

static bool
nonce_valid(const SaNonce *nonce)
{
	return sa_hex_valid(nonce->nonce, strlen(nonce->nonce), NONCE_BYTES) &&
		nonce->max_staleness >= 1 &&
		(nonce->g[0] == '\0' ? nonce->n == 0 : nonce->n >= 0 && sa_uuid_valid(nonce->g, strlen(nonce->g)));
}

size_t
sa_answer_write(const unsigned char link[SA_KEY_LEN], const char *answers_key, const char *node,
				const SaAnswer *answer, char *out)
{
	char		numbers[4][SA_NUMBER_SIZE];
	SaField		fields[ANSWER_FIELDS - 1];

	out[0] = '\0';
	if (!answer_valid(answer))
		return 0;
	fields[0] = SA_FIELD_STR(answer->nonce);
	fields[1] = SA_FIELD_STR(answer->g);
	fields[2] = SA_FIELD(numbers[0], sa_number_write(answer->n, numbers[0]));
	fields[3] = SA_FIELD(numbers[1], sa_number_write(answer->low, numbers[1]));
	fields[4] = SA_FIELD(numbers[2], sa_number_write(answer->b, numbers[2]));
	fields[5] = SA_FIELD(numbers[3], sa_number_write(answer->at, numbers[3]));
	return line_write(link, "sessauth/1/answer", answers_key, node, fields, ANSWER_FIELDS - 1, out);
}

bool
sa_answer_read(const unsigned char link[SA_KEY_LEN], const char *answers_key, const char *node,
			   const char *line, size_t len, SaAnswer *out)
{
	SaField		fields[ANSWER_FIELDS];
	SaAnswer	answer;

	memset(&answer, 0, sizeof(answer));
	if (!line_read(link, "sessauth/1/answer", answers_key, node, strlen(node), line, len, fields, ANSWER_FIELDS))
		return false;
	if (!field_text(&fields[0], answer.nonce, sizeof(answer.nonce)) ||
		!field_text(&fields[1], answer.g, sizeof(answer.g)) ||
		!field_number(&fields[2], &answer.n) ||
		!field_number(&fields[3], &answer.low) ||
		!field_number(&fields[4], &answer.b) ||
		!field_number(&fields[5], &answer.at) ||
		!answer_valid(&answer))
		return false;
	*out = answer;
	return true;
}

static bool
answer_valid(const SaAnswer *answer)
{
	return sa_hex_valid(answer->nonce, strlen(answer->nonce), NONCE_BYTES) &&
		sa_uuid_valid(answer->g, strlen(answer->g)) &&
		answer->n >= 0 && answer->b >= 0 && answer->at >= 0 &&
		answer->low >= 1 && answer->low - 1 <= answer->n;
}

/* The fields and their MAC as a line; 0 when the node's id is not one or OpenSSL fails. */
static size_t
line_write(const unsigned char *link, const char *label, const char *key, const char *node,
		   const SaField *fields, size_t nfields, char *out)
{
	SaField		framed[FIELDS_MAX + 3];
	size_t		nodelen = strlen(node);
	size_t		n = 0;

	if (!sa_node_id_valid(node, nodelen))
		return 0;
	for (size_t i = 0; i < nfields; i++)
	{
		memcpy(out + n, fields[i].data, fields[i].len);
		n += fields[i].len;
		out[n++] = ' ';
	}
	if (!sa_mac_text(link, framed, line_framed(label, key, node, nodelen, fields, nfields, framed), out + n))
	{
		out[0] = '\0';
		return 0;
	}
	return n + SA_MAC_TEXT_LEN;
}

/* Cuts the line and checks its MAC; the caller looks at what the fields say. */
static bool
line_read(const unsigned char *link, const char *label, const char *key, const char *node, size_t nodelen,
		  const char *line, size_t len, SaField *fields, size_t nfields)
{
	SaField		framed[FIELDS_MAX + 3];

	return len < SA_LINE_SIZE &&
		sa_node_id_valid(node, nodelen) &&
		line_split(line, len, fields, nfields) &&
		sa_mac_matches(link, framed, line_framed(label, key, node, nodelen, fields, nfields - 1, framed),
					   fields[nfields - 1].data, fields[nfields - 1].len);
}

/* Exactly nfields fields, none empty, single spaces between them. */
static bool
line_split(const char *line, size_t len, SaField *fields, size_t nfields)
{
	const char *p = line;
	const char *end = line + len;

	for (size_t i = 0; i < nfields; i++)
	{
		const char *stop = i + 1 < nfields ? memchr(p, ' ', (size_t) (end - p)) : end;

		if (stop == NULL || stop == p)
			return false;
		fields[i] = SA_FIELD(p, (size_t) (stop - p));
		p = stop < end ? stop + 1 : end;
	}
	return true;
}

static size_t
line_framed(const char *label, const char *key, const char *node, size_t nodelen,
			const SaField *fields, size_t nfields, SaField *out)
{
	size_t		n = 0;

	out[n++] = SA_FIELD_STR(label);
	out[n++] = SA_FIELD_STR(key);
	out[n++] = SA_FIELD(node, nodelen);
	for (size_t i = 0; i < nfields; i++)
		out[n++] = fields[i];
	return n;
}

/* name/incarnation */
bool
sa_node_id_valid(const char *node, size_t len)
{
	const char *slash = len > 0 ? memchr(node, '/', len) : NULL;

	return slash != NULL &&
		sa_node_name_valid(node, (size_t) (slash - node)) &&
		sa_hex_valid(slash + 1, len - (size_t) (slash + 1 - node), INCARNATION_BYTES);
}

static bool
field_text(const SaField *field, char *out, size_t outsize)
{
	if (field->len >= outsize || memchr(field->data, '\0', field->len) != NULL)
		return false;
	memcpy(out, field->data, field->len);
	out[field->len] = '\0';
	return true;
}

static bool
field_number(const SaField *field, int64_t *out)
{
	return sa_number_parse(field->data, field->len, out);
}

/*
 * token.c
 *		Access tokens: the strict reader, and the writer.
 *
 * The reader goes through the token in the order in which its parts may be
 * believed: form, header, key, signature, and only then the payload. Every
 * step ends in one result and everything that was allocated is freed in one
 * place. What the writer makes, the reader accepts; both use the same checks.
 */
#include <stdlib.h>
#include <string.h>

#include "claims.h"
#include "digest.h"
#include "encoding.h"
#include "json.h"
#include "token.h"
#include "token_header.h"

/* Bytes that a part of a token can have once it is decoded. */
#define PART_MAX		(SA_TOKEN_MAX / 4 * 3)

#define JTI_LEN			16

/* The end of the year 9999: what is later is a mistake, or an attempt at an overflow. */
#define TIME_MAX		INT64_C(253402300799)

/* The three parts of a compact JWS, still encoded. */
typedef struct Parts
{
	const char *header;
	size_t		headerlen;
	const char *payload;
	size_t		payloadlen;
	const char *signature;
	size_t		signaturelen;
} Parts;

static bool split(const char *text, size_t len, Parts *parts);
static SaTokenResult read_header(const Parts *parts, SaAlg *alg, SaToken *out);
static SaTokenResult parse(const char *text, size_t len, json_t **object);
static SaTokenResult check_signature(const char *text, const Parts *parts, const SaKey *key);
static SaTokenResult read_payload(const Parts *parts, const SaTokenRules *rules, SaToken *out);
static SaTokenResult read_claims(const json_t *payload, const SaTokenRules *rules, SaToken *out);
static bool read_text(const json_t *payload, const char *name, char *out, size_t max);
static bool read_sid(const json_t *payload, char out[SA_UUID_SIZE]);
static bool read_number(const json_t *payload, const char *name, int64_t max, int64_t *out);
static bool has_text(const json_t *payload, const char *name);
static bool is_text(const json_t *payload, const char *name, const char *expected);
static SaTokenResult check_audience(const json_t *payload, const char *audience);
static SaTokenResult check_times(const SaToken *token, const SaTokenRules *rules);
static bool draft_is_sound(const SaTokenDraft *draft, const char *kid);
static bool text_fits(const char *text, size_t max);
static size_t encode_payload(const SaTokenDraft *draft, char *out, size_t outsize);

const char *
sa_token_result_name(SaTokenResult result)
{
	switch (result)
	{
		case SA_TOKEN_OK:
			return "ok";
		case SA_TOKEN_MALFORMED:
			return "malformed";
		case SA_TOKEN_UNKNOWN_KEY:
			return "unknown_key";
		case SA_TOKEN_BAD_SIGNATURE:
			return "bad_signature";
		case SA_TOKEN_WRONG_ISSUER:
			return "wrong_issuer";
		case SA_TOKEN_NOT_YET_VALID:
			return "not_yet_valid";
		case SA_TOKEN_EXPIRED:
			return "expired";
		case SA_TOKEN_ERROR:
			break;
	}
	return "error";
}

SaTokenResult
sa_token_read(const char *text, size_t len, SaKeyLookup lookup, void *arg,
			  const SaTokenRules *rules, SaToken *out)
{
	Parts		parts;
	SaAlg		alg = SA_ALG_ES256;
	const SaKey *key;
	SaTokenResult result;

	memset(out, 0, sizeof(*out));
	if (len > SA_TOKEN_MAX || !split(text, len, &parts))
		return SA_TOKEN_MALFORMED;

	result = read_header(&parts, &alg, out);
	if (result != SA_TOKEN_OK)
		return result;

	key = lookup(arg, out->kid, strlen(out->kid));
	if (key == NULL)
		return SA_TOKEN_UNKNOWN_KEY;
	if (sa_key_alg(key) != alg)
		return SA_TOKEN_MALFORMED;

	result = check_signature(text, &parts, key);
	if (result != SA_TOKEN_OK)
		return result;
	return read_payload(&parts, rules, out);
}

/* Two dots, nothing empty. The characters are left to the decoder. */
static bool
split(const char *text, size_t len, Parts *parts)
{
	const char *end = text + len;
	const char *first = len > 0 ? memchr(text, '.', len) : NULL;
	const char *second = first ? memchr(first + 1, '.', (size_t) (end - first - 1)) : NULL;

	if (second == NULL)
		return false;
	parts->header = text;
	parts->headerlen = (size_t) (first - text);
	parts->payload = first + 1;
	parts->payloadlen = (size_t) (second - first - 1);
	parts->signature = second + 1;
	parts->signaturelen = (size_t) (end - second - 1);
	return parts->headerlen > 0 && parts->payloadlen > 0 && parts->signaturelen > 0;
}

static SaTokenResult
read_header(const Parts *parts, SaAlg *alg, SaToken *out)
{
	char		text[PART_MAX];
	size_t		len;

	if (!sa_b64url_decode(parts->header, parts->headerlen, text, sizeof(text), &len))
		return SA_TOKEN_MALFORMED;
	return sa_token_header_read(text, len, alg, out->kid, sizeof(out->kid));
}

/* A text that could not be parsed for want of memory is not malformed, as far as jansson tells (see json.c). */
static SaTokenResult
parse(const char *text, size_t len, json_t **object)
{
	switch (sa_json_object(text, len, object))
	{
		case SA_JSON_OK:
			return SA_TOKEN_OK;
		case SA_JSON_NO_MEMORY:
			return SA_TOKEN_ERROR;
		default:
			return SA_TOKEN_MALFORMED;
	}
}

static SaTokenResult
check_signature(const char *text, const Parts *parts, const SaKey *key)
{
	unsigned char signature[SA_SIGNATURE_MAX];
	size_t		len;
	size_t		signed_len = (size_t) (parts->signature - 1 - text);

	if (!sa_b64url_decode(parts->signature, parts->signaturelen, signature, sizeof(signature), &len))
		return SA_TOKEN_MALFORMED;
	switch (sa_key_check(key, text, signed_len, signature, len))
	{
		case 1:
			return SA_TOKEN_OK;
		case 0:
			return SA_TOKEN_BAD_SIGNATURE;
		default:
			return SA_TOKEN_ERROR;
	}
}

static SaTokenResult
read_payload(const Parts *parts, const SaTokenRules *rules, SaToken *out)
{
	char		text[PART_MAX];
	size_t		len;
	json_t	   *payload;
	SaToken		token = *out;
	SaTokenResult result;

	if (!sa_b64url_decode(parts->payload, parts->payloadlen, text, sizeof(text), &len))
		return SA_TOKEN_MALFORMED;
	result = parse(text, len, &payload);
	if (result != SA_TOKEN_OK)
		return result;

	/* A result that fills nothing must leave nothing half filled. */
	result = read_claims(payload, rules, &token);
	if (result == SA_TOKEN_OK || result == SA_TOKEN_NOT_YET_VALID || result == SA_TOKEN_EXPIRED)
	{
		if (rules->want_claims && !sa_claims_extract(payload, &token.claims))
			result = SA_TOKEN_ERROR;
		else
			*out = token;
	}
	json_decref(payload);
	return result;
}

/* The claims that RFC 9068 and we require. */
static SaTokenResult
read_claims(const json_t *payload, const SaTokenRules *rules, SaToken *out)
{
	SaTokenResult audience;

	if (!read_text(payload, "tid", out->tid, SA_TENANT_ID_MAX) ||
		!read_text(payload, "uid", out->uid, SA_USER_ID_MAX) ||
		!read_sid(payload, out->sid) ||
		!read_number(payload, "epoch", INT64_MAX, &out->epoch) ||
		!read_number(payload, "tepoch", INT64_MAX, &out->tepoch) ||
		!read_number(payload, "iat", TIME_MAX, &out->iat) ||
		!read_number(payload, "exp", TIME_MAX, &out->exp) ||
		(json_object_get(payload, "nbf") != NULL && !read_number(payload, "nbf", TIME_MAX, &out->nbf)) ||
		!is_text(payload, "sub", out->uid) ||
		!has_text(payload, "client_id") ||
		!has_text(payload, "jti") ||
		!has_text(payload, "iss"))
		return SA_TOKEN_MALFORMED;

	audience = check_audience(payload, rules->audience);
	if (audience == SA_TOKEN_MALFORMED)
		return SA_TOKEN_MALFORMED;
	if (audience != SA_TOKEN_OK || !is_text(payload, "iss", rules->issuer))
		return SA_TOKEN_WRONG_ISSUER;
	return check_times(out, rules);
}

/* A member that is clean text of 1 to max bytes. */
static bool
read_text(const json_t *payload, const char *name, char *out, size_t max)
{
	size_t		len;
	const char *text = sa_json_string(payload, name, &len);

	if (text == NULL || len == 0 || len > max || !sa_text_is_clean(text, len))
		return false;
	memcpy(out, text, len);
	out[len] = '\0';
	return true;
}

static bool
read_sid(const json_t *payload, char out[SA_UUID_SIZE])
{
	size_t		len;
	const char *text = sa_json_string(payload, "sid", &len);
	unsigned char uuid[16];

	if (text == NULL || !sa_uuid_decode(text, len, uuid))
		return false;
	memcpy(out, text, SA_UUID_SIZE);
	return true;
}

/* A JSON integer, not a real that happens to be whole: 1e3 and 1000.0 are refused. */
static bool
read_number(const json_t *payload, const char *name, int64_t max, int64_t *out)
{
	const json_t *value = json_object_get(payload, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
		return false;
	*out = json_integer_value(value);
	return true;
}

static bool
has_text(const json_t *payload, const char *name)
{
	size_t		len;

	return sa_json_string(payload, name, &len) != NULL && len > 0;
}

static bool
is_text(const json_t *payload, const char *name, const char *expected)
{
	return sa_json_equals(json_object_get(payload, name), expected);
}

/* RFC 7519, section 4.1.3: one string, or an array of strings of which one must be ours. */
static SaTokenResult
check_audience(const json_t *payload, const char *audience)
{
	const json_t *aud = json_object_get(payload, "aud");
	SaTokenResult result = SA_TOKEN_WRONG_ISSUER;

	if (json_is_string(aud))
		return sa_json_equals(aud, audience) ? SA_TOKEN_OK : SA_TOKEN_WRONG_ISSUER;
	if (!json_is_array(aud))
		return SA_TOKEN_MALFORMED;
	for (size_t i = 0; i < json_array_size(aud); i++)
	{
		const json_t *value = json_array_get(aud, i);

		if (!json_is_string(value))
			return SA_TOKEN_MALFORMED;
		if (sa_json_equals(value, audience))
			result = SA_TOKEN_OK;
	}
	return result;
}

/* Written so that nothing can overflow: times are at most TIME_MAX, and now and leeway are not negative. */
static SaTokenResult
check_times(const SaToken *token, const SaTokenRules *rules)
{
	int64_t		leeway = rules->leeway > 0 ? rules->leeway : 0;

	if (rules->now < 0)
		return SA_TOKEN_OK;
	if (token->iat - leeway > rules->now || token->nbf - leeway > rules->now)
		return SA_TOKEN_NOT_YET_VALID;
	if (token->exp <= rules->now - leeway)
		return SA_TOKEN_EXPIRED;
	return SA_TOKEN_OK;
}

void
sa_token_free(SaToken *token)
{
	free(token->claims);
	token->claims = NULL;
}

char *
sa_token_mint(const SaKey *key, const char *kid, const SaTokenDraft *draft)
{
	unsigned char signature[SA_SIGNATURE_MAX];
	char		payload[PART_MAX];
	char		header[512];
	char	   *text;
	size_t		headerlen;
	size_t		payloadlen;
	size_t		siglen;
	size_t		len;

	if (!draft_is_sound(draft, kid))
		return NULL;
	headerlen = sa_token_header_write(sa_key_alg(key), kid, header, sizeof(header));
	payloadlen = encode_payload(draft, payload, sizeof(payload));
	if (headerlen == 0 || payloadlen == 0)
		return NULL;

	text = malloc(SA_B64URL_SIZE(sizeof(header)) + SA_B64URL_SIZE(sizeof(payload)) + SA_B64URL_SIZE(sizeof(signature)));
	if (text == NULL)
		return NULL;
	len = sa_b64url_encode(header, headerlen, text);
	text[len++] = '.';
	len += sa_b64url_encode(payload, payloadlen, text + len);
	if (sa_key_sign(key, text, len, signature, &siglen))
	{
		text[len++] = '.';
		len += sa_b64url_encode(signature, siglen, text + len);
		if (len <= SA_TOKEN_MAX)
			return text;
	}
	free(text);
	return NULL;
}

/* What the reader would refuse must not be signed. */
static bool
draft_is_sound(const SaTokenDraft *draft, const char *kid)
{
	unsigned char uuid[16];

	return text_fits(kid, sizeof(((SaToken *) NULL)->kid) - 1) &&
		text_fits(draft->tid, SA_TENANT_ID_MAX) &&
		text_fits(draft->uid, SA_USER_ID_MAX) &&
		sa_uuid_decode(draft->sid, strlen(draft->sid), uuid) &&
		draft->epoch >= 0 && draft->tepoch >= 0 &&
		draft->iat >= 0 && draft->iat <= TIME_MAX &&
		draft->exp >= 0 && draft->exp <= TIME_MAX &&
		text_fits(draft->issuer, SA_TOKEN_MAX) &&
		(draft->client_id == NULL || text_fits(draft->client_id, SA_TOKEN_MAX)) &&
		(draft->claims == NULL || sa_claims_check(draft->claims, strlen(draft->claims)) == NULL);
}

static bool
text_fits(const char *text, size_t max)
{
	size_t		len = strlen(text);

	return len > 0 && len <= max && sa_text_is_clean(text, len);
}

static size_t
encode_payload(const SaTokenDraft *draft, char *out, size_t outsize)
{
	unsigned char random[JTI_LEN];
	char		jti[SA_B64URL_SIZE(JTI_LEN)];
	json_t	   *payload;
	size_t		len = 0;

	if (!sa_random(random, sizeof(random)))
		return 0;
	(void) sa_b64url_encode(random, sizeof(random), jti);

	payload = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:I, s:I}",
						"iss", draft->issuer,
						"aud", draft->audience,
						"sub", draft->uid,
						"client_id", draft->client_id ? draft->client_id : draft->tid,
						"jti", jti,
						"iat", (json_int_t) draft->iat,
						"exp", (json_int_t) draft->exp,
						"tid", draft->tid,
						"uid", draft->uid,
						"sid", draft->sid,
						"epoch", (json_int_t) draft->epoch,
						"tepoch", (json_int_t) draft->tepoch);
	if (payload != NULL && (draft->claims == NULL || sa_claims_add(payload, draft->claims)))
		len = sa_json_dump(payload, 0, out, outsize);
	json_decref(payload);
	return len;
}

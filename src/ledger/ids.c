/*
 * ids.c
 *		Arguments and identifiers: what a tenant, user or key may be called,
 *		and new session ids.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "core/digest.h"
#include "core/encoding.h"
#include "core/token.h"
#include "ledger/ledger.h"
#include "server/clock.h"

#define UNIX_TO_PG_SECONDS	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

static char *id_arg(FunctionCallInfo fcinfo, int n, const char *name, int max);

void
require_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Pass a value; this argument is not optional.")));
}

void
require_trigger(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("a trigger function of sessauth was not called as a trigger"),
				 errhint("It works for the tables of the extension alone.")));
}

void
openssl_refused(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not %s", what),
			 errdetail("OpenSSL refused, or memory is short.")));
}

char *
tenant_id_arg(FunctionCallInfo fcinfo, int n)
{
	return id_arg(fcinfo, n, "tenant_id", SA_TENANT_ID_MAX);
}

char *
user_id_arg(FunctionCallInfo fcinfo, int n)
{
	return id_arg(fcinfo, n, "user_id", SA_USER_ID_MAX);
}

static char *
id_arg(FunctionCallInfo fcinfo, int n, const char *name, int max)
{
	text	   *value;
	int			len;

	require_arg(fcinfo, n, name);
	value = PG_GETARG_TEXT_PP(n);
	len = VARSIZE_ANY_EXHDR(value);
	if (len < 1 || len > max || !sa_text_is_clean(VARDATA_ANY(value), len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s", name),
				 errdetail("It has %d bytes.", len),
				 errhint("Use 1 to %d bytes of UTF-8 without control characters.", max)));
	return text_to_cstring(value);
}

char *
optional_text_arg(FunctionCallInfo fcinfo, int n, const char *name, int max)
{
	text	   *value;
	int			len;

	if (PG_ARGISNULL(n))
		return NULL;
	value = PG_GETARG_TEXT_PP(n);
	len = VARSIZE_ANY_EXHDR(value);
	if (len > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", name),
				 errdetail("It has %d bytes.", len),
				 errhint("Use at most %d bytes.", max)));
	return text_to_cstring(value);
}

void
unknown_tenant(const char *tenant_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("tenant \"%s\" does not exist", tenant_id),
			 errhint("Create it with sessauth.create_tenant().")));
}

/*
 * A millisecond clock in front, so that new sessions land next to each other
 * in the index, and 74 random bits behind.
 */
void
session_id_new(pg_uuid_t *out)
{
	uint64		ms = (uint64) (GetCurrentTimestamp() / 1000 + UNIX_TO_PG_SECONDS * 1000);

	if (!sa_random(out->data, UUID_LEN))
		openssl_refused("make a random session id");
	for (int i = 0; i < 6; i++)
		out->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	out->data[6] = (out->data[6] & 0x0f) | 0x70;
	out->data[8] = (out->data[8] & 0x3f) | 0x80;
}

int64
unix_seconds(TimestampTz t)
{
	/* Whole seconds towards the past, also before 2000. */
	int64		s = t / USECS_PER_SEC - (t % USECS_PER_SEC < 0 ? 1 : 0);

	return s + UNIX_TO_PG_SECONDS;
}

TimestampTz
from_unix_seconds(int64 s)
{
	return (s - UNIX_TO_PG_SECONDS) * USECS_PER_SEC;
}

PG_FUNCTION_INFO_V1(sessauth_valid_id);

/* valid_id(text, max integer) → boolean: 1 to max bytes of clean UTF-8. For CHECK constraints. */
Datum
sessauth_valid_id(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);
	int			len = VARSIZE_ANY_EXHDR(value);

	PG_RETURN_BOOL(len >= 1 && len <= PG_GETARG_INT32(1) && sa_text_is_clean(VARDATA_ANY(value), len));
}

PG_FUNCTION_INFO_V1(sessauth_ledger_time);

/* ledger_time() → timestamptz: the clock by which tokens are minted and revocations forgotten. */
Datum
sessauth_ledger_time(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(ledger_now());
}

int64
interval_us(const Interval *interval)
{
	return interval->time + ((int64) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
}

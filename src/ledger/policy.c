/*
 * policy.c
 *		A tenant's policy: its own values over the settings' defaults.
 *
 * One table drives checking, reading and showing, so that a new key is one line.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "ledger/policy.h"

typedef enum Kind
{
	DURATION, COUNT, CHOICE
} Kind;

static const struct PolicyKey
{
	const char *name;
	Kind		kind;
	size_t		offset;
	int		   *setting;
	int			min;
	int			max;
}			keys[] = {
	{"access_ttl", DURATION, offsetof(Policy, access_ttl), &setting_access_ttl, 1, ACCESS_TTL_MAX},
	{"session_ttl", DURATION, offsetof(Policy, session_ttl), &setting_session_ttl, 1, SESSION_TTL_MAX},
	{"idle_ttl", DURATION, offsetof(Policy, idle_ttl), &setting_idle_ttl, 1, SESSION_TTL_MAX},
	{"refresh_grace", DURATION, offsetof(Policy, refresh_grace), &setting_refresh_grace, 0, REFRESH_GRACE_MAX},
	{"max_sessions", COUNT, offsetof(Policy, max_sessions), &setting_max_sessions, 1, MAX_SESSIONS_MAX},
	{"on_limit", CHOICE, offsetof(Policy, on_limit), &setting_on_limit, 0, 0},
};

static const char *const choices[] = {"reject", "evict_oldest"};

static bool read_value(const struct PolicyKey *key, JsonbValue *value, int *out);
static Interval *parse_interval(const char *text);
static void push(JsonbParseState **state, JsonbIteratorToken token, const char *text);

void
policy_check(Jsonb *own)
{
	JsonbIterator *it = JsonbIteratorInit(&own->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	const struct PolicyKey *key = NULL;

	if (!JB_ROOT_IS_OBJECT(own))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a policy must be a JSON object"),
				 errhint("For example: {\"access_ttl\": \"5 min\", \"max_sessions\": 5}.")));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		int			out;

		if (token == WJB_KEY)
		{
			key = NULL;
			for (int i = 0; i < lengthof(keys); i++)
				if (strlen(keys[i].name) == (size_t) value.val.string.len &&
					memcmp(keys[i].name, value.val.string.val, value.val.string.len) == 0)
					key = &keys[i];
			if (key == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("unknown policy key \"%.*s\"", Min(value.val.string.len, 64), value.val.string.val),
						 errhint("The keys are access_ttl, session_ttl, idle_ttl, refresh_grace, max_sessions and on_limit.")));
		}
		else if (token == WJB_VALUE && key != NULL && !read_value(key, &value, &out))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for policy key \"%s\"", key->name),
					 key->kind == DURATION ?
					 errhint("Use an interval like \"5 min\" or a number of seconds, from %d to %d seconds.", key->min, key->max) :
					 key->kind == COUNT ?
					 errhint("Use a whole number from %d to %d, or null for no limit.", key->min, key->max) :
					 errhint("Use \"reject\" or \"evict_oldest\".")));
	}
}

void
policy_read(Jsonb *own, Policy *out)
{
	for (int i = 0; i < lengthof(keys); i++)
	{
		int		   *field = (int *) ((char *) out + keys[i].offset);
		JsonbValue	found;

		*field = *keys[i].setting;
		if (own != NULL && getKeyJsonValueFromContainer(&own->root, keys[i].name, strlen(keys[i].name), &found))
		{
			int			value;

			if (read_value(&keys[i], &found, &value))
				*field = value;
		}
	}
}

Jsonb *
policy_effective(Jsonb *own)
{
	JsonbParseState *state = NULL;
	Policy		policy;

	policy_read(own, &policy);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < lengthof(keys); i++)
	{
		int			field = *(int *) ((char *) &policy + keys[i].offset);
		JsonbValue	value;

		push(&state, WJB_KEY, keys[i].name);
		if (keys[i].kind == DURATION)
		{
			Interval	interval = {.time = (TimeOffset) field * USECS_PER_SEC};

			push(&state, WJB_VALUE, DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval))));
		}
		else if (keys[i].kind == CHOICE)
			push(&state, WJB_VALUE, choices[field]);
		else if (field == 0)
		{
			value.type = jbvNull;
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
		else
		{
			value.type = jbvNumeric;
			value.val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, Int32GetDatum(field)));
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* A month counts as 30 days, as everywhere in PostgreSQL. */
static bool
read_value(const struct PolicyKey *key, JsonbValue *value, int *out)
{
	double		number;

	if (key->kind == CHOICE)
	{
		for (int i = 0; i < lengthof(choices); i++)
			if (value->type == jbvString && strlen(choices[i]) == (size_t) value->val.string.len &&
				memcmp(choices[i], value->val.string.val, value->val.string.len) == 0)
			{
				*out = i;
				return true;
			}
		return false;
	}
	if (key->kind == COUNT && value->type == jbvNull)
	{
		*out = 0;
		return true;
	}
	if (value->type == jbvNumeric)
		number = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(value->val.numeric)));
	else if (value->type == jbvString && key->kind == DURATION)
	{
		char	   *text = pnstrdup(value->val.string.val, value->val.string.len);
		Interval   *interval = parse_interval(text);

		if (interval == NULL)
			return false;
		number = (double) interval->time / USECS_PER_SEC + ((double) interval->month * DAYS_PER_MONTH + interval->day) * SECS_PER_DAY;
	}
	else
		return false;
	if (!(number >= key->min && number <= key->max) || number != floor(number))
		return false;
	*out = (int) number;
	return true;
}

/* NULL when it is none. interval_in's own error would not say what a policy wants; it reads no table, so nothing needs undoing. */
static Interval *
parse_interval(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Interval   *volatile result = NULL;

	PG_TRY();
	{
		result = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
													   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return result;
}

static void
push(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, token, &value);
}

-- claims: the caller's own, beside ours and never over them.
SELECT sessauth.create_tenant('l_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;

-- what a token's payload says, without asking verify
CREATE FUNCTION pg_temp.payload(token text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT convert_from(decode(rpad(translate(p, '-_', '+/'), (length(p) + 3) / 4 * 4, '='), 'base64'), 'UTF8')::jsonb
	FROM split_part(token, '.', 2) p
$$;
-- the answer to a login with these claims, or why it is refused
CREATE FUNCTION pg_temp.login(claims jsonb, OUT outcome text, OUT detail text, OUT token text) LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	SELECT i.outcome, i.access_token INTO outcome, token FROM sessauth.issue_session('l_acme', 'alice', claims => login.claims) i;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	outcome := SQLSTATE || CASE WHEN hint = '' THEN ' without a hint' ELSE '' END;
END
$$;

-- every reserved name, whatever its value
SELECT name, (pg_temp.login(jsonb_build_object(name, value))).outcome, (pg_temp.login(jsonb_build_object(name, value))).detail
	FROM unnest(ARRAY['iss', 'aud', 'sub', 'client_id', 'jti', 'iat', 'exp', 'nbf', 'tid', 'uid', 'sid', 'epoch', 'tepoch', 'typ', 'cty', 'alg',
		'kid', 'crit', 'active', 'token_type', 'username']) name, (VALUES ('"x"'::jsonb)) v(value);
SELECT value, (pg_temp.login(jsonb_build_object('sub', value))).outcome
	FROM unnest(ARRAY['null', '1', 'true', '[]', '{}', '"alice"']::jsonb[]) value;

-- inside other members, and spelled otherwise, they are the caller's business, and stay what they are
SELECT * FROM pg_temp.login('{"scope": "read write", "roles": ["a", "b"], "act": {"sub": "somebody", "exp": 1, "active": false}, "SUB": "upper", "sub ": "blank", "ſub": "long s", "epoch\u200b": 9, "": "empty"}') \gset
SELECT outcome, tenant_id, user_id, replace(jsonb_pretty(claims), chr(8203), '<200b>') AS claims FROM sessauth.verify(:'token');
SELECT p ->> 'sub' AS sub, p ->> 'uid' AS uid, p ->> 'tid' AS tid, p -> 'act' ->> 'sub' AS nested, p ->> 'SUB' AS upper, jsonb_typeof(p -> 'epoch') AS epoch,
	p ->> 'scope' AS scope
	FROM pg_temp.payload(:'token') p;
SELECT i -> 'active' AS active, i ->> 'sub' AS sub, i ->> 'username' AS username, i ->> 'scope' AS scope, i -> 'act' ->> 'active' AS nested
	FROM sessauth.introspect(:'token') i;

-- a member that introspect itself has: introspect's counts there
SELECT l.outcome, v.claims, sessauth.introspect(l.token) ->> 'username' AS username FROM pg_temp.login('{"username": "Somebody Else"}') l, sessauth.verify(l.token) v;

-- they go with the session: a refreshed token has them, too
SELECT refresh_token AS refresh FROM sessauth.issue_session('l_acme', 'alice', claims => '{"role": "editor"}') \gset
SELECT v.outcome, v.claims FROM sessauth.refresh_session(:'refresh') r, sessauth.verify(r.access_token) v;

-- no claims, empty claims, null members, unicode beyond the basic plane, numbers as they were written
SELECT n, v.outcome, v.claims FROM (VALUES (1, NULL::jsonb), (2, '{}'), (3, '{"a": null}'), (4, '{"name": "Zoë 🦉 \u4e2d", "quote": "\"\\/\n\t"}'),
	(5, '{"big": 9223372036854775807, "small": -9223372036854775808, "half": 0.5}')) c(n, claims), pg_temp.login(claims) l, sessauth.verify(l.token) v ORDER BY n;

-- bounds: 4096 bytes, 64 bits, 32 levels
SELECT what, l.outcome, l.detail FROM (VALUES
	('4096 bytes', jsonb_build_object('a', repeat('x', 4096 - length('{"a": ""}')))),
	('4097 bytes', jsonb_build_object('a', repeat('x', 4097 - length('{"a": ""}')))),
	('4100 bytes in fewer characters', jsonb_build_object('a', repeat('é', 2046))),
	('a megabyte', jsonb_build_object('a', repeat('x', 1000000))),
	('many members', (SELECT jsonb_object_agg('m' || n, n) FROM generate_series(1, 1000) n)),
	('65 bits', '{"n": 9223372036854775808}'),
	('a huge exponent', '{"n": 1e400}'),
	('30 levels', (repeat('{"a":', 29) || '{}' || repeat('}', 29))::jsonb),
	('40 levels', (repeat('{"a":', 39) || '{}' || repeat('}', 39))::jsonb),
	('an array', '[{"sub": "x"}]'),
	('a string', '"sub"'),
	('null', 'null')) t(what, claims), pg_temp.login(claims) l;
-- jsonb keeps the last of two members of one name, so a reserved one cannot hide behind the other
SELECT (l).outcome, (l).detail FROM (SELECT pg_temp.login('{"role": 1, "sub": "x", "sub": "alice"}') l) t;

-- whatever was refused made nothing
SELECT count(*) AS sessions_with_reserved_claims FROM sessauth.session
	WHERE tenant_id = 'l_acme' AND client_claims ?| ARRAY['iss', 'aud', 'sub', 'client_id', 'jti', 'iat', 'exp', 'nbf', 'tid', 'uid', 'sid', 'epoch', 'tepoch', 'active'];

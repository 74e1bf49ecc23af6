-- Tenants and policies.
SELECT sessauth.create_tenant('t_plain');
SELECT sessauth.create_tenant('t_full',
	'{"access_ttl": "90 s", "session_ttl": 3600, "idle_ttl": "30 min", "refresh_grace": 0, "max_sessions": 5, "on_limit": "evict_oldest"}');
-- a name full of the characters that Redis keys and URLs treat specially
SELECT sessauth.create_tenant('a:b}{', '{"max_sessions": null}') ->> 'max_sessions' IS NULL AS unlimited;
SELECT sessauth.set_policy('t_plain', '{"access_ttl": "1 min"}') ->> 'access_ttl' AS access_ttl;

-- refused, each with a hint
SELECT sessauth.create_tenant('t_plain');
SELECT sessauth.set_policy('t_nowhere', '{}');
SELECT sessauth.create_tenant('t_bad', '{"acess_ttl": "5 min"}');
SELECT sessauth.create_tenant('t_bad', '{"access_ttl": "-5 min"}');
SELECT sessauth.create_tenant('t_bad', '{"access_ttl": "2 days"}');
SELECT sessauth.create_tenant('t_bad', '{"access_ttl": [5]}');
SELECT sessauth.create_tenant('t_bad', '{"max_sessions": 0}');
SELECT sessauth.create_tenant('t_bad', '{"max_sessions": 2.5}');
SELECT sessauth.create_tenant('t_bad', '{"on_limit": "explode"}');
SELECT sessauth.create_tenant('t_bad', '[]');
SELECT sessauth.create_tenant('t_bad', NULL);
SELECT sessauth.create_tenant(NULL);
SELECT sessauth.create_tenant('');
SELECT sessauth.create_tenant(repeat('x', 129));
SELECT sessauth.create_tenant(E'line\nbreak');
SELECT count(*) AS made_by_refused_calls FROM sessauth.tenant WHERE tenant_id = 't_bad';

-- the longest access token that was ever possible is remembered when the policy gets shorter
SELECT sessauth.set_policy('t_plain', '{"access_ttl": "20 min"}') ->> 'access_ttl' AS access_ttl;
SELECT sessauth.set_policy('t_plain', '{"access_ttl": "10 s"}') ->> 'access_ttl' AS access_ttl;
SELECT access_ttl_max FROM sessauth.tenant WHERE tenant_id = 't_plain';
SELECT kind, before, after FROM sessauth.history WHERE tenant_id = 't_plain' ORDER BY event_id;

-- Forced logout: of a device, all others, a user, a tenant.
SELECT sessauth.create_tenant('r_acme') IS NOT NULL AS acme, sessauth.create_tenant('r_other') IS NOT NULL AS other;
SELECT length(sessauth.create_signing_key('EdDSA')) AS kid_length;
SELECT * FROM sessauth.issue_session('r_acme', 'alice', 'pc') \gset pc_
SELECT * FROM sessauth.issue_session('r_acme', 'alice', 'phone') \gset phone_
SELECT * FROM sessauth.issue_session('r_acme', 'bob') \gset bob_
SELECT * FROM sessauth.issue_session('r_other', 'alice') \gset other_

-- one device
SELECT sessauth.revoke_session('r_acme', :'pc_session_id', 'lost laptop', 'helpdesk') IS NOT NULL AS event;
SELECT sessauth.revoke_session('r_acme', :'pc_session_id') IS NULL AS already_ended;
SELECT sessauth.revoke_session('r_acme', gen_random_uuid()) IS NULL AS unknown;
SELECT sessauth.revoke_session('r_other', :'phone_session_id') IS NULL AS of_another_tenant;
SELECT outcome AS pc FROM sessauth.verify(:'pc_access_token');
SELECT outcome AS pc_refresh FROM sessauth.refresh_session(:'pc_refresh_token');
SELECT outcome AS phone FROM sessauth.verify(:'phone_access_token');

-- all other devices
SELECT * FROM sessauth.issue_session('r_acme', 'alice', 'tablet') \gset tablet_
SELECT sessauth.revoke_other_sessions('r_acme', 'alice', :'tablet_session_id') IS NOT NULL AS event;
SELECT sessauth.revoke_other_sessions('r_acme', 'alice', :'tablet_session_id') IS NULL AS no_others;
SELECT outcome AS phone FROM sessauth.verify(:'phone_access_token');
SELECT outcome AS tablet FROM sessauth.verify(:'tablet_access_token');

-- a user: every device, at once, and only this user
SELECT sessauth.revoke_user('r_acme', 'alice', 'left the company', 'hr') IS NOT NULL AS event;
SELECT outcome AS tablet FROM sessauth.verify(:'tablet_access_token');
SELECT outcome AS tablet_refresh FROM sessauth.refresh_session(:'tablet_refresh_token');
SELECT outcome AS bob FROM sessauth.verify(:'bob_access_token');
SELECT outcome AS same_name_elsewhere FROM sessauth.verify(:'other_access_token');
SELECT * FROM sessauth.issue_session('r_acme', 'alice', 'pc') \gset new_
SELECT :new_epoch > :pc_epoch AS higher_epoch;
SELECT outcome AS new_login FROM sessauth.verify(:'new_access_token');
SELECT outcome AS old_login FROM sessauth.verify(:'tablet_access_token');

-- a user who was never seen: a first login may be in flight
SELECT sessauth.revoke_user('r_acme', 'ghost') IS NOT NULL AS event;
SELECT epoch > 0 AS has_epoch FROM sessauth.tenant_user WHERE tenant_id = 'r_acme' AND user_id = 'ghost';

-- a tenant, and only that one
SELECT sessauth.revoke_tenant('r_acme', 'breach', 'ciso') IS NOT NULL AS event;
SELECT outcome AS alice FROM sessauth.verify(:'new_access_token');
SELECT outcome AS bob FROM sessauth.verify(:'bob_access_token');
SELECT outcome AS other FROM sessauth.verify(:'other_access_token');
SELECT outcome FROM sessauth.issue_session('r_acme', 'bob');

-- who, whom, why
SELECT kind, user_id, actor, role = session_user AS by_me, reason FROM sessauth.history
	WHERE tenant_id = 'r_acme' AND kind ~ 'revoked' ORDER BY event_id;
SELECT revokes, count(*) FROM sessauth.event WHERE tenant_id IN ('r_acme', 'r_other') AND revokes IS NOT NULL GROUP BY 1 ORDER BY 1;
SELECT bool_and(until >= at) AS remembered_long_enough FROM sessauth.event WHERE tenant_id = 'r_acme' AND revokes IS NOT NULL;

-- refused
SELECT sessauth.revoke_user('r_nowhere', 'alice');
SELECT sessauth.revoke_tenant('r_nowhere');
SELECT sessauth.revoke_session('r_acme', NULL);
SELECT sessauth.revoke_user('r_acme', 'alice', repeat('x', 1025));

# Catalog.pm
#		What PostgreSQL's catalogs say about the extension, as text: two ledgers
#		have the same shape when these lines are equal.

package Sessauth::Catalog;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(catalog_of);

# Privileges in an order of their own: that of an ACL is the order in which they were granted.
sub acl
{
	my ($acl) = @_;
	return <<"END";
coalesce((SELECT string_agg(format('%s=%s%s by %s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
		a.privilege_type, CASE WHEN a.is_grantable THEN '*' END, pg_get_userbyid(a.grantor)), ', '
		ORDER BY pg_get_userbyid(a.grantee) COLLATE "C", a.privilege_type COLLATE "C", a.is_grantable) FROM aclexplode($acl) a), 'default')
END
}

# Each query gives lines that name their object. Physical order counts, the numbers of dropped columns do not. What the
# owner may do without any grant is the same whether an ACL says so or is missing.
my @queries = (
	q{SELECT format('version %s', extversion) FROM pg_extension WHERE extname = 'sessauth'},
	q{SELECT format('dumped %s %s', r::regclass, c) FROM pg_extension, unnest(extconfig, extcondition) u(r, c) WHERE extname = 'sessauth'},
	q{SELECT format('member %s', pg_describe_object(classid, objid, objsubid)) FROM pg_depend
		WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sessauth')},
	q{SELECT format('schema owner %s acl %s', pg_get_userbyid(nspowner), } . acl('nspacl') . q{)
		FROM pg_namespace WHERE nspname = 'sessauth'},
	q{SELECT format('relation %s kind %s%s owner %s options %s row security %s%s identity %s bound %s acl %s', oid::regclass, relkind,
			relpersistence, pg_get_userbyid(relowner), reloptions, relrowsecurity, relforcerowsecurity, relreplident,
			pg_get_expr(relpartbound, oid), } . acl(q{coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))}) . q{)
		FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace},
	q{SELECT format('column %s.%s number %s type %s not null %s default %s collation %s storage %s%s%s statistics %s local %s acl %s',
			attrelid::regclass, attname, row_number() OVER (PARTITION BY attrelid ORDER BY attnum),
			format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attcollation::regcollation,
			attstorage, attidentity, attgenerated, attstattarget, attislocal, } . acl('attacl') . q{)
		FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped},
	q{SELECT format('constraint %s of %s: %s valid %s local %s', conname, conrelid::regclass, pg_get_constraintdef(oid), convalidated, conislocal)
		FROM pg_constraint WHERE connamespace = 'sessauth'::regnamespace},
	q{SELECT format('index %s valid %s part of %s', pg_get_indexdef(indexrelid), indisvalid, inhparent::regclass)
		FROM pg_index JOIN pg_class c ON c.oid = indrelid LEFT JOIN pg_inherits ON inhrelid = indexrelid
		WHERE relnamespace = 'sessauth'::regnamespace},
	q{SELECT format('trigger %s enabled %s inherited %s', pg_get_triggerdef(t.oid), tgenabled, tgparentid <> 0)
		FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'sessauth'::regnamespace AND NOT tgisinternal},
	q{SELECT format('function %s owner %s acl %s', pg_get_functiondef(oid), pg_get_userbyid(proowner), } . acl('proacl') . q{)
		FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace},
	q{SELECT format('view %s: %s', oid::regclass, pg_get_viewdef(oid)) FROM pg_class
		WHERE relnamespace = 'sessauth'::regnamespace AND relkind = 'v'},
	q{SELECT format('policy %s of %s for %s permissive %s to %s using %s check %s', polname, polrelid::regclass, polcmd, polpermissive,
			polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
		FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE relnamespace = 'sessauth'::regnamespace},
	q{SELECT format('sequence %s %s', seqrelid::regclass, to_jsonb(s) - 'seqrelid') FROM pg_sequence s
		JOIN pg_class c ON c.oid = seqrelid WHERE relnamespace = 'sessauth'::regnamespace},
	q{SELECT format('comment on %s: %s', pg_describe_object(classoid, objoid, objsubid), description) FROM pg_description
		WHERE pg_describe_object(classoid, objoid, objsubid) ~ '\msessauth\M'},
	q{SELECT format('privileges of the extension itself on %s: %s', pg_describe_object(classoid, objoid, objsubid), } . acl('initprivs') . q{)
		FROM pg_init_privs WHERE pg_describe_object(classoid, objoid, objsubid) ~ '\msessauth\M'
		AND (classoid = 'pg_proc'::regclass OR EXISTS (SELECT FROM aclexplode(initprivs) WHERE grantee <> grantor))},
);

# The lines, sorted.
sub catalog_of
{
	my ($dbh) = @_;
	my @lines;

	$dbh->begin_work;
	$dbh->do(q{SET LOCAL search_path = pg_catalog});
	push @lines, @{ $dbh->selectcol_arrayref($_) } for @queries;
	$dbh->rollback;
	@lines = sort @lines;
	return @lines;
}

1;

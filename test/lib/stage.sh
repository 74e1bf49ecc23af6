# shellcheck shell=bash
#
# stage.sh
#		A private PostgreSQL tree with sessauth in it, in one temporary directory.
#
# PostgreSQL finds its libraries and its share directory relative to the real
# path of its binaries. So a copy of the binaries, beside links to everything
# else, is an installation of its own: `make install` goes there, nothing in the
# system is touched, and no root is needed. PostgreSQL refuses to run as root;
# then everything from here on belongs to, and runs as, another user.
#
# Sourced by test/demo and test/run. Sets:
#	STAGE		the temporary directory, removed at exit
#	STAGE_PG	PG_CONFIG of the private tree
#	STAGE_SRC	a copy of the source tree, owned by the user who runs the tests

STAGE=
STAGE_PG=
STAGE_SRC=
STAGE_USER=
STAGE_CHILD=

# Makes the temporary directory, and sees to it that nothing outlives us.
stage_begin() {
	local base=${TMPDIR:-/tmp}
	# A socket's path has room for 107 bytes.
	[ "${#base}" -le 40 ] || base=/tmp
	umask 022
	STAGE=$(mktemp -d "$base/sessauth.XXXXXX")
	trap stage_end EXIT
	trap 'stage_signal INT 130' INT
	trap 'stage_signal TERM 143' TERM
	trap 'stage_signal HUP 129' HUP
	if [ "$(id -u)" = 0 ]; then
		STAGE_USER=postgres
		id -u "$STAGE_USER" >/dev/null 2>&1 || STAGE_USER=nobody
		chmod 755 "$STAGE"
	fi
	mkdir "$STAGE/t" "$STAGE/ports"
}

stage_end() {
	trap - EXIT
	trap '' INT TERM HUP
	stage_stop
	[ -z "$STAGE" ] || rm -rf "$STAGE"
}

stage_signal() {
	trap '' INT TERM HUP
	stage_stop
	exit "$2"
}

# Ends the child, which ends everything that it has started.
stage_stop() {
	[ -n "$STAGE_CHILD" ] || return 0
	kill -TERM "$STAGE_CHILD" 2>/dev/null || true
	wait "$STAGE_CHILD" 2>/dev/null || true
	STAGE_CHILD=
}

# stage_quietly WHAT COMMAND...: silent when it works, its output when it does not.
# In the background, so that a signal is answered at once.
stage_quietly() {
	local what=$1 status=0
	shift
	"$@" >"$STAGE/log" 2>&1 </dev/null &
	STAGE_CHILD=$!
	wait "$STAGE_CHILD" || status=$?
	STAGE_CHILD=
	if [ "$status" != 0 ]; then
		tail -n 60 "$STAGE/log" >&2
		echo "$what failed" >&2
		exit 1
	fi
}

# stage_make SOURCE: builds in place, and installs into a new private tree.
stage_make() {
	local src=$1 pg_config=${PG_CONFIG:-pg_config}
	stage_quietly "make" flock "$src/Makefile" \
		make -s -C "$src" -j "$(nproc)" "PG_CONFIG=$pg_config" all
	stage_tree "$pg_config"
	stage_quietly "make install" flock "$src/Makefile" \
		make -s -C "$src" "PG_CONFIG=$STAGE_PG" install
	stage_own "$STAGE/pg" "$STAGE/t" "$STAGE/ports"
}

# stage_tree PG_CONFIG: the tree under $STAGE/pg, with the same paths below it
# that the original has below /.
stage_tree() {
	local pg_config=$1 root=$STAGE/pg bindir pkglibdir sharedir libdir includedir server
	bindir=$("$pg_config" --bindir)
	pkglibdir=$("$pg_config" --pkglibdir)
	sharedir=$("$pg_config" --sharedir)
	libdir=$("$pg_config" --libdir)
	includedir=$("$pg_config" --includedir)
	server=$("$pg_config" --includedir-server)

	# What an installation writes into must be real; the rest may be links.
	mkdir -p "$root$bindir" "$root$pkglibdir" "$root$libdir/pkgconfig" \
		"$root$sharedir/extension" "$root$includedir" "$root$server/extension"
	cp -L "$bindir"/* "$root$bindir/"
	stage_link "$root" "$pkglibdir" '*'
	stage_link "$root" "$sharedir" '*'
	stage_link "$root" "$sharedir/extension" '*'
	stage_link "$root" "$libdir" 'libpq*' 'libpg*'
	stage_link "$root" "$includedir" '*'
	stage_link "$root" "$server" '*'
	stage_link "$root" "$server/extension" '*'

	STAGE_PG=$root$bindir/pg_config
	local what want got
	for what in bindir pkglibdir sharedir libdir includedir includedir-server; do
		want=$root$("$pg_config" "--$what")
		got=$("$STAGE_PG" "--$what")
		if [ "$(realpath -m "$want")" != "$(realpath -m "$got")" ]; then
			echo "this PostgreSQL cannot be relocated: --$what is $got, not $want" >&2
			exit 1
		fi
	done
}

# stage_link ROOT DIRECTORY PATTERN...: links to what DIRECTORY holds, at the
# same place below ROOT, except for what is there already.
stage_link() {
	local root=$1 directory=$2 pattern entry
	shift 2
	for pattern in "$@"; do
		# shellcheck disable=SC2231 # the pattern is meant to be one
		for entry in "$directory"/$pattern; do
			if [ -e "$entry" ] && [ ! -e "$root$entry" ]; then
				ln -s "$entry" "$root$entry"
			fi
		done
	done
}

# stage_copy SOURCE: the source tree, build products included, for the user who runs the tests.
stage_copy() {
	STAGE_SRC=$STAGE/src
	mkdir "$STAGE_SRC"
	tar -C "$1" --exclude=./.git --exclude=./tmp_check -cf - . | tar -C "$STAGE_SRC" -xf -
	stage_own "$STAGE_SRC"
}

stage_own() {
	[ -z "$STAGE_USER" ] || chown -R -h "$STAGE_USER:$(id -g "$STAGE_USER")" "$@"
}

# stage_run COMMAND...: runs it in $STAGE_SRC as the user who may run
# PostgreSQL, with the private tree first in every path. Returns its status.
stage_run() {
	local status=0 variable
	local -a as_user=()
	if [ -n "$STAGE_USER" ]; then
		as_user=(--reuid "$STAGE_USER" --regid "$(id -g "$STAGE_USER")" --init-groups)
	fi
	(
		for variable in $(compgen -e PG | grep -v '^PG_'); do
			unset "$variable"
		done
		unset PERL5LIB PERL5OPT PROVE_OPTS HARNESS_OPTIONS MAKEFLAGS MAKELEVEL
		local libdir
		libdir=$("$STAGE_PG" --libdir)
		export HOME=$STAGE/t TMPDIR=$STAGE/t USER=${STAGE_USER:-$(id -un)} LOGNAME=${STAGE_USER:-$(id -un)}
		export PG_CONFIG=$STAGE_PG PG_TEST_PORT_DIR=$STAGE/ports TESTDIR=$STAGE_SRC
		export TESTDATADIR=$STAGE_SRC/tmp_check TESTLOGDIR=$STAGE_SRC/tmp_check/log	# from version 16 on
		PATH=$("$STAGE_PG" --bindir):$PATH
		LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
		PKG_CONFIG_PATH=$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
		local pgxs
		pgxs=$(dirname "$("$STAGE_PG" --pgxs)")/../..
		PG_REGRESS=$(realpath "$pgxs/src/test/regress/pg_regress")
		PERL5LIB=$STAGE_SRC/test/lib:$(realpath "$pgxs/src/test/perl")
		export PATH LD_LIBRARY_PATH PKG_CONFIG_PATH PG_REGRESS PERL5LIB
		cd "$STAGE_SRC" || exit 1
		exec setpriv "${as_user[@]}" --pdeathsig TERM "$@"
	) </dev/null &
	STAGE_CHILD=$!
	wait "$STAGE_CHILD" || status=$?
	STAGE_CHILD=
	return "$status"
}

# shellcheck shell=bash
#
# deps.sh
#		What building, testing and showing sessauth needs, and how to get it.
#
# Sourced by test/demo and test/run. On Debian and its relatives missing
# packages are installed when we may (root, or sudo that asks no password);
# otherwise the exact command is printed and the caller stops. Elsewhere the
# programs themselves are looked for.

# Prints the major version of the PostgreSQL that PG_CONFIG belongs to, or of the distribution's.
pg_major() {
	local version
	version=$("${PG_CONFIG:-pg_config}" --version 2>/dev/null) || version=$(pg_major_of_distribution)
	version=${version#PostgreSQL }
	echo "${version%%[!0-9]*}"
}

# By its package lists, or when there are none yet, by its name.
pg_major_of_distribution() {
	local major
	major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
	if [ -z "$major" ]; then
		# shellcheck source=/dev/null
		major=$(. /etc/os-release 2>/dev/null && case ${VERSION_ID:-} in 13) echo 17 ;; *) echo 15 ;; esac) || major=15
	fi
	echo "$major"
}

# deps_wanted [tests]: prints the Debian packages that are needed, for the tests or else for the demo and the benchmarks, one a line.
# postgresql-server-dev brings pgxs and libpq; perl brings prove and HTTP::Tiny. Not in the list, and on
# purpose: nodejs and npm, which other vendors package in conflict with Debian; test/t/jose.t and
# test/t/recipes.t say so when they are missing.
deps_wanted() {
	local major
	major=$(pg_major)
	printf '%s\n' \
		gcc libc6-dev make pkg-config \
		"postgresql-$major" "postgresql-server-dev-$major" redis-server \
		libhiredis-dev libc-ares-dev libevent-dev libjansson-dev libssl-dev libpq-dev \
		perl libipc-run-perl libdbd-pg-perl
	[ "${1:-}" != tests ] || printf '%s\n' "postgresql-$major-pgtap" g++ pgbouncer nginx haproxy caddy strace valgrind
}

# deps_ensure [tests]: makes sure that everything is there. Quick and silent when it is.
deps_ensure() {
	if ! command -v dpkg-query >/dev/null; then
		deps_look_for_programs "$@"
		return
	fi

	local missing
	missing=$(deps_missing "$@")
	[ -n "$missing" ] || return 0

	local -a packages
	read -r -d '' -a packages <<<"$missing" || true
	local -a as_root=()
	if [ "$(id -u)" != 0 ]; then
		if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
			as_root=(sudo -n)
		else
			{
				echo "Some packages are missing, and only root may install them. Run this, then try again:"
				echo
				echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
				echo
			} >&2
			exit 1
		fi
	fi

	echo "Installing ${packages[*]}" >&2
	(
		deps_start_no_services
		deps_install
	)
}

# Debian starts the services that it installs; the private ones of the tests are all that is wanted.
# Until the subshell that calls this ends, packages ask here whether they may (deb-systemd-invoke, invoke-rc.d: 101 is no).
deps_start_no_services() {
	local policy=/usr/sbin/policy-rc.d
	[ ! -e "$policy" ] || return 0
	# shellcheck disable=SC2064
	trap "${as_root[*]} rm -f $policy" EXIT
	printf '%s\n' '#!/bin/sh' 'exit 101' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 755 "$policy"
}

# Installs what deps_ensure has found missing.
deps_install() {
	local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq)
	local log
	log=$(mktemp)
	if ! "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1 </dev/null; then
		# The usual reason: the package lists are old, or were never fetched.
		if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 </dev/null; then
			tail -n 20 "$log" >&2
			rm -f "$log"
			echo "Could not install: ${packages[*]}" >&2
			exit 1
		fi
	fi
	rm -f "$log"
}

# deps_missing [tests]: prints those of the wanted packages that are not installed. A virtual
# package's provider counts, so that a vendor's own build of one is accepted.
deps_missing() {
	local have
	have=$(dpkg-query -W -f '${db:Status-Abbrev}\t${Package}, ${Provides}\n' 2>/dev/null |
		sed -n 's/^ii \?\t//p' | tr ',' '\n' | sed 's/([^)]*)//; s/ //g' | sort -u)
	comm -23 <(deps_wanted "$@" | sort -u) <(printf '%s\n' "$have")
}

deps_look_for_programs() {
	local program missing=
	local -a servers=()
	[ "${1:-}" != tests ] || servers=(g++ pgbouncer nginx haproxy caddy strace valgrind)
	for program in gcc make pkg-config "${PG_CONFIG:-pg_config}" redis-server "${servers[@]}" perl prove; do
		command -v "$program" >/dev/null || missing+=" $program"
	done
	for program in IPC::Run DBD::Pg HTTP::Tiny; do
		perl -M"$program" -e1 2>/dev/null || missing+=" $program"
	done
	if [ -n "$missing" ]; then
		echo "Missing:$missing. On Debian these would be the packages:" >&2
		deps_wanted "$@" | tr '\n' ' ' >&2
		echo >&2
		exit 1
	fi
}

# deps_npm DIRECTORY: the pinned npm packages of test/jose or test/recipes, into a copy of that directory. When npm
# cannot get them, its complaint stays in npm.log beside them, and the test that needs them fails with it.
deps_npm() {
	command -v node >/dev/null && command -v npm >/dev/null || return 0
	(cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline) >"$1/npm.log" 2>&1 </dev/null || true
}

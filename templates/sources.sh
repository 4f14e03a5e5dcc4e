#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sources.sh - what recipes take from where: read by those that take packages of Debian, never run by itself
#
# Sets suite, keys and sources (lines as in sources.list); say_sources tells it. AVIARY_SUITE and AVIARY_MIRROR (a URL, or
# lines as in sources.list) choose; else it is the release of this machine (when that is Debian), from where its apt has it,
# with updates and security. Needs fail() of its reader.

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || fail "Debian's keys are not installed: apt-get install debian-archive-keyring"

own=
# shellcheck disable=SC1091
[ ! -e /etc/os-release ] || own=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
suite=${AVIARY_SUITE:-${own:-bookworm}}

default_sources() {
	echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite main"
	case $suite in sid | unstable | experimental) return ;; esac
	echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite-updates main"
	echo "deb [signed-by=$keys] http://deb.debian.org/debian-security $suite-security main"
}

# The release itself and what mends it, from where this machine's apt has them.
# shellcheck disable=SC2016
own_sources() {
	apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk -v s="$suite" -v k="$keys" '$1 == "Debian" && $3 ~ /^https?:/ && !seen[$2]++ &&
			($2 == s || $2 == s "-updates" || $2 == s "-security") {
				print "deb [signed-by=" k "]", $3, $2, "main" }'
}

case ${AVIARY_MIRROR:-} in
'')
	sources=$(own_sources)
	case $sources in *" $suite main"*) ;; *) sources=$(default_sources) ;; esac
	;;
*'deb '*) sources=$AVIARY_MIRROR ;;
*) sources="deb [signed-by=$keys] $AVIARY_MIRROR $suite main" ;;
esac

# Without a password that stands in the URL.
say_sources() {
	from=$(echo "$sources" | sed -n '1s/^deb *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/;1s|//[^/@]*@|//|;1p')
	echo "I: Debian $suite from $from" >&2
	case $sources in *-security*) ;; *) [ -n "${AVIARY_MIRROR:-}" ] || echo "W: without security updates" >&2 ;; esac
}

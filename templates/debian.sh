#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# debian.sh PACKAGE... - a Debian root file system as a tar archive on standard output
#
# Progress goes to standard error, a line each. AVIARY_SUITE and AVIARY_MIRROR choose what is installed from where;
# else it is the release of this machine (when that is Debian) and the mirror and proxy of its apt configuration.
#
# The archive carries /var/lib/aviary/owners, a script with the owners and set-user-ID bits that unpacking as an
# ordinary archive loses; whoever unpacks it runs that inside, as root.
set -eu

fail() { echo "E: $*" >&2; exit 1; }

command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: apt-get install mmdebstrap"
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
	fail "Debian's keys are not installed: apt-get install debian-archive-keyring"

own=
# shellcheck disable=SC1091
[ ! -e /etc/os-release ] || own=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
suite=${AVIARY_SUITE:-${own:-bookworm}}
mirror=${AVIARY_MIRROR:-}
if [ -z "$mirror" ]; then
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 2>/dev/null |
		awk -v s="$suite" '$1 == "Debian" && $2 == s { print $3; exit }')
fi
mirror=${mirror:-http://deb.debian.org/debian}

if [ "$(id -u)" = 0 ]; then
	mode=root
elif command -v newuidmap >/dev/null && grep -qs "^\($(id -un 2>/dev/null || id -u)\|$(id -u)\):" /etc/subuid; then
	mode=unshare
else
	fail "without root this needs ranges of user ids: apt-get install uidmap, and a line for you in /etc/subuid and" \
		"/etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un 2>/dev/null || id -u))"
fi

packages=$(echo "$*" | tr ' ' ,)
set --
for p in http https; do
	eval "$(apt-config shell proxy "Acquire::$p::Proxy")"
	# shellcheck disable=SC2154
	[ -z "${proxy:-}" ] || set -- "$@" --aptopt="Acquire::$p::Proxy \"$proxy\""
	proxy=
done
echo "I: Debian $suite from $mirror" >&2

# shellcheck disable=SC2016
exec mmdebstrap --mode="$mode" --variant=apt --format=tar --include="$packages" "$@" \
	--aptopt='Acquire::Retries "3"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 user' \
	--customize-hook='echo "user ALL=(ALL:ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/user" && chmod 0440 "$1/etc/sudoers.d/user"' \
	--customize-hook='mkdir -p "$1/var/lib/aviary" && cd "$1" && find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o \( ! -user 0 -o ! -group 0 -o -perm /6000 \) ! -type l -printf "chown %U:%G \"%P\"; chmod %m \"%P\"\n" >var/lib/aviary/owners' \
	"$suite" - "$mirror"

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# debian.sh PACKAGE... - a Debian root file system as a tar archive on standard output
#
# Progress goes to standard error: what it does in lines with "I: ", "W: " or "E: " before them, and what apt and dpkg
# say as it is. AVIARY_SUITE and AVIARY_MIRROR (a URL, or lines as in sources.list) choose what is installed from where;
# else it is the release of this machine (when that is Debian), from where its apt has it, with updates and security.
# It is made in a directory below TMPDIR; nothing of it is left, however this ends (only of a kill -9 that directory is).
#
# The archive carries /var/lib/aviary/owners, a script with the owners and set-user-ID bits that unpacking as an
# ordinary archive loses; whoever unpacks it runs that inside, as root.
set -eu

fail() { echo "E: $*" >&2; exit 1; }

command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: apt-get install mmdebstrap"

# shellcheck source=templates/sources.sh
. "$(dirname "$0")/sources.sh"

if [ "$(id -u)" = 0 ]; then
	mode=root
elif command -v newuidmap >/dev/null && grep -qs "^\($(id -un 2>/dev/null || id -u)\|$(id -u)\):" /etc/subuid; then
	mode=unshare
else
	fail "without root this needs ranges of user ids: apt-get install uidmap, and a line for you in /etc/subuid and" \
		"/etc/subgid (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un 2>/dev/null || id -u))"
fi

# ---- a place of its own, and its end ----

tmp=$(mktemp -d "${TMPDIR:-/tmp}/aviary-template.XXXXXX" 2>/dev/null) ||
	fail "cannot make a directory in ${TMPDIR:-/tmp}: TMPDIR=DIR names another place"
chmod 711 "$tmp"
export TMPDIR="$tmp"
pid=

remove() {
	[ "$mode" != unshare ] || mmdebstrap --unshare-helper find "$tmp" -mindepth 2 -delete 2>/dev/null || true
	rm -rf --one-file-system "$tmp"
}

# As root its processes and mounts are in namespaces that end with the first of them; else mmdebstrap sees to that.
stop() {
	trap '' INT TERM HUP
	if [ -n "$pid" ]; then
		if [ -n "$apart" ]; then kill -KILL "$pid"; else kill -TERM "$pid"; fi 2>/dev/null || true
		wait || true
	fi
	exit 1
}
trap stop INT TERM HUP
trap remove EXIT

apart=
[ "$mode" = unshare ] || ! unshare --mount --pid --fork --mount-proc true 2>/dev/null ||
	apart='unshare --mount --pid --fork --kill-child --mount-proc'

# ---- what people see of it ----

# Steps that are no news for anybody go, some errors tell what to do.
said='
/^I: chroot architecture /d
/^I: automatically chosen /d
/^I: finding correct signed-by /d
/^I: reading sources.list from standard input/d
/^I: using .* as tempdir$/d
/^I: running --customize-hook /d
/^I: main() received signal /d
/^I: removing tempdir /d
/^I: done$/d
/^I: success in /d
/^E: mmdebstrap failed to run$/d
/^E: .*<\$fd>/d
s/^I: running apt-get update\.\.\.$/I: reading the lists of packages/
s/^I: downloading packages with apt\.\.\.$/I: downloading packages/
s/^I: extracting archives\.\.\.$/I: unpacking the first packages/
s/^I: installing essential packages\.\.\.$/I: installing the first packages/
s/^I: installing remaining packages inside the chroot\.\.\.$/I: installing the other packages/
s/^I: cleaning package lists and apt cache\.\.\.$/I: cleaning up/
s/^I: creating tarball\.\.\.$/I: copying/
s/^E: Failed to fetch .*/&; AVIARY_MIRROR=URL names another mirror/
s/^E: The repository .* does not have a Release file\.$/&; AVIARY_SUITE=NAME names another release, AVIARY_MIRROR=URL another mirror/
s/^E: .* enough free space .*/&; TMPDIR=DIR names another place/
s/.*No space left on device.*/E: no space left in '"$(echo "${tmp%/*}" | sed 's/[\/&]/\\&/g')"'; TMPDIR=DIR names another place/
'
echo "$sources" >"$tmp/sources"
mkfifo "$tmp/said"
(trap '' INT TERM HUP; exec sed -u "$said" <"$tmp/said" >&2) &

# ---- the work ----

packages=$(echo "$*" | tr ' ' ,)
set --
for p in http https; do
	eval "$(apt-config shell proxy "Acquire::$p::Proxy")"
	# shellcheck disable=SC2154
	[ -z "${proxy:-}" ] || set -- "$@" --aptopt="Acquire::$p::Proxy \"$proxy\""
	proxy=
done
say_sources

# What belongs to this machine stays here: its proxies, and passwords in URLs. As the directory is thrown away, nothing
# in it needs to be safe on the disk.
# shellcheck disable=SC2016,SC2086
$apart mmdebstrap --verbose --mode="$mode" --variant=apt --format=tar --include="$packages" "$@" \
	--aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"; sed -i "s|//[^/@ ]*@|//|" "$1/etc/apt/sources.list"' \
	--customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 user' \
	--customize-hook='echo "user ALL=(ALL:ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/user" && chmod 0440 "$1/etc/sudoers.d/user"' \
	--customize-hook='mkdir -p "$1/var/lib/aviary" && cd "$1" && find . -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o \( ! -user 0 -o ! -group 0 -o -perm /6000 \) ! -type l -printf "chown %U:%G \"%P\"; chmod %m \"%P\"\n" >var/lib/aviary/owners' \
	"$suite" - - <"$tmp/sources" 2>"$tmp/said" &
pid=$!
status=0
wait "$pid" || status=$?
pid=
wait || true
exit "$status"

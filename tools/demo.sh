#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh - Aviary at work: a daemon of its own, some commands, and this project built and tested inside
#
# Everything lies in one new directory below /var/tmp, which is gone at the end; nothing keeps running.
# BUILD names the build directory, ISOLATION the kind of sandbox (jail, vm).
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$top" && cd "${BUILD:-build}" && pwd)
isolation=${ISOLATION:-jail}
aviary=$build/aviary aviaryd=$build/aviaryd
[ -x "$aviary" ] || aviary=$build/src/cli/aviary
[ -x "$aviaryd" ] || aviaryd=$build/src/daemon/aviaryd

case $isolation in
jail | vm) ;;
*)
	echo "demo: there is no ISOLATION=$isolation; there are jail and vm" >&2
	exit 1
	;;
esac
for program in "$aviary" "$aviaryd"; do
	if [ ! -x "$program" ]; then
		echo "demo: $program is not built; type 'make'" >&2
		exit 1
	fi
done

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
print_command() { # as one would type it
	printf '%s$ aviary' "$bold"
	for word; do
		case $word in
		'' | *[!A-Za-z0-9_./:=@%+,-]*) printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
	printf '%s\n' "$plain"
}
show() { # prints the command and runs it
	print_command "$@"
	"$aviary" "$@"
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
report=
timed() { # timed WHAT COMMAND...: runs it and notes how long it took
	what=$1 start=$(now_ms)
	shift
	"$@"
	ms=$(($(now_ms) - start))
	report="$report$(printf '  %-46s %4d.%03d s' "$what" $((ms / 1000)) $((ms % 1000)))
"
}

home=$(mktemp -d /var/tmp/aviary-demo-XXXXXX)
chmod 0711 "$home"
daemon=
finish() {
	status=$?
	trap - EXIT INT TERM HUP
	if [ -n "$daemon" ]; then
		"$aviary" rm --all --quiet 2>/dev/null || true
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
		"$aviary" cleanup --all --yes --state "$home/state" --run "$home/run" >/dev/null 2>"$home/cleanup" ||
			cat "$home/cleanup" >&2
	fi
	if [ "$status" != 0 ] && [ -s "$home/log" ]; then
		echo "demo: failed; the daemon's last words:" >&2
		tail -n 20 "$home/log" >&2
	fi
	rm -rf "$home" || echo "demo: $home is left behind" >&2
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Of this demo only: no settings, no key of another daemon.
unset AVIARY_URL AVIARY_API_KEY AVIARY_STATE AVIARY_RUN AVIARY_LISTEN AVIARY_CONFIG
export AVIARY_CONFIG_DIR="$home/config"

say "Starting a daemon of its own (state in $home, deleted at the end)"
start=$(now_ms)
"$aviaryd" --listen 127.0.0.1:0 --state "$home/state" --run "$home/run" --print-ready \
	>"$home/ready" 2>"$home/log" </dev/null &
daemon=$!
tries=0
until grep -q '^ready ' "$home/ready" 2>/dev/null && [ -s "$home/config/credentials.json" ]; do
	tries=$((tries + 1))
	if [ $tries -gt 600 ] || ! kill -0 "$daemon" 2>/dev/null; then
		echo "demo: the daemon does not start; 'aviary doctor' may know why:" >&2
		"$aviary" doctor >&2 || true
		exit 1
	fi
	sleep 0.1
done
AVIARY_URL=$(sed -n 's/^ready //p' "$home/ready")
export AVIARY_URL
ms=$(($(now_ms) - start))
echo "It serves $AVIARY_URL; ready after $((ms / 1000)).$(printf %03d $((ms % 1000))) s, with template 'host' made from this machine's /usr."

demo_vm() { # sized for a machine that is emulated
	say "A kernel of its own: what it needs is built first (Debian's packages, minutes)"
	timed "vm setup" show vm setup
	show vm status
	say "This machine has the kernel $(uname -r); the sandbox has"
	timed "run, from the saved memory of the first machine" show run --isolation vm -- uname -a
	say "One that stays, and a program that counts in it"
	timed "create one of 256 MiB, the first of its size" sh -c '"$0" create --quiet --isolation vm --name demo --memory 256M --disk 1G >/dev/null' "$aviary"
	show exec --detach demo -- sh -c 'n=0; while :; do n=$((n + 1)); echo $n >/tmp/n.new; mv /tmp/n.new /tmp/n; sleep 0.1; done'
	sleep 2
	show exec demo -- sh -c 'hostname; cat /tmp/n'
	say "Paused its memory lies on the disk, and nothing of it runs; resumed it goes on counting"
	timed "pause" show pause demo
	show ls
	timed "resume" show resume demo
	show exec demo -- cat /tmp/n
	say "Three copies, with memory and processes, each with a name and random numbers of its own"
	timed "fork into three" sh -c '"$0" fork --count 3 demo >"$1"' "$aviary" "$home/copies"
	while read -r id; do
		show exec "$id" -- sh -c 'echo "$(hostname) $(cat /proc/sys/kernel/random/uuid) counts: $(cat /tmp/n)"' </dev/null
	done <"$home/copies"
	say "How long it took (each with the start of the command line)"
	printf '%s' "$report"
}

if [ "$isolation" = vm ]; then
	demo_vm
	exit
fi

say "One command in a fresh sandbox, which is deleted afterwards: root of its own little world"
show run -- sh -c 'id; hostname; ls /proc | grep -c "^[0-9]"; cat /proc/net/dev'

say "Exit codes, limits and time-outs are the command's own"
show run --memory 256M --cpus 0.5 --timeout 1s -- sleep 10 || echo "(exit status $?)"

say "A sandbox that stays, with this project's source tree in it"
cpus=$(nproc)
timed "create a sandbox" sh -c '"$0" create --quiet --name demo --memory 2G --disk 4G --cpus "$1" >"$2"' \
	"$aviary" "$cpus" "$home/id"
show ls
cd "$top"
set --
for f in * .clang-format; do
	case $f in build*) ;; *) [ -e "$f" ] && set -- "$@" "$f" ;; esac
done
show exec demo -- mkdir -p /root/aviary
print_command cp "$@" demo:/root/aviary
timed "copy the source tree ($(du -sch "$@" | tail -n 1 | cut -f1)) into it" "$aviary" cp "$@" demo:/root/aviary

say "Building it inside, with the output as it comes"
show exec --workdir /root/aviary demo -- meson setup build >"$home/setup" 2>&1 || {
	cat "$home/setup"
	exit 1
}
tail -n 1 "$home/setup"
print_command exec --workdir /root/aviary demo -- ninja -C build
interactive=
[ -t 1 ] && interactive=--tty
# shellcheck disable=SC2086
timed "compile it there" "$aviary" exec $interactive --workdir /root/aviary demo -- ninja -C build

say "Running its unit tests inside"
print_command exec --workdir /root/aviary demo -- meson test -C build --no-rebuild --suite unit
timed "run its unit tests there" "$aviary" exec --workdir /root/aviary demo -- \
	meson test -C build --no-rebuild --suite unit

say "And the result back out"
show cp demo:/root/aviary/build/meson-logs/testlog.txt "$home/testlog.txt"
grep -E '^(Ok|Fail|Skipped):' "$home/testlog.txt" || true
timed "exec true" "$aviary" exec demo -- true
timed "delete it, with everything in it" "$aviary" rm --quiet demo

say "How long it took (each with the start of the command line)"
printf '%s' "$report"
cat <<END

${bold}What to try next${plain} (build/aviary is the program)
  build/aviary doctor               what this machine can do, and what would make it do more
  build/aviaryd &                   a daemon that stays; then:
  build/aviary run -it bash         a shell in a fresh sandbox
  build/aviary help                 everything else
  make bench                        how fast it is, beside what is possible on this machine
END

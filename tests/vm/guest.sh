#!/usr/bin/env bash
# Runs in the guest: guest.sh DIRECTORY BINARIES carries out DIRECTORY/plan, one line per
# job: name, working directory, bound in seconds, command; separated by tabs. A
# job's output goes to NAME.log and NAME.err, its exit code and seconds to
# NAME.exit.
set -uo pipefail
directory=$1 binaries=$2
# Memory is faster than the host's files, and large enough.
export TMPDIR=/run/jobs HOME=/run/jobs PATH=$binaries:$PATH
# There is more memory than time.
export GOGC=400
mkdir -p "$TMPDIR"
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
uname -r >"$directory/release"
# How many times slower than a host this machine is, for what has a knob.
VM_SLOW=1
[ "$(cat "$directory/accelerator")" = "with KVM" ] || VM_SLOW=$(cat "$directory/slow")
export VM_SLOW

while IFS=$'\t' read -r name where bound command; do
	echo "$name"
	cd "$where" || exit 1
	began=$(date +%s)
	timeout --kill-after=10 "$bound" bash -c "$command" >"$directory/$name.log" 2>"$directory/$name.err" </dev/null
	echo "$? $(($(date +%s) - began))" >"$directory/$name.exit"
done <"$directory/plan"
dmesg >"$directory/dmesg.log"

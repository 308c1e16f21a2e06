#!/usr/bin/env bash
# Boot a kernel of the cache: boot.sh IMAGE DIRECTORY [COMMAND]
# The guest sees the host's files, changes stay in its memory but for those in
# DIRECTORY. COMMAND runs as root, its output is on stdout, the console on
# stderr. Without a COMMAND there is a shell. Exit code: that of COMMAND, 255 if
# the guest did not end properly.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${VM_CACHE:-$here/../../.cache/vm}
cache=$(cd "$cache" && pwd)
image=$1 directory=$2

# Does a kernel start with KVM? That /dev/kvm is there is not enough: nested KVM may
# lack what QEMU needs, or hang. A kernel that starts says so within a second.
# VM_KVM=0 or 1 answers without a try.
kvm() {
	case ${VM_KVM:-} in
	0) return 1 ;;
	1) return 0 ;;
	esac
	[ -w /dev/kvm ] || return 1
	local console
	console=$(timeout 5 qemu-system-x86_64 -accel kvm -cpu host -m 256 -display none -serial stdio -no-reboot \
		-kernel "$image" -append "console=ttyS0 panic=-1" </dev/null 2>/dev/null | tr -d '\0') || true
	[[ $console == *"Linux version"* ]]
}

export PYTHONPATH=$cache/vng/usr/lib/python3/dist-packages
# virtme-ng wants the distribution's Python.
export PATH=$cache/vng/usr/bin:/usr/bin:/usr/sbin:/bin:/sbin
arguments=(--run "$image" --cpus "${VM_CPUS:-2}" --memory "${VM_MEMORY:-3G}" --force-9p --rwdir="$directory")
if kvm; then
	echo "with KVM" >"$directory/accelerator"
else
	echo "emulated" >"$directory/accelerator"
	arguments+=(--disable-kvm)
fi
# virtme-ng looks for the directory, as the guest has it, from where it stands.
cd /
if [ $# -lt 3 ]; then
	exec vng "${arguments[@]}"
fi
exec vng "${arguments[@]}" --verbose --exec "$3" </dev/null

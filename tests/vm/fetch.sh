#!/usr/bin/env bash
# Fill the cache with virtme-ng and kernels of Debian: fetch.sh KERNEL...
# A KERNEL is a series (6.1, 6.12, 6.18, ...) or "newest". Prints one line per
# kernel: its name, its image. With everything in the cache it does nothing else.
#
# What is harmless is installed (QEMU, busybox, ...); what would disturb the
# machine is unpacked in the cache: kernels, and virtme-ng, which comes from a
# newer suite than the machine's. Suites and mirror have an apt configuration of
# their own, so the machine's package lists stay as they are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${VM_CACHE:-$here/../../.cache/vm}
# Where kernels and virtme-ng are looked for, besides the machine's own suite.
suites=${VM_SUITES:-bookworm trixie trixie-backports}
updated=

mkdir -p "$cache" && cache=$(cd "$cache" && pwd)
export DEBIAN_FRONTEND=noninteractive

say() { printf 'fetch: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# mirror prints the address that apt has the machine's own Debian suite from.
mirror() {
	local codename
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' |
		awk -v suite="$codename" '$1 == suite && $2 == "main" && !found++ { print $3 }'
}

# private runs an apt command with the cache's own lists and archives.
private() {
	local root=$cache/apt command=$1
	shift
	"$command" -qq -o Dir::State="$root" -o Dir::State::lists="$root/lists" -o Dir::Cache="$root" \
		-o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# update fetches the package lists, once.
update() {
	local from suite key=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -z "$updated" ] || return 0
	from=$(mirror)
	[ -e "$key" ] || key= # then apt's own keys have to do
	[ -n "$from" ] || fail "apt knows no mirror with the main component of this Debian release"
	mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
	for suite in $suites; do
		echo "deb ${key:+[signed-by=$key]} $from $suite main"
	done >"$cache/apt/sources.list"
	say "package lists of $suites from $from"
	private apt-get update >&2
	updated=yes
}

# unpack puts packages into directory $1 of the cache, complete or not at all.
unpack() {
	local to=$cache/$1 work package deb
	shift
	work=$(mktemp -d "$cache/unpack.XXXXXX")
	for package in "$@"; do
		say "downloading $package ($(private apt-cache show "$package" | awk '/^Size:/ && !found++ { printf "%.1f MB", $2 / 1e6 }'))"
		(cd "$work" && private apt-get download "$package" >&2)
	done
	say "unpacking $*"
	for deb in "$work"/*.deb; do
		dpkg-deb -x "$deb" "$work/root"
	done
	finish_kernel "$work/root"
	chmod 755 "$work/root"
	rm -rf "$to"
	mkdir -p "$(dirname "$to")"
	mv "$work/root" "$to"
	rm -rf "$work"
}

# parts prints a kernel package and those it is divided into, if it is.
parts() {
	local release=${1#linux-image-}
	echo "$1"
	private apt-cache show "$1" | awk -F': ' '$1 == "Depends" && !found++ { print $2 }' | tr ',|' '\n' |
		awk '{ print $1 }' | grep -xF -e "linux-base-$release" -e "linux-binary-$release" -e "linux-modules-$release" || true
}

# finish_kernel puts image and modules of an unpacked kernel where they are looked
# for, and indexes the modules. Newer packages have both in /usr/lib/modules.
finish_kernel() {
	local modules release
	[ -d "$1/usr/lib/modules" ] || [ -d "$1/lib/modules" ] || return 0
	[ -e "$1/lib/modules" ] || { mkdir -p "$1/lib" && ln -s ../usr/lib/modules "$1/lib/modules"; }
	mkdir -p "$1/boot"
	for modules in "$1"/lib/modules/*; do
		release=$(basename "$modules")
		[ ! -e "$modules/vmlinuz" ] || mv "$modules/vmlinuz" "$1/boot/vmlinuz-$release"
		depmod -b "$1" "$release"
	done
}

# tools installs what runs virtual machines, where it is missing.
tools() {
	local missing=()
	command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
	command -v modprobe >/dev/null || missing+=(kmod)
	command -v file >/dev/null || missing+=(file)
	[ -x /bin/busybox ] && file -L /bin/busybox | grep -q static || missing+=(busybox-static)
	[ -x /lib/systemd/systemd-udevd ] || missing+=(udev)
	/usr/bin/python3 -c 'import argcomplete, requests, pkg_resources' 2>/dev/null ||
		missing+=(python3 python3-argcomplete python3-requests python3-pkg-resources)
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	apt-get update -qq >&2
	apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" >"$cache/install.log" 2>&1 ||
		fail "installation failed, see $cache/install.log"
}

# choose prints the newest kernel package of a series; flavours (rt, cloud) and
# unsigned builds have longer names.
choose() {
	local series
	series=$(sed 's/[.]/[.]/g' <<<"$1")
	[ "$1" != newest ] || series='[0-9]+[.][0-9]+'
	private apt-cache pkgnames linux-image- | grep -E "^linux-image-$series[.][^-]+(-[0-9]+)?-amd64\$" | sort -V | tail -n 1
}

kernel() {
	local package image
	if ! compgen -G "$cache/kernels/$1/boot/vmlinuz-*" >/dev/null; then
		update
		package=$(choose "$1")
		[ -n "$package" ] || fail "no kernel $1 in $suites"
		# shellcheck disable=SC2046 # one word per package
		unpack "kernels/$1" $(parts "$package")
	fi
	image=$(compgen -G "$cache/kernels/$1/boot/vmlinuz-*") || fail "$package has no kernel image"
	echo "$1 $image"
}

[ "$(dpkg --print-architecture)" = amd64 ] || fail "only amd64 is supported"
[ $# -gt 0 ] || fail "no kernel asked for"
tools
if ! [ -x "$cache/vng/usr/bin/vng" ]; then
	update
	unpack vng virtme-ng
fi
for k in "$@"; do
	kernel "$k"
done

#!/usr/bin/env bash
# A shell in a virtual machine: shell.sh KERNEL. Changes to files are forgotten,
# except in the directory that is printed. Leave with ^D.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
read -r _ image < <("$here/fetch.sh" "$1")
cache=${VM_CACHE:-$here/../../.cache/vm}
mkdir -p "$cache/results/shell"
directory=$(cd "$cache/results/shell" && pwd)
echo "writable: $directory; test binaries and ebb: $(dirname "$(dirname "$directory")")/bin"
exec "$here/boot.sh" "$image" "$directory"

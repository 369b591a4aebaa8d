#!/bin/bash
# Makes a Debian root file system (debootstrap, with the interpreters that the tests run) as a tar file and prints its path.
# It is kept in $HUSK_CACHE (default /var/cache/husk) for the next run. Needs root.
set -euo pipefail
cache=${HUSK_CACHE:-/var/cache/husk}
tar=$cache/debian-1.tar
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$tar" ]; then
	work=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	debootstrap --variant=minbase --include=python3-minimal,procps "$suite" "$work/root" >"$work/log" 2>&1 ||
		{ tail -20 "$work/log" >&2; echo "image: debootstrap failed" >&2; exit 1; }
	rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
	tar -C "$work/root" -cf "$work/tar" .
	mv "$work/tar" "$tar"
fi
echo "$tar"

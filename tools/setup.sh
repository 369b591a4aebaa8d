#!/bin/bash
# Installs the Debian packages that the tests need; does nothing where all are there.
set -euo pipefail
packages="gcc libc6-dev make git docker.io containerd runc debootstrap busybox-static python3 perl ruby
	sqlite3 xz-utils strace redis-server stress-ng procps iproute2"
missing=""
for p in $packages; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
	echo "setup: installing$missing"
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	# The packages' services are not wanted: the tests start what they need themselves.
	policy=""
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod +x "$policy"
	fi
	apt-get update -qq
	# shellcheck disable=SC2086
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
	[ -z "$policy" ] || rm -f "$policy"
fi

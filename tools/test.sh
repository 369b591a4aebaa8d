#!/bin/bash
# Runs every test: unit tests and repository rules, then what needs a whole runtime. The exit code is not zero if any of
# them failed. A step that fails is run once more, since most of them share a busy machine with daemons and dozens of
# processes; a step that passes only then is named at the end, and is to be looked into.
set -uo pipefail
cd "$(dirname "$0")/.."
failed="" again=""
step() {
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	if ! "$@"; then
		echo "== $name failed: once more"
		if "$@"; then again="$again $name"; else failed="$failed $name"; fi
	fi
	echo "== $name took $((SECONDS - start)) s"
}
step unit go test -timeout 600s ./pkg/... ./runsc/...
step repo go test -count=1 ./test/repo
step syscalls go test -count=1 -timeout 600s ./test/syscalls
step syscalls-ptrace env HUSK_PLATFORM=ptrace go test -count=1 -timeout 600s ./test/syscalls
step apps go test -count=1 -timeout 1200s ./test/apps
step oci go test -count=1 -timeout 600s ./test/oci
step security go test -count=1 -timeout 600s ./test/security
step docker go test -count=1 -timeout 900s ./test/docker
step containerd go test -count=1 -timeout 900s ./test/containerd
# Bazel is not among the packages that setup.sh installs: it brings Java.
if command -v bazel >/dev/null; then step bazel make bazel; fi
[ -z "$again" ] || echo "passed only in the second run:$again"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
echo "all tests passed"

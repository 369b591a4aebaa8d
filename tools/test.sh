#!/bin/bash
# Runs every test: unit tests and repository rules, then what needs a whole runtime. The exit code is
# not zero if any of them failed.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
step() {
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	"$@" || { failed=1; echo "== $name FAILED"; }
	echo "== $name took $((SECONDS - start)) s"
}
step unit go test -timeout 600s ./pkg/... ./runsc/...
step repo go test -count=1 ./test/repo
step syscalls go test -count=1 -timeout 900s ./test/syscalls
HUSK_PLATFORM=ptrace step syscalls-ptrace go test -count=1 -timeout 900s ./test/syscalls
step apps go test -count=1 -timeout 1200s ./test/apps
step oci go test -count=1 -timeout 600s ./test/oci
step security go test -count=1 -timeout 600s ./test/security
step docker go test -count=1 -timeout 900s ./test/docker
[ $failed = 0 ] && echo "all tests passed"
exit $failed

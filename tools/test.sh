#!/bin/bash
# Runs every test: unit tests and repository rules, then what needs a whole runtime. The exit code is not zero if any of
# them failed. A step that fails is run once more, since most of them share a busy machine with daemons and dozens of
# processes; what failed first is shown again at the end, where the last line names each step that passed only in
# the second run: such a step is to be looked into.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed="" flaky=""
step() {
	local name=$1 start=$SECONDS log=$logs/$1
	shift
	echo "== $name"
	# Not a pipe: a process that outlives the step would keep it open.
	if ! "$@" > >(tee "$log") 2>&1; then
		echo "== $name failed: once more"
		if "$@"; then flaky="$flaky $name"; else failed="$failed $name"; fi
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
for name in $flaky; do
	echo "== $name failed first with:"
	# What passed says nothing; the end of a log without a named failure may.
	grep -v -e '^ok ' -e 'no test files' "$logs/$name" | tail -n 150
done
[ -z "$failed" ] || echo "failed:$failed"
echo "flaky steps:${flaky:- none}"
[ -z "$failed" ] || exit 1
[ -z "$flaky" ] && echo "all tests passed" || echo "all tests passed, some only in the second run:$flaky"

#!/bin/bash
# Runs every fuzz target for a while. Usage: fuzz.sh [TIME each, default 20s]
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rl --include='*_test.go' '^func Fuzz' pkg runsc | xargs -n1 dirname | sort -u | while read -r dir; do
	for target in $(grep -h '^func Fuzz' "$dir"/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do
		echo "== $dir $target"
		go test -run='^$' -fuzz="^$target\$" -fuzztime="${1:-20s}" "./$dir"
	done
done

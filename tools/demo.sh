#!/bin/bash
# Shows what a sandbox is: its own kernel, its own processes, files of the host that it cannot change.
# Usage: demo.sh PATH-OF-RUNSC
set -euo pipefail
runsc=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo before >"$work/file"
echo "host kernel:    $(uname -sr)"
"$runsc" --root "$work/state" do sh -c '
	echo "sandbox kernel: $(uname -sr)"
	echo "its processes:"; ps -ef
	echo "its root:       $(ls -d /* | tr "\n" " ")"
	echo changed >"$0/file" && echo "wrote in the sandbox: $(cat "$0/file")"
' "$work"
echo "the host has:   $(cat "$work/file")"

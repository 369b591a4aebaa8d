package cmd

import (
	"os"
	"testing"
)

// TestSyscallsPage keeps docs/syscalls.md fresh.
func TestSyscallsPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/syscalls.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != syscallsPage() {
		t.Error("docs/syscalls.md is out of date: make docs")
	}
}

package syscalls

import (
	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"

	"golang.org/x/sys/unix"
)

// Support says how much of a system call works.
type Support uint8

// The degrees of support.
const (
	// Full is everything that applications can tell.
	Full Support = iota
	// Partial lacks what Entry.Note says.
	Partial
	// Stub checks arguments at most and always gives the error (or success) that Entry.Note explains.
	Stub
)

// String names s for documentation.
func (s Support) String() string {
	return [...]string{"full", "partial", "stub"}[s]
}

// Entry describes one system call of x86-64.
type Entry struct {
	Number  uint16
	Name    string
	Handler kernel.SyscallFn
	Support Support
	// Note tells what is missing, and for stubs what happens.
	Note string
	// Args are the formats of the arguments for strace, separated by blanks: see formats in strace.go. A call without
	// has no arguments.
	Args string
}

// families are the functions that contribute entries, in order of files.
var families = [...]func() []Entry{
	processEntries,
	execEntries,
	signalEntries,
	futexEntries,
	timeEntries,
	timerEntries,
	credEntries,
	prctlEntries,
	schedEntries,
	limitEntries,
	systemEntries,
	namespaceEntries,
	pidfdEntries,
	ptraceEntries,
	memoryEntries,
	mempolicyEntries,
	processVMEntries,
	pipeEntries,
	pollEntries,
	eventEntries,
	socketEntries,
	mqueueEntries,
	sysvEntries,
	memfdEntries,
	fileOpenEntries,
	fileIOEntries,
	fileStatEntries,
	fileNameEntries,
	fileAttrEntries,
	fileXattrEntries,
	fileMountEntries,
	fileCtlEntries,
	stubEntries,
}

// Table is everything that is known of the system calls.
type Table struct {
	kernel.SyscallTable
	entries [kernel.MaxSyscall]Entry
}

// New builds the table.
func New() *Table {
	t := &Table{}
	for _, f := range families {
		for _, e := range f() {
			t.entries[e.Number] = e
			t.Fn[e.Number] = e.Handler
		}
	}
	t.SyscallTable.Name = t.NameOf
	return t
}

// List calls f for all known system calls in order of their numbers.
func (t *Table) List(f func(e *Entry)) {
	for i := range t.entries {
		if t.entries[i].Name != "" {
			f(&t.entries[i])
		}
	}
}

// NameOf is the name of a system call; "" if it is unknown.
func (t *Table) NameOf(nr uint64) string {
	if nr < kernel.MaxSyscall {
		return t.entries[nr].Name
	}
	return ""
}

// fail is a handler that always gives err.
func fail(err unix.Errno) kernel.SyscallFn {
	return func(*kernel.Task, arch.SyscallArgs) (uintptr, error) { return 0, err }
}

// succeed is a handler that does nothing.
func succeed(*kernel.Task, arch.SyscallArgs) (uintptr, error) { return 0, nil }

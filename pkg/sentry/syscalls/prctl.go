package syscalls

func prctlEntries() []Entry { return nil }

package syscalls

func limitEntries() []Entry { return nil }

package syscalls

func credEntries() []Entry { return nil }

package boot

import "golang.org/x/sys/unix"

// memoryFile is the file at MemoryFD, 0 if the host could not make one.
func memoryFile() int {
	var st unix.Stat_t
	if unix.Fstat(MemoryFD, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	unix.CloseOnExec(MemoryFD)
	return MemoryFD
}

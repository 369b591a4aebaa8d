package arch

// CPUID executes the instruction of that name for a leaf and subleaf.
func CPUID(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

// TSC reads the time stamp counter.
func TSC() uint64

package arch

// CPUID executes the instruction of that name for a leaf and subleaf.
func CPUID(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

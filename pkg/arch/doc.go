// Package arch holds what depends on the processor architecture: the register file, the
// extended (FP/SIMD) state, the system call convention and signal frames.
//
// It is a leaf: it must not import any other package of the module but pkg/abi/linux.
package arch

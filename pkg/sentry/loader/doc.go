// Package loader builds the address space of a new program for execve(2): it reads #! scripts and ELF files, maps
// segments, and lays out the initial stack (arguments, environment, auxiliary vector).
//
// Executables are hostile. Only headers are read; contents are mapped and arrive by page faults.
//
// The package must not import vfs nor kernel: files reach it through the interface File.
package loader

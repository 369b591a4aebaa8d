// Package seccomp builds, checks, interprets and installs classic BPF filters on system calls,
// see seccomp(2).
//
// Filter describes a policy as data; Filter.Build compiles it to a short program: a binary search
// over the system call numbers with the hottest ones tested first, argument conditions as shared
// decision nodes, no load that repeats what the accumulator already holds. Check accepts exactly
// the programs that Linux accepts for SECCOMP_SET_MODE_FILTER, and Run interprets them; both serve
// the tests of our own filters and the filters that applications install on themselves inside the
// sandbox. Install hands a program to the host kernel.
//
// The package imports nothing of the module and holds no state and no locks.
package seccomp

// Package stub creates the host processes whose memory is that of an application.
//
// A stub process must be cheap and must hold nothing of the sentry. So the sentry is cloned once,
// early, into the zygote: a process of one thread that runs no Go code, is driven by ptrace(2) alone,
// and unmaps everything but a small block of position-independent code and the host's vdso. Both lie
// at places chosen at random for each sandbox, above Max, where no application mapping may be. Every
// other stub process is a clone of the zygote. They share the file descriptor table of the sentry, so
// that an injected mmap(2) names the sentry's descriptors, and inherit the one seccomp filter that
// the zygote installs.
//
// The thread that calls NewZygote becomes the tracer and the parent of the zygote: it has to be locked
// to its goroutine and must live as long as the zygote, because the kernel kills the stubs (EXITKILL
// and PDEATHSIG) when that thread ends. NewZygote has to be called after the process took its final
// root directory and credentials, because the zygote keeps those that it was born with.
//
// All signals are blocked in the zygote and what it clones, until Tracee.SetSigMask unblocks them.
//
// The package is used by the platforms that run stubs; it imports nothing of the module but pkg/arch.
// It takes no locks.
package stub

package boot

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"husk/pkg/seccomp"
)

// setName sets the name under which ps(1) and top(1) show the process.
func setName(name string) {
	b, err := unix.BytePtrFromString(name)
	if err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}

// checkConfined makes sure that the process has no capabilities but those of mask, and cannot gain any: what takes them
// away happens before it executes its program.
func checkConfined(mask uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if have := uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32; have&^mask != 0 {
		return fmt.Errorf("the process has the capabilities %#x", have)
	}
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || on != 1 {
		return errors.New("the process may gain privileges")
	}
	return nil
}

// buildFilter compiles a system call filter in the background. The function that it returns puts
// every thread of the process under it.
func buildFilter(f *seccomp.Filter) (install func() error) {
	type result struct {
		prog []seccomp.Insn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		prog, err := f.Build()
		done <- result{prog, err}
	}()
	return func() error {
		r := <-done
		if r.err == nil {
			r.err = seccomp.Install(r.prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
		}
		if r.err != nil {
			return fmt.Errorf("seccomp filter: %w", r.err)
		}
		return nil
	}
}

package mm

import "runtime/debug"

// guard runs f, which touches a mapping of a host file that may be shorter than the mapping by now. An access behind its end
// (SIGBUS) ends f early.
func guard(f func()) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(interface{ Addr() uintptr }); !ok {
				panic(r)
			}
		}
	}()
	f()
}

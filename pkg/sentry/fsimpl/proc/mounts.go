package proc

import (
	"sync/atomic"

	"husk/pkg/sentry/fsimpl/pseudo"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

// mountsFile is an open mounts, mountinfo or mountstats. A poll(2) tells of changes by POLLPRI and POLLERR.
type mountsFile struct {
	pseudo.OpenFile
	ns   *vfs.MountNamespace // a reference
	root vfs.Path            // of the task when the file was opened; a reference
	text func(*vfs.MountNamespace, vfs.Path) []byte
	seen atomic.Int64 // events that a poll has been told
}

// Generate implements pseudo.Generator.
func (f *mountsFile) Generate(_ vfs.Context, b []byte) ([]byte, error) {
	return append(b, f.text(f.ns, f.root)...), nil
}

// Release implements vfs.FileImpl.
func (f *mountsFile) Release() {
	f.root.DecRef()
	f.ns.DecRef()
}

// Readiness implements waiter.Waitable.
func (f *mountsFile) Readiness(mask waiter.EventMask) waiter.EventMask {
	ready := waiter.ReadableEvents
	if n := f.ns.Events(); f.seen.Swap(n) != n {
		ready |= waiter.EventPri | waiter.EventErr
	}
	return ready & mask
}

// EventRegister implements waiter.Waitable.
func (f *mountsFile) EventRegister(e *waiter.Entry) { f.ns.EventRegister(e) }

// EventUnregister implements waiter.Waitable.
func (f *mountsFile) EventUnregister(e *waiter.Entry) { f.ns.EventUnregister(e) }

func (e *env) openMountsFile(text func(*vfs.MountNamespace, vfs.Path) []byte) (vfs.FileImpl, error) {
	root, err := linkRoot(e)
	if err != nil {
		return nil, unix.EINVAL
	}
	ns := e.t.MountNS()
	if ns == nil || !ns.TryIncRef() {
		root.DecRef()
		return nil, unix.EINVAL
	}
	f := &mountsFile{ns: ns, root: root, text: text}
	f.InitOpenFile(f)
	f.seen.Store(ns.Events())
	return f, nil
}

func openMounts(e *env, _ uint32) (vfs.FileImpl, error) {
	return e.openMountsFile((*vfs.MountNamespace).Mounts)
}

func openMountInfo(e *env, _ uint32) (vfs.FileImpl, error) {
	return e.openMountsFile((*vfs.MountNamespace).MountInfo)
}

func openMountStats(e *env, _ uint32) (vfs.FileImpl, error) {
	return e.openMountsFile((*vfs.MountNamespace).MountStats)
}

package overlay

import (
	"testing"

	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

func bench(b *testing.B, f func(v *vfs.VFS, ctx vfs.Context)) {
	w := newWorld(b)
	w.V.SetCacheSize(1 << 16)
	w.Mkdir(b, "/tmp")
	f(w.V, w.Ctx)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		f(w.V, w.Ctx)
	}
}

func BenchmarkStatLower(b *testing.B) {
	bench(b, func(v *vfs.VFS, ctx vfs.Context) {
		var st vfs.Stat
		if err := v.Stat(ctx, vfs.Path{}, "/a/b/c/d", vfs.FollowLast, unix.STATX_BASIC_STATS, &st); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkStatMissing(b *testing.B) {
	bench(b, func(v *vfs.VFS, ctx vfs.Context) {
		var st vfs.Stat
		if err := v.Stat(ctx, vfs.Path{}, "/a/b/c/none", vfs.FollowLast, unix.STATX_BASIC_STATS, &st); err != unix.ENOENT {
			b.Fatal(err)
		}
	})
}

func BenchmarkOpenLower(b *testing.B) {
	bench(b, func(v *vfs.VFS, ctx vfs.Context) {
		fd, err := v.Open(ctx, vfs.Path{}, "/a/b/c/d", &vfs.OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		fd.DecRef()
	})
}

func BenchmarkCreateUnlink(b *testing.B) {
	bench(b, func(v *vfs.VFS, ctx vfs.Context) {
		fd, err := v.Open(ctx, vfs.Path{}, "/tmp/x", &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0600})
		if err != nil {
			b.Fatal(err)
		}
		fd.DecRef()
		if err := v.Unlink(ctx, vfs.Path{}, "/tmp/x"); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkReadUpper(b *testing.B) {
	var fd *vfs.FileDescription
	s := mm.BytesSeq(make([]byte, 4096))
	bench(b, func(v *vfs.VFS, ctx vfs.Context) {
		if fd == nil {
			fd, _ = v.Open(ctx, vfs.Path{}, "/tmp/x", &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0600})
			fd.PWrite(ctx, s, 0)
		}
		fd.PRead(ctx, s, 0)
	})
}

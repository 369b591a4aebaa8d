package fstest

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/vfs"

	"golang.org/x/sys/unix"
)

// Stress runs random operations on few names from several goroutines for a while: nothing may crash or hang, and reference counts must hold.
func (w *World) Stress(t *testing.T, workers int, d time.Duration) {
	stop := time.Now().Add(d)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := w.As(0)
			r := rand.New(rand.NewPCG(uint64(k), 3))
			files := w.V.NewFDTable()
			for time.Now().Before(stop) {
				w.stressStep(ctx, r, files)
			}
			files.DecRef(ctx)
		}()
	}
	wg.Wait()
}

func stressPath(r *rand.Rand) string {
	b := []byte{'/'}
	for k := 1 + r.IntN(3); k > 0; k-- {
		b = append(b, "abc"[r.IntN(3)], '/')
	}
	if r.IntN(8) == 0 {
		b = append(b, ".."...)
		return string(b)
	}
	return string(b[:len(b)-1])
}

func (w *World) stressStep(ctx vfs.Context, r *rand.Rand, files *vfs.FDTable) {
	p, q := stressPath(r), stressPath(r)
	v, at := w.V, vfs.Path{}
	var st vfs.Stat
	switch r.IntN(12) {
	case 0:
		_ = v.Mkdir(ctx, at, p, 0755)
	case 1:
		_ = v.Rmdir(ctx, at, p)
	case 2:
		_ = v.Unlink(ctx, at, p)
	case 3, 4:
		_ = v.Rename(ctx, at, p, at, q, uint32(r.IntN(2)*unix.RENAME_EXCHANGE))
	case 5:
		_ = v.Symlink(ctx, q, at, p)
	case 6:
		_ = v.Link(ctx, at, p, at, q, 0)
	case 7, 8:
		fd, err := v.Open(ctx, at, p, &vfs.OpenOptions{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0644})
		if err == nil {
			_, _ = fd.Write(ctx, mm.BytesSeq(make([]byte, r.IntN(10000))))
			_, _ = fd.PRead(ctx, mm.BytesSeq(make([]byte, 5000)), 0)
			_, _ = files.Install(ctx, fd, 0, false)
			fd.DecRef()
			if r.IntN(3) == 0 {
				_ = files.Close(ctx, int32(r.IntN(10)))
			}
		}
	case 9:
		if fd, err := v.Open(ctx, at, p, &vfs.OpenOptions{Flags: unix.O_DIRECTORY}); err == nil {
			_ = fd.ReadDir(ctx, &names{burst: -1000})
			_ = v.Stat(ctx, fd.Path(), "../a", 0, 0, &st)
			fd.DecRef()
		}
	case 10:
		_ = v.SetStat(ctx, at, p, 0, &vfs.SetStat{Mask: vfs.SetUID, UID: auth.KUID(r.IntN(3))})
	default:
		_ = v.Stat(ctx, at, p, vfs.FollowLast, 0, &st)
	}
}

package proc_test

import (
	"testing"

	"husk/pkg/sentry/mm"
)

func BenchmarkRead(b *testing.B) {
	w := newWorld(b)
	tg := w.Spawn(nil)
	for range 50 {
		w.Spawn(nil)
	}
	buf := mm.BytesSeq(make([]byte, 64<<10))
	for _, f := range []string{dirOf(tg) + "/stat", dirOf(tg) + "/status", dirOf(tg) + "/maps", dirOf(tg) + "/cmdline", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/cpuinfo",
		"/proc/sys/kernel/ostype"} {
		b.Run(f, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				fd, err := w.Open(w.Ctx, f, 0)
				w.Check(err)
				if _, err := fd.PRead(w.Ctx, buf, 0); err != nil {
					b.Fatal(err)
				}
				fd.DecRef()
			}
		})
	}
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			w.List(w.Ctx, "/proc", 1000)
		}
	})
}

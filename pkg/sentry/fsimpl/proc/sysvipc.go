package proc

import (
	"strconv"

	"husk/pkg/sentry/ipc"
	"husk/pkg/sentry/vfs"
)

// sysvOf is the System V objects of ctx's IPC namespace; nil for the sentry itself.
func sysvOf(f *FS, ctx vfs.Context) *ipc.Namespace {
	t := taskOf(ctx)
	if t == nil {
		return nil
	}
	n := t.IPCNamespace()
	return n.Registry(ipc.Key{}, func() any { return ipc.New(n.UserNS(), f.k.MemFile()) }).(*ipc.Namespace)
}

// sysvRow appends right-aligned columns.
type sysvRow struct{ b []byte }

func (r *sysvRow) num(v int64, width int) {
	var t [20]byte
	s := strconv.AppendInt(t[:0], v, 10)
	for n := len(s); n < width; n++ {
		r.b = append(r.b, ' ')
	}
	r.b = append(r.b, s...)
}

func (r *sysvRow) nums(width int, list ...int64) {
	for _, v := range list {
		r.b = append(r.b, ' ')
		r.num(v, width)
	}
}

// head appends key, identifier and mode.
func (r *sysvRow) head(p *ipc.Perm) {
	r.num(int64(p.Key), 10)
	r.nums(10, int64(p.ID()))
	mode := strconv.FormatUint(uint64(p.Mode), 8)
	r.b = append(r.b, "  "...)
	for n := len(mode); n < 4; n++ {
		r.b = append(r.b, ' ')
	}
	r.b = append(r.b, mode...)
}

// owners appends owner and creator as ctx sees them.
func (r *sysvRow) owners(ctx vfs.Context, p *ipc.Perm) {
	r.nums(5, int64(shownUID(ctx, p.UID)), int64(shownGID(ctx, p.GID)), int64(shownUID(ctx, p.CUID)), int64(shownGID(ctx, p.CGID)))
}

// genSysvMsg is proc_sysvipc(5), msg.
func genSysvMsg(f *FS, ctx vfs.Context, b []byte) ([]byte, error) {
	r := sysvRow{append(b, "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"...)}
	if n := sysvOf(f, ctx); n != nil {
		n.Msg.ForEach(func(s ipc.MsgStat) {
			r.head(&s.Perm)
			r.b = append(r.b, ' ')
			r.nums(10, int64(s.Bytes), int64(s.Messages))
			r.nums(5, int64(s.Sender), int64(s.Receiver))
			r.owners(ctx, &s.Perm)
			r.nums(10, s.SendTime, s.RecvTime, s.Changed)
			r.b = append(r.b, '\n')
		})
	}
	return r.b, nil
}

// genSysvSem is proc_sysvipc(5), sem.
func genSysvSem(f *FS, ctx vfs.Context, b []byte) ([]byte, error) {
	r := sysvRow{append(b, "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"...)}
	if n := sysvOf(f, ctx); n != nil {
		n.Sem.ForEach(func(s ipc.SemStat) {
			r.head(&s.Perm)
			r.nums(10, int64(s.Count))
			r.owners(ctx, &s.Perm)
			r.nums(10, s.OpTime, s.Changed)
			r.b = append(r.b, '\n')
		})
	}
	return r.b, nil
}

// genSysvShm is proc_sysvipc(5), shm.
func genSysvShm(f *FS, ctx vfs.Context, b []byte) ([]byte, error) {
	r := sysvRow{append(b, "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n"...)}
	if n := sysvOf(f, ctx); n != nil {
		n.Shm.ForEach(func(s ipc.ShmStat) {
			r.head(&s.Perm)
			r.nums(21, int64(s.Size))
			r.nums(5, int64(s.Creator), int64(s.Last))
			r.nums(6, s.Attaches)
			r.owners(ctx, &s.Perm)
			r.nums(10, s.Attached, s.Detached, s.Changed)
			r.nums(21, int64(s.Resident), 0)
			r.b = append(r.b, '\n')
		})
	}
	return r.b, nil
}

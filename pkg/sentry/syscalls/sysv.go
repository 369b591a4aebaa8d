package syscalls

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/clock"
	"husk/pkg/sentry/ipc"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/vfs"
)

// sysvEntries are System V shared memory, semaphores and message queues.
func sysvEntries() []Entry {
	return []Entry{
		{Number: unix.SYS_SHMGET, Name: "shmget", Handler: shmget, Support: Partial, Note: "no huge pages", Args: "int size hex"},
		{Number: unix.SYS_SHMAT, Name: "shmat", Handler: shmat, Args: "int ptr hex"},
		{Number: unix.SYS_SHMDT, Name: "shmdt", Handler: shmdt, Args: "ptr"},
		{Number: unix.SYS_SHMCTL, Name: "shmctl", Handler: shmctl, Args: "int int ptr"},
		{Number: unix.SYS_SEMGET, Name: "semget", Handler: semget, Args: "int int hex"},
		{Number: unix.SYS_SEMOP, Name: "semop", Handler: semop, Args: "int ptr size"},
		{Number: unix.SYS_SEMTIMEDOP, Name: "semtimedop", Handler: semtimedop, Args: "int ptr size ptr"},
		{Number: unix.SYS_SEMCTL, Name: "semctl", Handler: semctl, Args: "int int int hex"},
		{Number: unix.SYS_MSGGET, Name: "msgget", Handler: msgget, Args: "int hex"},
		{Number: unix.SYS_MSGSND, Name: "msgsnd", Handler: msgsnd, Args: "int ptr size hex"},
		{Number: unix.SYS_MSGRCV, Name: "msgrcv", Handler: msgrcv, Args: "int ptr size int hex"},
		{Number: unix.SYS_MSGCTL, Name: "msgctl", Handler: msgctl, Args: "int int ptr"},
	}
}

// Commands of shmctl(2), semctl(2) and msgctl(2).
const (
	ipcRmid = 0
	ipcSet  = 1
	ipcStat = 2
	ipcInfo = 3

	shmLock    = 11
	shmUnlock  = 12
	shmStat    = 13
	shmInfo    = 14
	shmStatAny = 15

	msgStat    = 11
	msgInfo    = 12
	msgStatAny = 13

	semGetPID  = 11
	semGetVal  = 12
	semGetAll  = 13
	semGetNCnt = 14
	semGetZCnt = 15
	semSetVal  = 16
	semSetAll  = 17
	semStat    = 18
	semInfo    = 19
	semStatAny = 20
)

// sysv is the System V objects that t sees.
func sysv(t *kernel.Task) *ipc.Namespace {
	n := t.IPCNamespace()
	return n.Registry(ipc.Key{}, func() any { return ipc.New(n.UserNS(), t.Kernel().MemFile()) }).(*ipc.Namespace)
}

// fields builds a structure from its fields.
type fields struct {
	b [120]byte
	n int
}

func (f *fields) u32(v ...uint32) {
	for _, x := range v {
		binary.LittleEndian.PutUint32(f.b[f.n:], x)
		f.n += 4
	}
}

func (f *fields) u64(v ...uint64) {
	for _, x := range v {
		binary.LittleEndian.PutUint64(f.b[f.n:], x)
		f.n += 8
	}
}

// perm adds struct ipc64_perm.
func (f *fields) perm(t *kernel.Task, p *ipc.Perm) {
	ns := t.UserNS()
	uid, _ := ns.UID(p.UID)
	gid, _ := ns.GID(p.GID)
	cuid, _ := ns.UID(p.CUID)
	cgid, _ := ns.GID(p.CGID)
	f.u32(uint32(p.Key), uint32(uid), uint32(gid), uint32(cuid), uint32(cgid), uint32(p.Mode), uint32(p.Seq), 0)
	f.u64(0, 0)
}

func (f *fields) copyOut(t *kernel.Task, addr uint64) error {
	_, err := t.MM().CopyOut(addr, f.b[:f.n])
	return err
}

// owner reads what IPC_SET changes. EFAULT, EINVAL for IDs without a meaning in the caller's user namespace.
func owner(t *kernel.Task, addr uint64) (o ipc.Owner, err error) {
	var b [24]byte
	if _, err := t.MM().CopyIn(addr, b[:]); err != nil {
		return o, err
	}
	le := binary.LittleEndian
	uid, ok1 := t.UserNS().KUID(auth.UID(le.Uint32(b[4:])))
	gid, ok2 := t.UserNS().KGID(auth.GID(le.Uint32(b[8:])))
	if !ok1 || !ok2 {
		return o, unix.EINVAL
	}
	return ipc.Owner{UID: uid, GID: gid, Mode: le.Uint16(b[20:])}, nil
}

func shmget(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	const hugeTLB = 0o4000
	flags := int(a[2].Int())
	if flags&hugeTLB != 0 {
		return 0, unix.ENOMEM
	}
	id, err := sysv(t).Shm.Get(t.Credentials(), t.Group().ID(), a[0].Int(), a[1].Uint64(), flags)
	return uintptr(id), err
}

func shmat(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	addr, err := sysv(t).Shm.Attach(t.Credentials(), t.MM(), t.Group().ID(), a[0].Int(), a[1].Pointer(), int(a[2].Int()))
	return uintptr(addr), err
}

func shmdt(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	return 0, ipc.Detach(t.MM(), t.Group().ID(), a[0].Pointer())
}

func shmctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, c := sysv(t).Shm, t.Credentials()
	id, cmd, buf := a[0].Int(), a[1].Int(), a[2].Pointer()
	if id < 0 {
		return 0, unix.EINVAL
	}
	var f fields
	switch cmd {
	case ipcInfo:
		_, _, _, highest := s.Info()
		f.u64(ipc.ShmMax, ipc.ShmMin, ipc.ShmMni, ipc.ShmMni, ipc.ShmAll, 0, 0, 0, 0)
		return uintptr(highest), f.copyOut(t, buf)
	case shmInfo:
		segs, pages, resident, highest := s.Info()
		f.u32(uint32(segs), 0)
		f.u64(pages, resident, 0, 0, 0)
		return uintptr(highest), f.copyOut(t, buf)
	case ipcStat, shmStat, shmStatAny:
		st, err := s.Stat(c, id, cmd != ipcStat, cmd == shmStatAny)
		if err != nil {
			return 0, err
		}
		f.perm(t, &st.Perm)
		f.u64(st.Size, uint64(st.Attached), uint64(st.Detached), uint64(st.Changed))
		f.u32(uint32(st.Creator), uint32(st.Last))
		f.u64(uint64(st.Attaches), 0, 0)
		if cmd != ipcStat {
			return uintptr(st.ID()), f.copyOut(t, buf)
		}
		return 0, f.copyOut(t, buf)
	case ipcSet:
		o, err := owner(t, buf)
		if err != nil {
			return 0, err
		}
		return 0, s.Set(c, id, o)
	case ipcRmid:
		return 0, s.Remove(c, id)
	case shmLock, shmUnlock:
		return 0, s.Lock(c, id, cmd == shmLock)
	}
	return 0, unix.EINVAL
}

func semget(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	id, err := sysv(t).Sem.Get(t.Credentials(), a[0].Int(), a[1].Int(), int(a[2].Int()))
	return uintptr(id), err
}

func semop(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	a[3] = 0
	return semtimedop(t, a)
}

// semExit runs when the last thread of a process exits.
type semExit struct{}

func semtimedop(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := a[2].Uint64()
	if n < 1 || a[0].Int() < 0 {
		return 0, unix.EINVAL
	}
	if n > ipc.SemOpm {
		return 0, unix.E2BIG
	}
	ops := make([]ipc.SemOp, n)
	undo := false
	for i := range ops {
		var b [6]byte
		if _, err := t.MM().CopyIn(a[1].Pointer()+uint64(i)*6, b[:]); err != nil {
			return 0, err
		}
		le := binary.LittleEndian
		ops[i] = ipc.SemOp{Num: le.Uint16(b[:]), Op: int16(le.Uint16(b[2:])), Flags: int16(le.Uint16(b[4:]))}
		undo = undo || ops[i].Flags&ipc.SemUndo != 0
	}
	deadline := vfs.NoDeadline
	if p := a[3].Pointer(); p != 0 {
		sec, err := t.MM().ReadUint64(p)
		if err != nil {
			return 0, err
		}
		nsec, err := t.MM().ReadUint64(p + 8)
		if err != nil {
			return 0, err
		}
		if int64(sec) < 0 || nsec >= 1e9 {
			return 0, unix.EINVAL
		}
		if sec < 1<<32 {
			deadline = clock.Monotonic() + int64(sec)*1e9 + int64(nsec)
		}
	}
	s := sysv(t).Sem
	if undo {
		t.Group().AtExit(semExit{}, func(g *kernel.ThreadGroup) { s.Exit(g, g.ID()) })
	}
	return 0, s.Do(t, t.Group().ID(), t.Group(), a[0].Int(), ops, deadline)
}

func semctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, c := sysv(t).Sem, t.Credentials()
	id, num, cmd, arg := a[0].Int(), a[1].Int(), a[2].Int(), a[3].Uint64()
	if id < 0 {
		return 0, unix.EINVAL
	}
	var f fields
	switch cmd {
	case ipcInfo, semInfo:
		sets, sems, highest := s.Info()
		usz, aem := uint32(20), uint32(ipc.SemVmx)
		if cmd == semInfo {
			usz, aem = uint32(sets), uint32(sems)
		}
		f.u32(ipc.SemMns, ipc.SemMni, ipc.SemMns, ipc.SemMns, ipc.SemMsl, ipc.SemOpm, ipc.SemOpm, usz, ipc.SemVmx, aem)
		return uintptr(highest), f.copyOut(t, arg)
	case ipcStat, semStat, semStatAny:
		st, err := s.Stat(c, id, cmd != ipcStat, cmd == semStatAny)
		if err != nil {
			return 0, err
		}
		f.perm(t, &st.Perm)
		f.u64(uint64(st.OpTime), 0, uint64(st.Changed), 0, uint64(st.Count), 0, 0)
		if cmd != ipcStat {
			return uintptr(st.ID()), f.copyOut(t, arg)
		}
		return 0, f.copyOut(t, arg)
	case ipcSet:
		o, err := owner(t, arg)
		if err != nil {
			return 0, err
		}
		return 0, s.Set(c, id, o)
	case ipcRmid:
		return 0, s.Remove(c, id)
	case semGetAll, semSetAll:
		return 0, semAll(t, s, id, cmd, arg)
	case semSetVal:
		return 0, s.SetValue(c, t.Group().ID(), id, num, int32(arg))
	case semGetPID, semGetVal, semGetNCnt, semGetZCnt:
		st, err := s.State(c, id, num)
		v := [...]int32{st.PID, st.Value, 0, st.More, st.Zero}[cmd-semGetPID]
		return uintptr(v), err
	}
	return 0, unix.EINVAL
}

// semAll is GETALL and SETALL.
func semAll(t *kernel.Task, s *ipc.Sems, id, cmd int32, arg uint64) error {
	if cmd == semGetAll {
		list, err := s.Values(t.Credentials(), id)
		if err != nil {
			return err
		}
		b := make([]byte, 2*len(list))
		for i, v := range list {
			binary.LittleEndian.PutUint16(b[2*i:], v)
		}
		_, err = t.MM().CopyOut(arg, b)
		return err
	}
	n, err := s.Count(t.Credentials(), id)
	if err != nil {
		return err
	}
	b := make([]byte, 2*n)
	if _, err := t.MM().CopyIn(arg, b); err != nil {
		return err
	}
	list := make([]uint16, n)
	for i := range list {
		list[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return s.SetValues(t.Credentials(), t.Group().ID(), id, list)
}

func msgget(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	id, err := sysv(t).Msg.Get(t.Credentials(), a[0].Int(), int(a[1].Int()))
	return uintptr(id), err
}

func msgsnd(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	n := a[2].Uint64()
	typ, err := t.MM().ReadUint64(a[1].Pointer())
	if err != nil {
		return 0, err
	}
	if n > ipc.MsgMax || a[0].Int() < 0 || int64(typ) < 1 {
		return 0, unix.EINVAL
	}
	text := make([]byte, n)
	if _, err := t.MM().CopyIn(a[1].Pointer()+8, text); err != nil {
		return 0, err
	}
	return 0, sysv(t).Msg.Send(t, t.Group().ID(), a[0].Int(), ipc.Message{Type: int64(typ), Text: text}, a[3].Int()&unix.IPC_NOWAIT != 0)
}

func msgrcv(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	size, flags := a[2].Uint64(), int(a[4].Int())
	if int64(size) < 0 || a[0].Int() < 0 || flags&ipc.MsgCopy != 0 && (flags&ipc.MsgExcept != 0 || flags&unix.IPC_NOWAIT == 0) {
		return 0, unix.EINVAL
	}
	m, err := sysv(t).Msg.Receive(t, t.Group().ID(), a[0].Int(), size, a[3].Int64(), flags)
	if err != nil {
		return 0, err
	}
	if err := t.MM().WriteUint64(a[1].Pointer(), uint64(m.Type)); err != nil {
		return 0, err
	}
	n, err := t.MM().CopyOut(a[1].Pointer()+8, m.Text)
	return uintptr(n), err
}

func msgctl(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, c := sysv(t).Msg, t.Credentials()
	id, cmd, buf := a[0].Int(), a[1].Int(), a[2].Pointer()
	if id < 0 {
		return 0, unix.EINVAL
	}
	var f fields
	switch cmd {
	case ipcInfo, msgInfo:
		queues, messages, bytes, highest := s.Info()
		pool, mapp, tql := uint32(ipc.MsgMni*ipc.MsgMnb/1024), uint32(ipc.MsgMnb), uint32(ipc.MsgMnb)
		if cmd == msgInfo {
			pool, mapp, tql = uint32(queues), uint32(messages), uint32(bytes)
		}
		f.u32(pool, mapp, ipc.MsgMax, ipc.MsgMnb, ipc.MsgMni, 16, tql, 0xffff)
		return uintptr(highest), f.copyOut(t, buf)
	case ipcStat, msgStat, msgStatAny:
		st, err := s.Stat(c, id, cmd != ipcStat, cmd == msgStatAny)
		if err != nil {
			return 0, err
		}
		f.perm(t, &st.Perm)
		f.u64(uint64(st.SendTime), uint64(st.RecvTime), uint64(st.Changed), st.Bytes, st.Messages, st.Limit)
		f.u32(uint32(st.Sender), uint32(st.Receiver))
		f.u64(0, 0)
		if cmd != ipcStat {
			return uintptr(st.ID()), f.copyOut(t, buf)
		}
		return 0, f.copyOut(t, buf)
	case ipcSet:
		o, err := owner(t, buf)
		if err != nil {
			return 0, err
		}
		limit, err := t.MM().ReadUint64(buf + 88)
		if err != nil {
			return 0, err
		}
		return 0, s.Set(c, id, o, limit)
	case ipcRmid:
		return 0, s.Remove(c, id)
	}
	return 0, unix.EINVAL
}

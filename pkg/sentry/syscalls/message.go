package syscalls

import (
	"encoding/binary"

	"husk/pkg/arch"
	"husk/pkg/sentry/kernel"
	"husk/pkg/sentry/mm"
	"husk/pkg/sentry/socket"
	"husk/pkg/sentry/vfs"
	"husk/pkg/sentry/waiter"

	"golang.org/x/sys/unix"
)

const (
	// maxTransfer is MAX_RW_COUNT: no call moves more bytes.
	maxTransfer = 0x7ffff000
	// maxIovec is UIO_MAXIOV.
	maxIovec = 1024
	// maxControl bounds ancillary data to send (/proc/sys/net/core/optmem_max), maxRights the files in it (SCM_MAX_FD).
	maxControl = 128 << 10
	maxRights  = 253
	msghdrSize = 56
	cmsgHeader = 16
)

// msghdr is struct msghdr.
type msghdr struct {
	name       uint64
	nameLen    int32
	iov        uint64
	iovLen     uint64
	control    uint64
	controlLen uint64
	flags      uint32
}

// messageState is the memory of one transfer.
type messageState struct {
	m       socket.Message
	h       msghdr
	iov     []mm.AddrRange
	raw     []byte
	control []byte
}

func (s *shared) message() *messageState {
	if p, ok := s.messages.Get().(*messageState); ok {
		return p
	}
	return &messageState{}
}

func (s *shared) putMessage(p *messageState) {
	p.m.Control.DropRights()
	p.m.Reset()
	if cap(p.control) <= 4096 && cap(p.iov) <= 64 {
		s.messages.Put(p)
	}
}

// bytes returns n bytes of *b, which grows as needed.
func scratchBytes(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	return (*b)[:n]
}

// readHeader loads the struct msghdr at addr and its vector.
func (p *messageState) readHeader(t *kernel.Task, addr uint64) (mm.IOSeq, error) {
	b := scratchBytes(&p.raw, msghdrSize)
	if _, err := t.MM().CopyIn(addr, b); err != nil {
		return mm.IOSeq{}, err
	}
	le := binary.LittleEndian
	p.h = msghdr{
		name: le.Uint64(b), nameLen: int32(le.Uint32(b[8:])), iov: le.Uint64(b[16:]), iovLen: le.Uint64(b[24:]),
		control: le.Uint64(b[32:]), controlLen: le.Uint64(b[40:]), flags: le.Uint32(b[48:]),
	}
	if p.h.iovLen > maxIovec {
		return mm.IOSeq{}, unix.EMSGSIZE
	}
	n := int(p.h.iovLen)
	if n == 0 {
		return t.MM().Seq(0, 0), nil
	}
	b = scratchBytes(&p.raw, 16*n)
	if _, err := t.MM().CopyIn(p.h.iov, b); err != nil {
		return mm.IOSeq{}, err
	}
	if cap(p.iov) < n {
		p.iov = make([]mm.AddrRange, n)
	}
	p.iov = p.iov[:n]
	left := uint64(maxTransfer)
	for i := range p.iov {
		r := mm.AddrRange{Addr: le.Uint64(b[16*i:]), Len: le.Uint64(b[16*i+8:])}
		if int64(r.Len) < 0 {
			return mm.IOSeq{}, unix.EINVAL
		}
		r.Len = min(r.Len, left)
		left -= r.Len
		p.iov[i] = r
	}
	return t.MM().SeqOf(p.iov), nil
}

// readControl decodes the ancillary data to send.
func (p *messageState) readControl(t *kernel.Task, s socket.Socket) error {
	if p.h.control == 0 || p.h.controlLen == 0 {
		return nil
	}
	if p.h.controlLen > maxControl {
		return unix.ENOBUFS
	}
	b := scratchBytes(&p.control, int(p.h.controlLen))
	if _, err := t.MM().CopyIn(p.h.control, b); err != nil {
		return err
	}
	for len(b) >= cmsgHeader {
		n := binary.LittleEndian.Uint64(b)
		if n < cmsgHeader || n > uint64(len(b)) {
			return unix.EINVAL
		}
		level, typ := int32(binary.LittleEndian.Uint32(b[8:])), int32(binary.LittleEndian.Uint32(b[12:]))
		if err := p.readOne(t, s, level, typ, b[cmsgHeader:n]); err != nil {
			return err
		}
		b = b[min((int(n)+7)&^7, len(b)):]
	}
	return nil
}

func (p *messageState) readOne(t *kernel.Task, s socket.Socket, level, typ int32, data []byte) error {
	c := &p.m.Control
	local := s.Common().Family == unix.AF_UNIX
	switch {
	case level != unix.SOL_SOCKET:
		if !local {
			c.Other = append(c.Other, socket.CMsg{Level: level, Type: typ, Data: append([]byte(nil), data...)})
		}
	case typ == unix.SCM_RIGHTS && local:
		if len(data)/4+len(c.Rights) > maxRights {
			return unix.EINVAL
		}
		for ; len(data) >= 4; data = data[4:] {
			f, err := getFile(t, int32(binary.LittleEndian.Uint32(data)))
			if err != nil {
				return err
			}
			c.Rights = append(c.Rights, f)
		}
	case typ == unix.SCM_CREDENTIALS && local:
		if len(data) != 12 {
			return unix.EINVAL
		}
		le := binary.LittleEndian
		u, err := checkCred(t, int32(le.Uint32(data)), le.Uint32(data[4:]), le.Uint32(data[8:]))
		if err != nil {
			return err
		}
		c.Cred, c.HasCred = u, true
	case typ == unix.SCM_RIGHTS || typ == unix.SCM_CREDENTIALS:
	case local:
		return unix.EINVAL
	default:
		c.Other = append(c.Other, socket.CMsg{Level: level, Type: typ, Data: append([]byte(nil), data...)})
	}
	return nil
}

// controlWriter stores ancillary data for the application.
type controlWriter struct {
	t         *kernel.Task
	addr      uint64
	room      uint64
	done      uint64
	truncated bool
	err       error
}

// put stores one message; what does not fit is cut off.
func (w *controlWriter) put(level, typ int32, data []byte) {
	if w.err != nil {
		return
	}
	left := w.room - w.done
	if left < cmsgHeader {
		w.truncated = true
		return
	}
	n := uint64(cmsgHeader + len(data))
	if n > left {
		w.truncated = true
		n = left
		data = data[:n-cmsgHeader]
	}
	var h [cmsgHeader]byte
	binary.LittleEndian.PutUint64(h[:], n)
	binary.LittleEndian.PutUint32(h[8:], uint32(level))
	binary.LittleEndian.PutUint32(h[12:], uint32(typ))
	if _, w.err = w.t.MM().CopyOut(w.addr+w.done, h[:]); w.err == nil {
		_, w.err = w.t.MM().CopyOut(w.addr+w.done+cmsgHeader, data)
	}
	w.done += min((n+7)&^7, left)
}

// writeControl delivers ancillary data and returns its length.
func (p *messageState) writeControl(t *kernel.Task, flags int) (uint64, error) {
	c := &p.m.Control
	w := controlWriter{t: t, addr: p.h.control, room: p.h.controlLen}
	if p.h.control == 0 {
		w.room = 0
	}
	if c.HasCred {
		var b [12]byte
		socket.EncodeUcred(t, &c.Cred, b[:])
		w.put(unix.SOL_SOCKET, unix.SCM_CREDENTIALS, b[:])
	}
	if len(c.Rights) > 0 {
		p.writeRights(t, &w, flags)
	}
	if c.PIDFD && c.Cred.PID != nil && w.room-w.done >= cmsgHeader+4 {
		if fd, err := installFile(t, t.Kernel().NewPIDFD(c.Cred.PID, false, 0), true); err == nil {
			var b [4]byte
			binary.LittleEndian.PutUint32(b[:], uint32(fd))
			w.put(unix.SOL_SOCKET, unix.SCM_PIDFD, b[:])
		}
	}
	for i := range c.Other {
		w.put(c.Other[i].Level, c.Other[i].Type, c.Other[i].Data)
	}
	if w.truncated {
		p.m.Flags |= unix.MSG_CTRUNC
	}
	return w.done, w.err
}

// writeRights installs as many of the files as there is room for; the rest is closed.
func (p *messageState) writeRights(t *kernel.Task, w *controlWriter, flags int) {
	c := &p.m.Control
	fit := 0
	if left := w.room - w.done; left > cmsgHeader {
		fit = int(min((left-cmsgHeader)/4, uint64(len(c.Rights))))
	}
	var fds []byte
	for _, f := range c.Rights[:fit] {
		n, err := t.FDTable().Install(t, f, 0, flags&unix.MSG_CMSG_CLOEXEC != 0)
		if err != nil {
			break
		}
		fds = binary.LittleEndian.AppendUint32(fds, uint32(n))
	}
	if len(fds) > 0 {
		w.put(unix.SOL_SOCKET, unix.SCM_RIGHTS, fds)
	}
	if len(fds) < 4*len(c.Rights) {
		w.truncated = true
	}
	c.DropRights()
}

// sendFlags are flags of send(2) that the protocols see.
const sendFlags = unix.MSG_OOB | unix.MSG_DONTROUTE | unix.MSG_EOR | unix.MSG_MORE | unix.MSG_CONFIRM | unix.MSG_FASTOPEN | unix.MSG_ZEROCOPY |
	unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// send sends src, blocking as the file and flags say.
func send(t *kernel.Task, s socket.Socket, f *vfs.FileDescription, src mm.IOSeq, m *socket.Message, flags int) (int64, error) {
	n, err := s.SendMsg(t, src, m, flags&sendFlags)
	if err == unix.EAGAIN && flags&unix.MSG_DONTWAIT == 0 && !f.Nonblocking() {
		err = retryBlocked(t, s, waiter.WritableEvents, ioDeadline(s, true), func() error {
			k, err := s.SendMsg(t, src.DropFirst(n), m, flags&sendFlags)
			n += k
			return err
		})
	}
	if n > 0 {
		return n, nil
	}
	if err == unix.EPIPE && flags&unix.MSG_NOSIGNAL == 0 && s.Common().Type == unix.SOCK_STREAM {
		t.SendSignal(int32(unix.SIGPIPE))
	}
	return n, err
}

// receive receives into dst, blocking as the file and flags say.
func receive(t *kernel.Task, s socket.Socket, f *vfs.FileDescription, dst mm.IOSeq, m *socket.Message, flags int) (int64, error) {
	n, err := s.RecvMsg(t, dst, m, flags)
	all := flags&unix.MSG_WAITALL != 0 && flags&unix.MSG_PEEK == 0 && s.Common().Type == unix.SOCK_STREAM
	more := all && err == nil && n > 0 && n < dst.NumBytes() && len(m.Control.Rights) == 0
	if (err == unix.EAGAIN || more) && flags&(unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE) == 0 && !f.Nonblocking() {
		err = retryBlocked(t, s, waiter.ReadableEvents, ioDeadline(s, false), func() error {
			k, err := s.RecvMsg(t, dst.DropFirst(n), m, flags)
			n += k
			if all && err == nil && k > 0 && n < dst.NumBytes() && len(m.Control.Rights) == 0 {
				return unix.EAGAIN
			}
			return err
		})
	}
	if n > 0 {
		err = nil
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 && m.Full > n && s.Common().Type != unix.SOCK_STREAM {
		n = m.Full
	}
	return n, err
}

func sendto(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	sh := sharedOf(t)
	p := sh.message()
	defer sh.putMessage(p)
	if a[4].Pointer() != 0 {
		if err := readAddr(t, &p.m.Addr, a[4].Pointer(), a[5].Int()); err != nil {
			return 0, err
		}
	}
	src := t.MM().Seq(a[1].Pointer(), min(a[2].Uint64(), maxTransfer))
	n, err := send(t, s, f, src, &p.m, int(a[3].Int()))
	return uintptr(n), err
}

func recvfrom(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	sh := sharedOf(t)
	p := sh.message()
	defer sh.putMessage(p)
	dst := t.MM().Seq(a[1].Pointer(), min(a[2].Uint64(), maxTransfer))
	n, err := receive(t, s, f, dst, &p.m, int(a[3].Int()))
	if err != nil {
		return 0, err
	}
	return uintptr(n), writeAddr(t, &p.m.Addr, a[4].Pointer(), a[5].Pointer())
}

// sendAt is sendmsg(2) for the struct msghdr at addr.
func sendAt(t *kernel.Task, s socket.Socket, f *vfs.FileDescription, addr uint64, flags int) (int64, error) {
	sh := sharedOf(t)
	p := sh.message()
	defer sh.putMessage(p)
	src, err := p.readHeader(t, addr)
	if err != nil {
		return 0, err
	}
	if p.h.name != 0 && p.h.nameLen != 0 {
		if err := readAddr(t, &p.m.Addr, p.h.name, min(p.h.nameLen, socket.MaxAddr)); err != nil {
			return 0, err
		}
	}
	if err := p.readControl(t, s); err != nil {
		return 0, err
	}
	return send(t, s, f, src, &p.m, flags)
}

func sendmsg(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := sendAt(t, s, f, a[1].Pointer(), int(a[2].Int()))
	return uintptr(n), err
}

// recvAt is recvmsg(2) for the struct msghdr at addr.
func recvAt(t *kernel.Task, s socket.Socket, f *vfs.FileDescription, addr uint64, flags int) (int64, error) {
	sh := sharedOf(t)
	p := sh.message()
	defer sh.putMessage(p)
	dst, err := p.readHeader(t, addr)
	if err != nil {
		return 0, err
	}
	if p.h.nameLen < 0 {
		return 0, unix.EINVAL
	}
	n, err := receive(t, s, f, dst, &p.m, flags)
	if err != nil {
		return 0, err
	}
	controlLen, err := p.writeControl(t, flags)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	var b [4]byte
	if p.h.name != 0 {
		if k := min(int(p.h.nameLen), p.m.Addr.Len); k > 0 {
			if _, err := t.MM().CopyOut(p.h.name, p.m.Addr.Data[:k]); err != nil {
				return 0, err
			}
		}
		le.PutUint32(b[:], uint32(p.m.Addr.Len))
		if _, err := t.MM().CopyOut(addr+8, b[:]); err != nil {
			return 0, err
		}
	}
	var tail [12]byte // msg_controllen and msg_flags
	le.PutUint64(tail[:], controlLen)
	le.PutUint32(tail[8:], uint32(p.m.Flags|flags&unix.MSG_CMSG_CLOEXEC))
	if _, err := t.MM().CopyOut(addr+40, tail[:]); err != nil {
		return 0, err
	}
	return n, nil
}

func recvmsg(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	n, err := recvAt(t, s, f, a[1].Pointer(), int(a[2].Int()))
	return uintptr(n), err
}

// mmsghdrSize is sizeof(struct mmsghdr).
const mmsghdrSize = 64

func sendmmsg(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	addr, count := a[1].Pointer(), min(a[2].Uint(), maxIovec)
	done := uint32(0)
	for ; done < count; done++ {
		n, serr := sendAt(t, s, f, addr, int(a[3].Int()))
		if serr == nil {
			serr = t.MM().WriteUint32(addr+msghdrSize, uint32(n))
		}
		if serr != nil {
			err = serr
			break
		}
		addr += mmsghdrSize
	}
	if done > 0 {
		err = nil
	}
	return uintptr(done), err
}

func recvmmsg(t *kernel.Task, a arch.SyscallArgs) (uintptr, error) {
	deadline, err := readTimeout(t, a[4].Pointer())
	if err != nil {
		return 0, err
	}
	s, f, err := getSocket(t, a[0].Int())
	if err != nil {
		return 0, err
	}
	defer f.DecRef()
	if err := s.Common().TakeErr(); err != nil {
		return 0, err
	}
	addr, count, flags := a[1].Pointer(), min(a[2].Uint(), maxIovec), int(a[3].Int())
	done := uint32(0)
	for done < count {
		n, rerr := recvAt(t, s, f, addr, flags&^unix.MSG_WAITFORONE)
		if rerr == nil {
			rerr = t.MM().WriteUint32(addr+msghdrSize, uint32(n))
		}
		if rerr != nil {
			err = rerr
			break
		}
		done++
		addr += mmsghdrSize
		if flags&unix.MSG_WAITFORONE != 0 {
			flags |= unix.MSG_DONTWAIT
		}
		// As on Linux the timeout is looked at behind each message only.
		if a[4].Pointer() != 0 && (deadline == 0 || remaining(deadline) == 0) {
			break
		}
	}
	if a[4].Pointer() != 0 {
		if werr := storeTimespec(t, a[4].Pointer(), remaining(deadline)); werr != nil && done == 0 {
			return 0, werr
		}
	}
	if done > 0 {
		if err != nil && err != unix.EAGAIN {
			if e, ok := err.(unix.Errno); ok && e < 512 && e != unix.EINTR {
				s.Common().Err.Store(int32(e))
			}
		}
		err = nil
	}
	return uintptr(done), err
}

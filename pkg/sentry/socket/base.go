package socket

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/kernel"
)

// Buffer sizes of /proc/sys/net/core: defaults and limits in bytes.
const (
	DefaultBuffer = 212992
	maxBuffer     = 212992
	minSendBuffer = 4608
	minRecvBuffer = 2304
)

// Base is the common part of sockets: identity, and the options of SOL_SOCKET that are the same for all
// families. Options that only some protocols know how to honour are stored for them to look at.
type Base struct {
	Family, Type, Protocol int // immutable

	SendBuf, RecvBuf         atomic.Int32 // bytes, as SO_SNDBUF shows (twice what was set)
	SendTimeout, RecvTimeout atomic.Int64 // nanoseconds; 0: none
	RecvLowat                atomic.Int32
	PeekOff                  atomic.Int32     // SO_PEEK_OFF; negative: off
	Err                      atomic.Int32     // pending errno (SO_ERROR)
	bools                    [2]atomic.Uint64 // by number of the option
	LingerOn, LingerSecs     atomic.Int32
	Priority, Mark           atomic.Int32
	Incoming                 atomic.Int32 // SO_INCOMING_CPU
	PacingRate               atomic.Uint64
	Cookie                   atomic.Uint64
}

// InitBase sets up b with the defaults.
func (b *Base) InitBase(family, typ, protocol int) {
	b.Family, b.Type, b.Protocol = family, typ, protocol
	b.SendBuf.Store(DefaultBuffer)
	b.RecvBuf.Store(DefaultBuffer)
	b.RecvLowat.Store(1)
	b.PeekOff.Store(-1)
	b.PacingRate.Store(^uint64(0))
}

// Common implements Socket.
func (b *Base) Common() *Base { return b }

// Bool tells a boolean option of SOL_SOCKET: SO_PASSCRED, SO_REUSEADDR, ...
func (b *Base) Bool(name int) bool {
	return name < 128 && b.bools[name>>6].Load()>>uint(name&63)&1 != 0
}

// SetBool sets it.
func (b *Base) SetBool(name int, on bool) {
	if on {
		b.bools[name>>6].Or(1 << uint(name&63))
	} else {
		b.bools[name>>6].And(^(uint64(1) << uint(name&63)))
	}
}

// TakeErr returns the pending error and clears it; nil if there is none.
func (b *Base) TakeErr() error {
	if b.Err.Load() == 0 {
		return nil
	}
	if e := b.Err.Swap(0); e != 0 {
		return unix.Errno(e)
	}
	return nil
}

// IOTimeout implements vfs.IOTimeouter.
func (b *Base) IOTimeout(write bool) int64 {
	if write {
		return b.SendTimeout.Load()
	}
	return b.RecvTimeout.Load()
}

// isBool tells whether a SOL_SOCKET option is a plain boolean for every socket.
func isBool(name int) bool {
	switch name {
	case unix.SO_DEBUG, unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_KEEPALIVE, unix.SO_OOBINLINE,
		unix.SO_REUSEPORT, unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_TIMESTAMP_OLD, unix.SO_TIMESTAMPNS_OLD, unix.SO_RXQ_OVFL,
		unix.SO_WIFI_STATUS, unix.SO_NOFCS, unix.SO_LOCK_FILTER, unix.SO_SELECT_ERR_QUEUE, unix.SO_ZEROCOPY,
		unix.SO_TIMESTAMP_NEW, passPIDFD, noCheck:
		return true
	}
	return false
}

const (
	noCheck   = 11 // SO_NO_CHECK
	passPIDFD = unix.SO_PASSPIDFD
)

// ErrUnhandled says that the common part does not know an option.
const ErrUnhandled = unix.ENOPROTOOPT

// GetCommon reads a SOL_SOCKET option into buf and returns its length; ErrUnhandled.
func (b *Base) GetCommon(t *kernel.Task, name int, buf []byte) (int, error) {
	switch name {
	case unix.SO_TYPE:
		return PutInt(buf, b.Type), nil
	case unix.SO_DOMAIN:
		return PutInt(buf, b.Family), nil
	case unix.SO_PROTOCOL:
		return PutInt(buf, b.Protocol), nil
	case unix.SO_ERROR:
		e, _ := b.TakeErr().(unix.Errno)
		return PutInt(buf, int(e)), nil
	case unix.SO_SNDBUF:
		return PutInt(buf, int(b.SendBuf.Load())), nil
	case unix.SO_RCVBUF:
		return PutInt(buf, int(b.RecvBuf.Load())), nil
	case unix.SO_RCVLOWAT:
		return PutInt(buf, int(b.RecvLowat.Load())), nil
	case unix.SO_SNDLOWAT:
		return PutInt(buf, 1), nil
	case unix.SO_PRIORITY:
		return PutInt(buf, int(b.Priority.Load())), nil
	case unix.SO_MARK:
		return PutInt(buf, int(b.Mark.Load())), nil
	case unix.SO_PEEK_OFF:
		return PutInt(buf, int(b.PeekOff.Load())), nil
	case unix.SO_INCOMING_CPU:
		return PutInt(buf, 0), nil
	case unix.SO_BUSY_POLL, unix.SO_PREFER_BUSY_POLL, unix.SO_TIMESTAMPING_OLD, unix.SO_TXREHASH:
		return PutInt(buf, 0), nil
	case unix.SO_RCVTIMEO_OLD, unix.SO_RCVTIMEO_NEW:
		return putTimeout(buf, b.RecvTimeout.Load()), nil
	case unix.SO_SNDTIMEO_OLD, unix.SO_SNDTIMEO_NEW:
		return putTimeout(buf, b.SendTimeout.Load()), nil
	case unix.SO_LINGER:
		var v [8]byte
		binary.LittleEndian.PutUint32(v[:], uint32(b.LingerOn.Load()))
		binary.LittleEndian.PutUint32(v[4:], uint32(b.LingerSecs.Load()))
		copy(buf, v[:])
		return 8, nil
	case unix.SO_COOKIE:
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], b.cookie(t.Kernel()))
		copy(buf, v[:])
		return 8, nil
	case unix.SO_MAX_PACING_RATE:
		return PutInt(buf, int(uint32(min(b.PacingRate.Load(), 1<<32-1)))), nil
	}
	if isBool(name) {
		v := 0
		if b.Bool(name) {
			v = 1
		}
		return PutInt(buf, v), nil
	}
	return 0, ErrUnhandled
}

type cookieKey struct{}

// cookie is a number that no other socket of the kernel has.
func (b *Base) cookie(k *kernel.Kernel) uint64 {
	if c := b.Cookie.Load(); c != 0 {
		return c
	}
	b.Cookie.CompareAndSwap(0, RegistryOf(k).cookies.Add(1))
	return b.Cookie.Load()
}

// SetCommon changes a SOL_SOCKET option; ErrUnhandled.
func (b *Base) SetCommon(t *kernel.Task, name int, val []byte) error {
	switch name {
	case unix.SO_RCVTIMEO_OLD, unix.SO_RCVTIMEO_NEW:
		return setTimeout(&b.RecvTimeout, val)
	case unix.SO_SNDTIMEO_OLD, unix.SO_SNDTIMEO_NEW:
		return setTimeout(&b.SendTimeout, val)
	case unix.SO_LINGER:
		if len(val) < 8 {
			return unix.EINVAL
		}
		b.LingerOn.Store(boolInt(GetInt(val) != 0))
		b.LingerSecs.Store(int32(GetInt(val[4:])))
		return nil
	case unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ERROR, unix.SO_ACCEPTCONN, unix.SO_PEERCRED, unix.SO_COOKIE, unix.SO_PEERGROUPS, unix.SO_PEERPIDFD:
		return unix.ENOPROTOOPT
	}
	if len(val) < 4 {
		return unix.EINVAL
	}
	v := GetInt(val)
	switch name {
	case unix.SO_SNDBUF:
		b.SendBuf.Store(bufferSize(v, minSendBuffer, maxBuffer))
	case unix.SO_RCVBUF:
		b.RecvBuf.Store(bufferSize(v, minRecvBuffer, maxBuffer))
	case unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE:
		if !t.HasRootCap(unix.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		if name == unix.SO_SNDBUFFORCE {
			b.SendBuf.Store(bufferSize(v, minSendBuffer, forceBuffer))
		} else {
			b.RecvBuf.Store(bufferSize(v, minRecvBuffer, forceBuffer))
		}
	case unix.SO_RCVLOWAT:
		if v <= 0 {
			v = 1
		}
		b.RecvLowat.Store(int32(v))
	case unix.SO_PRIORITY:
		if (v < 0 || v > 6) && !t.HasCap(unix.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		b.Priority.Store(int32(v))
	case unix.SO_MARK:
		if !t.HasCap(unix.CAP_NET_ADMIN) {
			return unix.EPERM
		}
		b.Mark.Store(int32(v))
	case unix.SO_PEEK_OFF:
		b.PeekOff.Store(int32(v))
	case unix.SO_BUSY_POLL, unix.SO_PREFER_BUSY_POLL, unix.SO_TIMESTAMPING_OLD, unix.SO_TXREHASH, unix.SO_INCOMING_CPU:
	case unix.SO_MAX_PACING_RATE:
		b.PacingRate.Store(uint64(uint32(v)))
	default:
		if !isBool(name) {
			return ErrUnhandled
		}
		b.SetBool(name, v != 0)
	}
	return nil
}

// forceBuffer bounds what CAP_NET_ADMIN may ask for: sockets' memory is the sentry's.
const forceBuffer = 8 << 20

// bufferSize is what SO_SNDBUF and SO_RCVBUF make of a request: bounded, doubled, at least the minimum (socket(7)).
func bufferSize(v, low, high int) int32 {
	if v < 0 || v > high {
		v = high
	}
	return int32(max(2*v, low))
}

func boolInt(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// PutInt stores an int option, cut to buf, and returns its length.
func PutInt(buf []byte, v int) int {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(v))
	copy(buf, b[:])
	return 4
}

// GetInt reads an int option; len(val) >= 4.
func GetInt(val []byte) int { return int(int32(binary.LittleEndian.Uint32(val))) }

func putTimeout(buf []byte, ns int64) int {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(ns/1e9))
	binary.LittleEndian.PutUint64(b[8:], uint64(ns%1e9/1e3))
	copy(buf, b[:])
	return 16
}

// setTimeout stores a struct timeval: EDOM for microseconds that are none; zero and negative mean none... negative
// seconds poll, as in Linux.
func setTimeout(to *atomic.Int64, val []byte) error {
	if len(val) < 16 {
		return unix.EINVAL
	}
	sec, usec := int64(binary.LittleEndian.Uint64(val)), int64(binary.LittleEndian.Uint64(val[8:]))
	if usec < 0 || usec >= 1e6 {
		return unix.EDOM
	}
	switch {
	case sec < 0:
		to.Store(1)
	case sec > 1<<33:
		to.Store(0)
	default:
		to.Store(sec*1e9 + usec*1e3)
	}
	return nil
}

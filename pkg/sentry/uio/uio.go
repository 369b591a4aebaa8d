package uio

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/vfs"
)

// Memory is user memory; *mm.MemoryManager implements it.
type Memory interface {
	CopyIn(addr uint64, dst []byte) (int, error)
	CopyOut(addr uint64, src []byte) (int, error)
}

// Of is the memory of the caller; nil for the sentry itself.
func Of(ctx vfs.Context) Memory {
	if c, ok := ctx.(interface{ UserMemory() Memory }); ok {
		return c.UserMemory()
	}
	if m := ctx.MM(); m != nil {
		return m
	}
	return nil
}

// CopyIn reads len(b) bytes at addr; EFAULT.
func CopyIn(ctx vfs.Context, addr uint64, b []byte) error {
	m := Of(ctx)
	if m == nil {
		return unix.EFAULT
	}
	_, err := m.CopyIn(addr, b)
	return err
}

// CopyOut writes b at addr; EFAULT.
func CopyOut(ctx vfs.Context, addr uint64, b []byte) error {
	m := Of(ctx)
	if m == nil {
		return unix.EFAULT
	}
	_, err := m.CopyOut(addr, b)
	return err
}

// PutInt32 stores an int at addr.
func PutInt32(ctx vfs.Context, addr uint64, v int32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(v))
	return CopyOut(ctx, addr, b[:])
}

// GetInt32 loads an int from addr.
func GetInt32(ctx vfs.Context, addr uint64) (int32, error) {
	var b [4]byte
	err := CopyIn(ctx, addr, b[:])
	return int32(binary.LittleEndian.Uint32(b[:])), err
}

// PutUint64 stores eight bytes at addr.
func PutUint64(ctx vfs.Context, addr uint64, v uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return CopyOut(ctx, addr, b[:])
}

// GetUint64 loads eight bytes from addr.
func GetUint64(ctx vfs.Context, addr uint64) (uint64, error) {
	var b [8]byte
	err := CopyIn(ctx, addr, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

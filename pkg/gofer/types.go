package gofer

import "golang.org/x/sys/unix"

// Handle names an object that the server holds open for the client. Zero is no handle. Handles are
// not reused: a closed one stays invalid (EBADF).
type Handle uint64

// Time is a file time.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Attr is what statx(2) tells of a file.
type Attr struct {
	Ino                        uint64
	Dev, Rdev                  uint64 // major<<32 | minor
	Size, Blocks               uint64 // bytes; units of 512 bytes
	Flags                      uint64 // STATX_ATTR_*
	Mode                       uint32 // type and permissions
	Nlink, UID, GID, Blksize   uint32
	Mask                       uint32 // STATX_*: what the host filled in
	Atime, Mtime, Ctime, Btime Time
}

// Type is the S_IFMT part of the mode.
func (a *Attr) Type() uint32 { return a.Mode & unix.S_IFMT }

// fill copies from the host's form.
func (a *Attr) fill(st *unix.Statx_t) {
	*a = Attr{
		Ino: st.Ino, Dev: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), Rdev: uint64(st.Rdev_major)<<32 | uint64(st.Rdev_minor),
		Size: st.Size, Blocks: st.Blocks, Flags: st.Attributes,
		Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid, Blksize: st.Blksize, Mask: st.Mask,
		Atime: Time{st.Atime.Sec, st.Atime.Nsec}, Mtime: Time{st.Mtime.Sec, st.Mtime.Nsec},
		Ctime: Time{st.Ctime.Sec, st.Ctime.Nsec}, Btime: Time{st.Btime.Sec, st.Btime.Nsec},
	}
}

// Place is a file: the one that Handle stands for, or the one called Name in that directory.
type Place struct {
	Handle Handle
	Name   string
}

// Entry is a component that Walk found.
type Entry struct {
	Handle Handle // zero where it was not wanted
	Attr   Attr
	Target string // of a symbolic link
}

// Sibling is a name of a directory that Siblings found.
type Sibling struct {
	Entry
	FD   int      // a descriptor for reading; -1 where none was asked for or there is none
	List []Dirent // of a directory; nil where none was asked for or it is large
	// Tree are the first of List, as far as they were looked up as well.
	Tree []Sibling
}

// With says what Siblings is to bring along.
type With uint8

const (
	// WithFD asks for descriptors of regular files, opened for reading; at most 32 come with a reply.
	WithFD With = 1 << iota
	// WithList asks for the entries of small directories.
	WithList
	// WithTree asks for the look-ups of these entries as well, where there are not more than 8.
	WithTree
	// WithoutHandle says that handles are wanted of directories only: the others are named by directory and name later, if at all. A handle costs
	// the server a descriptor.
	WithoutHandle
	withAll = 1<<iota - 1
)

// Dirent is a directory entry. "." and ".." are left out everywhere.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8 // DT_*
}

// SetAttr selects by Mask what to change.
type SetAttr struct {
	Mask         SetMask
	Mode         uint32 // permission bits
	UID, GID     uint32
	Size         uint64
	Atime, Mtime Time
}

// SetMask says which fields of a SetAttr count. The Now variants set a time to the host's clock.
type SetMask uint32

const (
	SetMode SetMask = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetAtimeNow
	SetMtime
	SetMtimeNow
	setAll = 1<<iota - 1
)

// StatFS is what statfs(2) tells of a file system.
type StatFS struct {
	Type, Bsize, Frsize, Flags         uint64
	Blocks, Bfree, Bavail, Files, Free uint64
	Namelen                            uint64
}

// AttachFlags are the policy of an attach point.
type AttachFlags uint32

const (
	// ReadOnly refuses every change with EROFS.
	ReadOnly AttachFlags = 1 << iota
	// HostSockets allows Connect to sockets below the attach point.
	HostSockets
	// HostFIFOs allows Open of FIFOs.
	HostFIFOs
)

// OpenFlags are the open(2) flags that Open and Create take; others are EINVAL.
const OpenFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_APPEND | unix.O_DIRECT | unix.O_SYNC | unix.O_DSYNC | unix.O_NOATIME

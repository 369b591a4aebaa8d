package gofer

import (
	"sync"
	"sync/atomic"

	"husk/pkg/sentry/mm"

	"golang.org/x/sys/unix"
)

// Programs read the same few bytes of the same files again and again: headers of programs and libraries, configuration, the first page of a database. In a
// frozen attach point, a block of a file out of which two small reads in a row came is copied, and serves the next ones: a copy of 4 KiB costs 0.2 us, a
// pread(2) 2.5 us.

const (
	// blockSize is what is copied at once, in bytes: a page, of which host and programs are made.
	blockSize = 4 << 10
	// blocksMax is how many blocks an attach point keeps: 1 MiB, enough for the libraries of many programs.
	blocksMax = 256
	// blocksSpan is within how many small reads that were not served from a copy two count as in a row: who walks through a tree twice is not meant.
	blocksSpan = 4 * blocksMax
)

// block is a part of a file; immutable.
type block struct {
	owner *inode
	at    int64 // in blocks
	data  []byte
}

// blocks are the blocks that inodes have. The oldest makes room.
type blocks struct {
	reads atomic.Int64 // counts small reads that were not served

	mu   sync.Mutex
	ring []*block // protected by mu
	next int      // protected by mu
}

// recent is an inode's part of it.
type recent struct {
	block atomic.Pointer[block]
	last  atomic.Int64 // the block that the last small read came from
	when  atomic.Int64 // in blocks.reads; zero: never
}

// readBlock serves a read of at least a byte at an offset before the end of the file; false where it does not.
func (i *inode) readBlock(dst mm.IOSeq, off, size int64) (n int64, ok bool, err error) {
	want := min(dst.NumBytes(), size-off)
	at := off / blockSize
	if want > blockSize || (off+want-1)/blockSize != at {
		return 0, false, nil
	}
	b := i.recent.block.Load()
	if b == nil || b.at != at {
		now := i.fs.blocks.reads.Add(1)
		when := i.recent.when.Swap(now)
		if i.recent.last.Swap(at) != at || when == 0 || now-when > blocksSpan {
			return 0, false, nil
		}
		if b = i.loadBlock(at, min(blockSize, size-at*blockSize)); b == nil {
			return 0, false, nil
		}
	}
	if off -= at * blockSize; off+want > int64(len(b.data)) {
		return 0, false, nil // the file has grown since
	}
	k, err := dst.CopyOut(b.data[off : off+want])
	return int64(k), true, err
}

// loadBlock copies a block of n bytes; nil where the file is not what its attributes say.
func (i *inode) loadBlock(at, n int64) *block {
	b := &block{i, at, make([]byte, n)}
	for {
		k, err := unix.Pread(i.fd(), b.data, at*blockSize)
		if err == unix.EINTR {
			continue
		}
		if err != nil || int64(k) != n {
			return nil
		}
		break
	}
	i.recent.block.Store(b)
	s := &i.fs.blocks
	s.mu.Lock()
	if len(s.ring) < blocksMax {
		s.ring = append(s.ring, b)
	} else {
		old := s.ring[s.next]
		old.owner.recent.block.CompareAndSwap(old, nil)
		s.ring[s.next] = b
		s.next = (s.next + 1) % blocksMax
	}
	s.mu.Unlock()
	return b
}

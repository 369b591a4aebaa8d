package gofer

import (
	"sync"

	broker "husk/pkg/gofer"
	"husk/pkg/sentry/vfs"
)

// dirFile is an open directory. It lists a snapshot taken when reading starts, so that entries come once each
// whatever is created and removed meanwhile.
type dirFile struct {
	inode *inode

	mu   sync.Mutex // guards what follows
	ents []broker.Dirent
	read bool // ents is the snapshot
}

// firstCookie is the cookie of the first entry behind "." and "..".
const firstCookie = 2

// keepListing is the length up to which a listing is kept with the inode.
const keepListing = 16 << 10

// Release implements vfs.FileImpl.
func (d *dirFile) Release() {}

// ReadDir implements vfs.DirReader.
func (d *dirFile) ReadDir(_ vfs.Context, cookie int64, sink vfs.DirSink) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.read || cookie <= firstCookie {
		ents, err := d.inode.list()
		if err != nil {
			return err
		}
		d.ents, d.read = ents, true
	}
	for k := max(cookie-firstCookie, 0); k < int64(len(d.ents)); k++ {
		e := &d.ents[k]
		if !sink.Emit(e.Name, e.Ino, e.Type, firstCookie+k+1) {
			return nil
		}
	}
	return nil
}

// Fsync implements vfs.Fsyncer.
func (d *dirFile) Fsync(_ vfs.Context, dataOnly bool) error {
	h, err := d.inode.use()
	if err != nil {
		return err
	}
	defer d.inode.done()
	return hostError(d.inode.fs.client.Fsync(h, dataOnly))
}

// list reads the directory, or gives what is known of it.
func (i *inode) list() ([]broker.Dirent, error) {
	i.used(&i.fs.habit.lists)
	i.mu.Lock()
	l, gen := i.listing, i.listGen
	i.mu.Unlock()
	if l != nil {
		i.listedNow()
		return l.ents, nil
	}
	i.touch()
	own, err := i.use()
	if err != nil {
		return nil, err
	}
	defer i.done()
	h := own
	ents := []broker.Dirent{}
	for h != 0 {
		var err error
		var next broker.Handle
		ents, next, err = i.fs.client.ReadDir(h, ents)
		if h == own && i.fs.relieve(err) {
			ents, next, err = i.fs.client.ReadDir(h, ents)
		}
		if err != nil {
			if h != own {
				i.fs.client.Close(h)
			}
			return nil, hostError(err)
		}
		h = next
	}
	if !i.fs.shared && len(ents) <= keepListing {
		i.mu.Lock()
		if i.listGen == gen && i.listing == nil {
			i.listing = &listing{ents: ents}
		}
		i.mu.Unlock()
		i.listedNow()
	}
	return ents, nil
}

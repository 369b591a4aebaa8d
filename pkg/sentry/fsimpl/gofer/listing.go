package gofer

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	broker "husk/pkg/gofer"
)

// listing is the entries of a directory. The entries are immutable; the rest is guarded by inode.mu.
type listing struct {
	ents []broker.Dirent
	// sorted are the indexes of the entries in an order, places the inverse of it; nil: not needed so far, or the order that they are in.
	sorted, places [orders][]int32
}

// order is one in which programs look at what they have listed.
type order uint8

const (
	listed  order = iota // find, du, rm
	byInode              // tar, and find in large directories
	byName               // ls, git, shells
	orders
)

// scanMax is up to how many entries a name is searched without sorting.
const scanMax = 32

func (l *listing) compare(o order, a, b int32) int {
	x, y := &l.ents[a], &l.ents[b]
	if o == byInode && x.Ino != y.Ino {
		if x.Ino < y.Ino {
			return -1
		}
		return 1
	}
	return strings.Compare(x.Name, y.Name)
}

func (l *listing) sort(o order) {
	s, p := make([]int32, len(l.ents)), make([]int32, len(l.ents))
	for k := range s {
		s[k] = int32(k)
	}
	slices.SortFunc(s, func(a, b int32) int { return l.compare(o, a, b) })
	for k, e := range s {
		p[e] = int32(k)
	}
	l.sorted[o], l.places[o] = s, p
}

// place is where entry k comes in the order.
func (l *listing) place(o order, k int) int {
	if o == listed {
		return k
	}
	if l.places[o] == nil {
		l.sort(o)
	}
	return int(l.places[o][k])
}

// at is the entry in a place of the order.
func (l *listing) at(o order, place int) int {
	if o == listed {
		return place
	}
	if l.sorted[o] == nil {
		l.sort(o)
	}
	return int(l.sorted[o][place])
}

// first reports whether k is the first entry in the order; it does not sort.
func (l *listing) first(o order, k int) bool {
	if o == listed {
		return k == 0
	}
	for other := range l.ents {
		if other != k && l.compare(o, int32(other), int32(k)) < 0 {
			return false
		}
	}
	return true
}

// find returns the entry of that name; -1 if there is none.
func (l *listing) find(name string) int {
	if len(l.ents) <= scanMax {
		for k := range l.ents {
			if l.ents[k].Name == name {
				return k
			}
		}
		return -1
	}
	if l.sorted[byName] == nil {
		l.sort(byName)
	}
	s := l.sorted[byName]
	p, ok := slices.BinarySearchFunc(s, name, func(k int32, name string) int { return strings.Compare(l.ents[k].Name, name) })
	if !ok {
		return -1
	}
	return int(s[p])
}

func (l *listing) isDir(k int) bool { return l.ents[k].Type == unix.DT_DIR }

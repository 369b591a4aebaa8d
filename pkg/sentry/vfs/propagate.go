package vfs

// Mount propagation (mount_namespaces(7)). All of it runs with VFS.mountMu held.

// joinLocked makes m, which is not shared, a peer of g.
func (m *Mount) joinLocked(g *peerGroup) {
	m.shared = g
	g.peers = append(g.peers, m)
}

// enslaveLocked makes m receive what happens in g.
func (m *Mount) enslaveLocked(g *peerGroup) {
	m.master = g
	g.slaves = append(g.slaves, m)
}

func removeMount(l []*Mount, m *Mount) []*Mount {
	for i, x := range l {
		if x == m {
			return append(l[:i:i], l[i+1:]...)
		}
	}
	return l
}

// makeSharedLocked gives m a peer group if it has none.
func (m *Mount) makeSharedLocked() {
	m.unbindable = false
	if m.shared == nil {
		m.joinLocked(&peerGroup{id: m.vfs.nextGroupID.Add(1)})
	}
}

// leaveLocked takes m out of its peer group. Where it was the last, the group's slaves go to the group's own master.
func (m *Mount) leaveLocked() *peerGroup {
	g := m.shared
	if g == nil {
		return nil
	}
	m.shared = nil
	g.peers = removeMount(g.peers, m)
	if len(g.peers) == 0 {
		for _, s := range g.slaves {
			s.master = nil
			if m.master != nil {
				s.enslaveLocked(m.master)
			}
		}
		g.slaves = nil
		return nil
	}
	return g
}

// makeSlaveLocked turns a shared mount into a slave of its group; where it was the only peer it becomes what it is without the group.
func (m *Mount) makeSlaveLocked() {
	m.unbindable = false
	if m.shared == nil {
		return
	}
	if g := m.leaveLocked(); g != nil {
		m.freeLocked()
		m.enslaveLocked(g)
	}
}

// freeLocked ends m's being a slave.
func (m *Mount) freeLocked() {
	if m.master != nil {
		m.master.slaves = removeMount(m.master.slaves, m)
		m.master = nil
	}
}

func (m *Mount) makePrivateLocked() {
	m.unbindable = false
	m.leaveLocked()
	m.freeLocked()
}

// targetsLocked lists the mounts to which events in m propagate, masters before their slaves.
func (m *Mount) targetsLocked() []*Mount {
	if m.shared == nil {
		return nil
	}
	var list []*Mount
	seen := map[*Mount]bool{m: true}
	groups := []*peerGroup{m.shared}
	for len(groups) > 0 {
		g := groups[0]
		groups = groups[1:]
		for _, p := range g.peers {
			if !seen[p] {
				seen[p] = true
				list = append(list, p)
			}
		}
		for _, s := range g.slaves {
			if seen[s] {
				continue
			}
			seen[s] = true
			list = append(list, s)
			if s.shared != nil {
				groups = append(groups, s.shared)
			}
		}
	}
	return list
}

// targetsFor lists the mounts to which it propagates that m is mounted in parent: those of targetsLocked that are not in the tree m itself, which
// may be a copy of what it is mounted in.
func (parent *Mount) targetsFor(m *Mount) []*Mount {
	list := parent.targetsLocked()
	if len(list) == 0 {
		return nil
	}
	own := map[*Mount]bool{}
	m.walkTree(func(x *Mount) bool {
		own[x] = true
		return true
	})
	n := 0
	for _, t := range list {
		if !own[t] {
			list[n] = t
			n++
		}
	}
	return list[:n]
}

// copyKind says what propagation type copies of mounts get.
type copyKind int

const (
	copySame  copyKind = iota // as the original: a peer of it if it is shared
	copySlave                 // a slave of the original's group, if it is shared
)

// copyTree copies m as seen from root with all that is mounted below root. Unbindable mounts are left out if bind is set.
// seen gets the copy of each mount.
func (c *mountChange) copyTree(m *Mount, root *Dentry, recursive, bind bool, kind copyKind, seen map[*Mount]*Mount) *Mount {
	top := m.clone(root)
	c.setKind(top, m, kind)
	if seen != nil {
		seen[m] = top
	}
	if !recursive {
		return top
	}
	type pair struct{ from, to *Mount }
	todo := []pair{{m, top}}
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		kids := p.from.children.Load()
		if kids == nil {
			continue
		}
		for _, k := range sortedMounts(*kids) {
			at := k.at.Load()
			if bind && k.unbindable || p.from == m && !root.IsAncestorOf(at.dentry) {
				continue
			}
			n := k.clone(k.root)
			c.setKind(n, k, kind)
			if seen != nil {
				seen[k] = n
			}
			c.attach(n, Path{p.to, at.dentry})
			todo = append(todo, pair{k, n})
		}
	}
	return top
}

func (c *mountChange) setKind(n, orig *Mount, kind copyKind) {
	if kind == copySlave && orig.shared != nil {
		n.leaveLocked()
		n.freeLocked()
		n.enslaveLocked(orig.shared)
	}
}

// attachTree puts the tree m at the place, and copies of it where that propagates to.
func (c *mountChange) attachTree(m *Mount, at Path) {
	parent := at.Mount
	targets := parent.targetsFor(m)
	if parent.shared != nil {
		m.walkTree(func(x *Mount) bool {
			x.makeSharedLocked()
			return true
		})
	}
	c.attach(m, at)
	// The copy that peers of a group copy from, and slaves follow.
	reps := map[*peerGroup]*Mount{}
	if parent.shared != nil {
		reps[parent.shared] = m
	}
	for _, t := range targets {
		if !t.root.IsAncestorOf(at.Dentry) {
			continue
		}
		var n *Mount
		if rep := reps[t.shared]; t.shared != nil && rep != nil {
			n = c.copyTree(rep, rep.root, true, false, copySame, nil)
		} else if rep := reps[t.master]; t.master != nil && rep != nil {
			n = c.copyTree(rep, rep.root, true, false, copySlave, nil)
			if t.shared != nil {
				n.walkTree(func(x *Mount) bool {
					x.makeSharedLocked()
					return true
				})
				reps[t.shared] = n
			}
		} else {
			continue
		}
		place := Path{t, at.Dentry}
		if below := t.childAt(at.Dentry); below != nil {
			// Something is there already: the new mount goes beneath it.
			c.detach(below)
			c.attach(n, place)
			c.attach(below, Path{n, n.root})
			continue
		}
		c.attach(n, place)
	}
}

// detachTree unmounts m and its copies in peers and slaves of its parent.
func (c *mountChange) detachTree(m *Mount) {
	at := m.at.Load()
	if at != nil {
		for _, t := range at.parent.targetsLocked() {
			if k := t.childAt(at.dentry); k != nil && k.sb == m.sb && !k.locked {
				if kids := k.children.Load(); kids == nil || m.children.Load() != nil {
					c.discard(k)
				}
			}
		}
	}
	c.discard(m)
}

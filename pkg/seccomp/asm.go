package seccomp

import (
	"errors"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrTooLong is what a build returns whose program exceeds the kernel's BPF_MAXINSNS.
var ErrTooLong = errors.New("seccomp: filter too long")

// node is an instruction in a decision graph. The graph is built from the returns backwards and
// equal nodes are shared, so equal tails of rules cost their instructions once.
type node struct {
	code uint16
	k    uint32
	yes  *node // next instruction; taken branch of a conditional jump
	no   *node // the other branch of a conditional jump

	id    uint32
	visit uint32 // the last call of order that came by
	chain *node  // in the graph's table
	holds int64  // dropLoads: the accumulator on entry
	at    int    // assemble: instructions from the nearest entry to the end, 0 for none
}

// graph interns nodes. It lies close together: filters are built at each start of a sandbox, where touching a page of
// memory for the first time costs more than all else here.
type graph struct {
	slab   []node // the rest of the last allocation
	table  []*node
	nodes  uint32
	visits uint32 // calls of order
}

// newGraph makes a graph for about as many rules; a table that is too small is slow and no more.
func newGraph(rules int) *graph {
	return &graph{table: make([]*node, 2<<bits.Len(uint(rules))), slab: make([]node, 3*rules+16)}
}

func (g *graph) node(n node) *node {
	if n.yes != nil && n.yes == n.no {
		return n.yes // a decision without consequence
	}
	h := n.k*0x9e3779b1 ^ uint32(n.code)<<16
	for _, next := range [...]*node{n.yes, n.no} {
		if h *= 31; next != nil {
			h += next.id
		}
	}
	slot := &g.table[(h^h>>15)%uint32(len(g.table))]
	for have := *slot; have != nil; have = have.chain {
		if have.code == n.code && have.k == n.k && have.yes == n.yes && have.no == n.no {
			return have
		}
	}
	if len(g.slab) == 0 {
		g.slab = make([]node, 64)
	}
	p := &g.slab[0]
	g.slab = g.slab[1:]
	g.nodes++
	*p = node{code: n.code, k: n.k, yes: n.yes, no: n.no, id: g.nodes, chain: *slot}
	*slot = p
	return p
}

func (g *graph) ret(a Action) *node { return g.node(node{code: retK, k: uint32(a)}) }

func (g *graph) load(off uint32, next *node) *node {
	if next.code == retK {
		return next
	}
	return g.node(node{code: ldAbs, k: off, yes: next})
}

func (g *graph) and(mask uint32, next *node) *node {
	if mask == ^uint32(0) || next.code == retK {
		return next
	}
	return g.node(node{code: aluAnd, k: mask, yes: next})
}

func (g *graph) jump(code uint16, k uint32, yes, no *node) *node {
	return g.node(node{code: code, k: k, yes: yes, no: no})
}

// order returns the nodes reachable from root with every node before its successors, and the
// "no" side close behind its jump.
func (g *graph) order(root *node) []*node {
	g.visits++
	post := g.walk(root, make([]*node, 0, g.nodes))
	slices.Reverse(post)
	return post
}

// walk appends the nodes reachable from n that order has not come by, each after its successors.
func (g *graph) walk(n *node, post []*node) []*node {
	if n == nil || n.visit == g.visits {
		return post
	}
	n.visit = g.visits
	post = g.walk(n.yes, post)
	post = g.walk(n.no, post)
	return append(post, n)
}

// dropLoads redirects every edge to a load of the word that the accumulator holds on that edge to
// behind the load. Masking destroys the word. Nodes are changed in place, so the graph must not
// grow afterwards.
func (g *graph) dropLoads(root *node) {
	const unreached, unknown, conflict = -3, -1, -2
	nodes := g.order(root)
	for _, n := range nodes {
		n.holds = unreached // else an offset, or conflict where paths disagree
	}
	root.holds = unknown
	for _, n := range nodes {
		if n.holds == unreached {
			continue
		}
		out := n.holds
		switch n.code {
		case ldAbs:
			out = int64(n.k)
		case aluAnd:
			out = unknown
		}
		for _, edge := range [...]**node{&n.yes, &n.no} {
			for *edge != nil && (*edge).code == ldAbs && int64((*edge).k) == out {
				*edge = (*edge).yes
			}
			if *edge == nil {
				continue
			}
			if have := (*edge).holds; have != unreached && have != out {
				(*edge).holds = conflict
			} else {
				(*edge).holds = out
			}
		}
	}
}

// assemble lays the graph out. It emits from the end backwards: all jumps go forward, so the
// distance to a target is known when the jump is emitted. A target out of the 8-bit reach of a
// conditional jump gets a stand-in right behind the jump (a long jump, or a second copy of a
// return), which then serves as the nearest entry for all earlier jumps too.
func (g *graph) assemble(root *node) ([]Insn, error) {
	nodes := g.order(root)
	rev := make([]Insn, 0, len(nodes)+16) // program in reverse
	dist := func(n *node) int { return len(rev) - n.at }
	standIn := func(n *node) {
		in := Insn{Code: ja, K: uint32(dist(n))}
		if n.code == retK {
			in = Insn{Code: retK, K: n.k}
		}
		rev = append(rev, in)
		n.at = len(rev)
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		in := Insn{Code: n.code, K: n.k}
		switch {
		case n.no != nil:
			for dist(n.yes) > 255 || dist(n.no) > 255 {
				if dist(n.yes) > dist(n.no) {
					standIn(n.yes)
				} else {
					standIn(n.no)
				}
			}
			in.Jt, in.Jf = uint8(dist(n.yes)), uint8(dist(n.no))
		case n.yes != nil && dist(n.yes) != 0:
			standIn(n.yes)
		}
		rev = append(rev, in)
		n.at = len(rev)
		if len(rev) > unix.BPF_MAXINSNS {
			return nil, ErrTooLong
		}
	}
	slices.Reverse(rev)
	return rev, nil
}

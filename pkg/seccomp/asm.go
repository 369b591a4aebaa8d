package seccomp

import (
	"errors"
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
}

// graph interns nodes.
type graph struct{ nodes map[node]*node }

func (g *graph) node(n node) *node {
	if n.yes != nil && n.yes == n.no {
		return n.yes // a decision without consequence
	}
	if have := g.nodes[n]; have != nil {
		return have
	}
	p := new(node)
	*p = n
	g.nodes[n] = p
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
func order(root *node) []*node {
	var post []*node
	seen := map[*node]bool{}
	var visit func(*node)
	visit = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		visit(n.yes)
		visit(n.no)
		post = append(post, n)
	}
	visit(root)
	slices.Reverse(post)
	return post
}

// dropLoads redirects every edge to a load of the word that the accumulator holds on that edge to
// behind the load. Masking destroys the word. Nodes are changed in place, so the graph must not
// grow afterwards.
func dropLoads(root *node) {
	const unknown, conflict = -1, -2
	holds := map[*node]int64{} // accumulator on entry: offset, or conflict where paths disagree
	holds[root] = unknown
	for _, n := range order(root) {
		in, reached := holds[n]
		if !reached {
			continue
		}
		out := in
		switch n.code {
		case ldAbs:
			out = int64(n.k)
		case aluAnd:
			out = unknown
		}
		for _, edge := range []**node{&n.yes, &n.no} {
			for *edge != nil && (*edge).code == ldAbs && int64((*edge).k) == out {
				*edge = (*edge).yes
			}
			if *edge == nil {
				continue
			}
			if have, ok := holds[*edge]; ok && have != out {
				holds[*edge] = conflict
			} else {
				holds[*edge] = out
			}
		}
	}
}

// assemble lays the graph out. It emits from the end backwards: all jumps go forward, so the
// distance to a target is known when the jump is emitted. A target out of the 8-bit reach of a
// conditional jump gets a stand-in right behind the jump (a long jump, or a second copy of a
// return), which then serves as the nearest entry for all earlier jumps too.
func assemble(root *node) ([]Insn, error) {
	nodes := order(root)
	var rev []Insn        // program in reverse
	at := map[*node]int{} // instructions from the node's nearest entry to the end
	dist := func(n *node) int { return len(rev) - at[n] }
	standIn := func(n *node) {
		in := Insn{Code: ja, K: uint32(dist(n))}
		if n.code == retK {
			in = Insn{Code: retK, K: n.k}
		}
		rev = append(rev, in)
		at[n] = len(rev)
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
		at[n] = len(rev)
		if len(rev) > unix.BPF_MAXINSNS {
			return nil, ErrTooLong
		}
	}
	slices.Reverse(rev)
	return rev, nil
}

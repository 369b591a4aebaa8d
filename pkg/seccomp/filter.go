package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Op compares an argument.
type Op uint8

const (
	opEqual Op = iota // arg & mask == value
	opNotEqual
	opGreaterEqual
	opLessEqual
)

// Cond is a condition on one argument, made by the functions below. The arguments are registers of
// 64 bits; where the kernel only looks at an int (descriptors, flags), use the 32-bit forms, as the
// upper half may hold anything.
type Cond struct {
	arg   uint8
	op    Op
	mask  uint64
	value uint64
}

// Equal holds where all 64 bits of argument arg (0 to 5) are v.
func Equal(arg uint8, v uint64) Cond { return Cond{arg, opEqual, ^uint64(0), v} }

// Equal32 holds where the lower 32 bits of the argument are v.
func Equal32(arg uint8, v uint32) Cond { return Cond{arg, opEqual, 1<<32 - 1, uint64(v)} }

// MaskedEqual holds where the bits of the argument that mask selects are v.
func MaskedEqual(arg uint8, mask, v uint64) Cond { return Cond{arg, opEqual, mask, v} }

// NotEqual holds where the argument is not v.
func NotEqual(arg uint8, v uint64) Cond { return Cond{arg, opNotEqual, ^uint64(0), v} }

// MaskedNotEqual holds where the bits of the argument that mask selects are not v.
func MaskedNotEqual(arg uint8, mask, v uint64) Cond { return Cond{arg, opNotEqual, mask, v} }

// GreaterEqual holds where the argument, unsigned, is at least v.
func GreaterEqual(arg uint8, v uint64) Cond { return Cond{arg, opGreaterEqual, 0, v} }

// LessEqual holds where the argument, unsigned, is at most v.
func LessEqual(arg uint8, v uint64) Cond { return Cond{arg, opLessEqual, 0, v} }

// Rule gives a system call an action. Several rules for one call are tried in order; the first whose
// conditions all hold decides.
type Rule struct {
	NR   uint32
	When []Cond // all must hold; empty: always
	// Do is the action. The zero value means Allow: a rule cannot ask for KillThread, which no
	// policy of ours wants.
	Do Action
}

// Filter is a policy on system calls.
type Filter struct {
	Rules   []Rule
	Hot     []uint32 // numbers to test first, hottest first; the others take a binary search
	Default Action   // for calls that no rule covers
	BadArch Action   // for calls of another architecture or of the x32 convention
}

// x32Bit marks system calls of the x32 convention on x86-64; other conventions have no such numbers.
const x32Bit = 0x40000000

// Build compiles the filter for the architecture the program runs on.
func (f *Filter) Build() ([]Insn, error) {
	g := newGraph(len(f.Rules))
	deny, bad := g.ret(f.Default), g.ret(f.BadArch)

	// entry by number; the first rule of a call must come out first, so compile from the last.
	entry := make(map[uint32]*node, len(f.Rules))
	for i := len(f.Rules) - 1; i >= 0; i-- {
		r := &f.Rules[i]
		if r.NR >= x32Bit {
			return nil, unix.EINVAL
		}
		miss := entry[r.NR]
		if miss == nil {
			miss = deny
		}
		do := r.Do
		if do == 0 {
			do = Allow
		}
		hit := g.ret(do)
		for c := len(r.When) - 1; c >= 0; c-- {
			if r.When[c].arg > 5 {
				return nil, unix.EINVAL
			}
			hit = g.cond(&r.When[c], hit, miss)
		}
		entry[r.NR] = hit
	}

	root := g.jump(jge, x32Bit, bad, g.search(spans(entry, deny)))
	for i := len(f.Hot) - 1; i >= 0; i-- {
		if e := entry[f.Hot[i]]; e != nil {
			root = g.jump(jeq, f.Hot[i], e, root)
		}
	}
	root = g.load(offNR, root)
	root = g.load(offArch, g.jump(jeq, hostArch, root, bad))
	g.dropLoads(root)
	return g.assemble(root)
}

// span is a run of system call numbers, from first up to the next span's, with one treatment.
type span struct {
	first uint32
	to    *node
}

// spans covers all numbers: calls of equal treatment that follow each other are one span.
func spans(entry map[uint32]*node, deny *node) []span {
	nrs := make([]uint32, 0, len(entry))
	for nr := range entry {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	out := append(make([]span, 0, 2*len(nrs)+1), span{0, deny})
	add := func(first uint32, to *node) {
		switch last := &out[len(out)-1]; {
		case last.to == to:
		case last.first == first:
			last.to = to
			if n := len(out); n > 1 && out[n-2].to == to {
				out = out[:n-1]
			}
		default:
			out = append(out, span{first, to})
		}
	}
	for _, nr := range nrs {
		add(nr, entry[nr])
		add(nr+1, deny)
	}
	return out
}

// search is a balanced tree of comparisons over spans.
func (g *graph) search(s []span) *node {
	if len(s) == 1 {
		return s[0].to
	}
	mid := len(s) / 2
	return g.jump(jge, s[mid].first, g.search(s[mid:]), g.search(s[:mid]))
}

// cond compiles one condition on the two halves of an argument.
func (g *graph) cond(c *Cond, hit, miss *node) *node {
	lo, hi := uint32(c.value), uint32(c.value>>32)
	switch c.op {
	case opNotEqual:
		hit, miss = miss, hit
		fallthrough
	case opEqual:
		n := g.half(offLo(c.arg), uint32(c.mask), lo, hit, miss)
		return g.half(offHi(c.arg), uint32(c.mask>>32), hi, n, miss)
	case opGreaterEqual:
		n := g.load(offLo(c.arg), g.jump(jge, lo, hit, miss))
		return g.load(offHi(c.arg), g.jump(jgt, hi, hit, g.jump(jeq, hi, n, miss)))
	}
	n := g.load(offLo(c.arg), g.jump(jgt, lo, miss, hit))
	return g.load(offHi(c.arg), g.jump(jgt, hi, miss, g.jump(jeq, hi, n, hit)))
}

// half compiles word & mask == v.
func (g *graph) half(off, mask, v uint32, hit, miss *node) *node {
	switch {
	case v&^mask != 0:
		return miss // bits that the mask clears cannot be set
	case mask == 0:
		return hit
	}
	return g.load(off, g.and(mask, g.jump(jeq, v, hit, miss)))
}

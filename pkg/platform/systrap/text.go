package systrap

import (
	"bytes"
	"errors"
	"unsafe"
)

func stubText()
func stubTextAddr() uintptr

//go:noescape
func spinEvent(state *uint32, mask, want, n uint32) bool
func cpuNumber() uint32

// store is a store that need not be ordered with others.
//
//go:noescape
func store(p *uint32, v uint32)
func rdtsc() uint64
func cpuid(leaf, sub uint32) (a, b, c, d uint32)
func xgetbv() (lo, hi uint32)

// Labels of stub_amd64.s.
const (
	labelHandler = 1 + iota
	labelPublish
	labelFinal
	labelWaitEnd
	labelMemory
	labelEnd
	labelPatched
	numLabels
)

// finalMove is the length of the instruction between labelFinal and the jump.
const finalMove = 8

var errText = errors.New("systrap: the stub's code is not what the loader expects")

// text is the code of the stub processes and where its parts are in them.
type text struct {
	code  []byte
	label [numLabels]uint64 // addresses in a stub process
}

// makeText finds the labels in the code that the assembler made.
func makeText() (*text, error) {
	src := unsafe.Slice((*byte)(unsafe.Pointer(stubTextAddr())), textSize)
	t := &text{}
	for n := byte(1); n < numLabels; n++ {
		i := bytes.Index(src, []byte{0x0f, 0x1f, 0x80, n, 'u', 's', 'k'})
		if i < 0 {
			return nil, errText
		}
		t.label[n] = textAddr + uint64(i) + 7
	}
	t.code = src[:t.label[labelEnd]-textAddr]
	jump := t.label[labelFinal] - textAddr + finalMove
	if !bytes.HasPrefix(t.code[jump:], []byte{0xff, 0xe1}) || t.label[labelHandler] != textAddr+7 {
		return nil, errText
	}
	return t, nil
}

// table is the data that goes with the code.
func (t *text) table(sentryPid, doorbell int, fsgsbase bool) table {
	tab := table{
		publish:   t.label[labelPublish],
		waitEnd:   t.label[labelWaitEnd],
		finalJump: t.label[labelFinal] + finalMove,
		sentryPid: uint64(sentryPid),
		one:       1,
		doorbell:  uint64(doorbell),
	}
	if fsgsbase {
		tab.fsgsbase = 1
	}
	return tab
}

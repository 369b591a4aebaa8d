package profile

import (
	"encoding/binary"
	"errors"
	"runtime"
	"time"
)

// ErrTooLarge says that a profile exceeds its limit.
var ErrTooLarge = errors.New("the profile is too large")

// Field numbers of profile.proto.
const (
	profileSampleType  = 1
	profileSample      = 2
	profileMapping     = 3
	profileLocation    = 4
	profileFunction    = 5
	profileString      = 6
	profileTime        = 9
	profileDuration    = 10
	profilePeriodType  = 11
	profilePeriod      = 12
	profileDefaultType = 14

	valueTypeType = 1
	valueTypeUnit = 2

	sampleLocation = 1
	sampleValue    = 2

	mappingID           = 1
	mappingFile         = 5
	mappingHasFunctions = 7 // and 8, 9: file names, line numbers

	locationID      = 1
	locationMapping = 2
	locationAddress = 3
	locationLine    = 4

	lineFunction = 1
	lineLine     = 2

	functionID         = 1
	functionName       = 2
	functionSystemName = 3
	functionFile       = 4
)

// message is a protocol buffer being written.
type message []byte

// num appends a field with an integer; 0 is the default and left out.
func (m *message) num(field int, v uint64) {
	if v != 0 {
		*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3), v)
	}
}

// bytes appends a field with a string or a message.
func (m *message) bytes(field int, v []byte) {
	*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field)<<3|2), uint64(len(v)))
	*m = append(*m, v...)
}

// packed appends a field with a list of integers.
func (m *message) packed(field int, v []uint64) {
	var list message
	for _, x := range v {
		list = binary.AppendUvarint(list, x)
	}
	m.bytes(field, list)
}

// valueType names a quantity and its unit.
type valueType struct{ what, unit string }

// builder writes a profile. Frames of the program are told apart by their return address, functions by their name.
type builder struct {
	out         message
	max         int
	defaultType uint64
	strings     map[string]uint64
	order       []string
	locations   map[uintptr]uint64
	functions   map[string]uint64
	stack       []uint64 // scratch
}

func newBuilder(max int, types []valueType) *builder {
	b := &builder{max: max, strings: map[string]uint64{}, locations: map[uintptr]uint64{}, functions: map[string]uint64{}}
	b.str("") // the first string must be empty
	for _, t := range types {
		b.out.bytes(profileSampleType, b.valueType(t))
	}
	// One mapping stands for the whole program, all of which is symbolised here.
	var m message
	m.num(mappingID, 1)
	m.num(mappingFile, b.str("runsc"))
	for i := range 3 {
		m.num(mappingHasFunctions+i, 1)
	}
	b.out.bytes(profileMapping, m)
	return b
}

// str returns the index of a string in the profile's table.
func (b *builder) str(s string) uint64 {
	if i, ok := b.strings[s]; ok {
		return i
	}
	i := uint64(len(b.order))
	b.strings[s] = i
	b.order = append(b.order, s)
	return i
}

func (b *builder) valueType(t valueType) message {
	var m message
	m.num(valueTypeType, b.str(t.what))
	m.num(valueTypeUnit, b.str(t.unit))
	return m
}

// period says what lies between two samples.
func (b *builder) period(t valueType, n int64) {
	b.out.bytes(profilePeriodType, b.valueType(t))
	b.out.num(profilePeriod, uint64(n))
}

// span says when the profile began and how long it took.
func (b *builder) span(begin time.Time, d time.Duration) {
	b.out.num(profileTime, uint64(begin.UnixNano()))
	b.out.num(profileDuration, uint64(d))
}

// sample adds a stack of return addresses, the innermost first, with its values.
func (b *builder) sample(stack []uintptr, values ...int64) {
	if len(b.out) > b.max || len(stack) == 0 {
		return
	}
	b.stack = b.stack[:0]
	for i := range stack {
		b.stack = append(b.stack, b.location(stack[i]))
	}
	v := make([]uint64, len(values))
	for i := range values {
		v[i] = uint64(values[i])
	}
	var m message
	m.packed(sampleLocation, b.stack)
	m.packed(sampleValue, v)
	b.out.bytes(profileSample, m)
}

// location returns the ID of a frame. The runtime gives inlined calls addresses of their own, so a frame is one line.
func (b *builder) location(pc uintptr) uint64 {
	if id, ok := b.locations[pc]; ok {
		return id
	}
	id := uint64(len(b.locations) + 1)
	b.locations[pc] = id
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	if f.Function == "" {
		f.Function = "(unknown)" // code outside of Go, such as the vDSO's
	}
	var line, m message
	line.num(lineFunction, b.function(f.Function, f.File))
	line.num(lineLine, uint64(max(f.Line, 0)))
	m.num(locationID, id)
	m.num(locationMapping, 1)
	m.num(locationAddress, uint64(pc))
	m.bytes(locationLine, line)
	b.out.bytes(profileLocation, m)
	return id
}

func (b *builder) function(name, file string) uint64 {
	if id, ok := b.functions[name]; ok {
		return id
	}
	id := uint64(len(b.functions) + 1)
	b.functions[name] = id
	var m message
	m.num(functionID, id)
	m.num(functionName, b.str(name))
	m.num(functionSystemName, b.str(name))
	m.num(functionFile, b.str(file))
	b.out.bytes(profileFunction, m)
	return id
}

// finish appends what was collected on the way.
func (b *builder) finish() ([]byte, error) {
	for _, s := range b.order {
		b.out.bytes(profileString, []byte(s))
	}
	b.out.num(profileDefaultType, b.defaultType)
	if len(b.out) > b.max {
		return nil, ErrTooLarge
	}
	return b.out, nil
}

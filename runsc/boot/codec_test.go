package boot

import (
	"bytes"
	"math/rand"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// fill gives every field of a message a random value; descriptors, which are the ints, get numbers
// from *fd on.
func fill(r *rand.Rand, v reflect.Value, fd *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(r, v.Field(i), fd)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), fd)
		}
	case reflect.Slice:
		n := r.Intn(4)
		if n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), fd)
		}
	case reflect.Pointer:
		if r.Intn(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), fd)
		}
	case reflect.String:
		b := make([]byte, r.Intn(40))
		r.Read(b)
		v.SetString(string(b))
	case reflect.Bool:
		v.SetBool(r.Intn(2) == 0)
	case reflect.Int:
		v.SetInt(int64(*fd))
		*fd++
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(int32(r.Uint32())))
	case reflect.Uint8:
		v.SetUint(uint64(r.Intn(3))) // within every enumeration
	case reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(r.Intn(1 << 16)))
	case reflect.Uint64:
		v.SetUint(r.Uint64())
	default:
		panic("no rule for " + v.Type().String())
	}
}

func messages() []Message {
	return []Message{new(Boot), new(GoferBoot), new(GoferReady), new(Container), new(Request), new(ExecRequest), new(ProfileRequest), new(Reply), new(Waiter)}
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 1000 {
		for _, m := range messages() {
			fd := 1000
			fill(r, reflect.ValueOf(m).Elem(), &fd)
			data, fds := Marshal(m)
			if len(fds) != fd-1000 {
				t.Fatalf("%T: %d descriptors, want %d", m, len(fds), fd-1000)
			}
			back := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
			left, err := Unmarshal(back, data, fds)
			if err != nil || len(left) != 0 {
				t.Fatalf("%T: %v, unclaimed %v", m, err, left)
			}
			if !reflect.DeepEqual(m, back) {
				t.Fatalf("%T: got %+v, want %+v", m, back, m)
			}
			// Nothing shorter is a message.
			for cut := range min(len(data), 50) {
				if _, err := Unmarshal(reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message), data[:cut], fds); err == nil {
					t.Fatalf("%T: accepted with %d of %d bytes", m, cut, len(data))
				}
			}
		}
	}
}

func TestDecodeHostile(t *testing.T) {
	ok, _ := Marshal(&Waiter{Container: "c", Wait: -1, Control: -1, TTY: -1})
	tests := []struct {
		name string
		m    Message
		data []byte
		fds  []int
	}{
		{"string longer than message", new(GoferReady), []byte{0xff, 0xff, 0xff, 0xff}, nil},
		{"string length past the end", new(GoferReady), []byte{2, 0, 0, 0, 'x'}, nil},
		{"trailing byte", new(Waiter), append(bytes.Clone(ok), 0), nil},
		{"count without elements", new(Container), append(make([]byte, 20), 0xff, 0xff, 0xff, 0x7f), nil},
		{"descriptor that did not come", new(Waiter), replaceTail(ok, 0, 0, 0, 0), nil},
		{"descriptor claimed twice", new(Waiter), replaceTail(ok, 0, 0, 0, 0, 0, 0, 0, 0), []int{5}},
		{"negative descriptor", new(Waiter), replaceTail(ok, 0xfe, 0xff, 0xff, 0xff), []int{5}},
	}
	for _, tt := range tests {
		if left, err := Unmarshal(tt.m, tt.data, tt.fds); err == nil || len(left) != len(tt.fds) {
			t.Errorf("%s: error %v, unclaimed %v", tt.name, err, left)
		}
	}
}

func replaceTail(b []byte, tail ...byte) []byte {
	return append(bytes.Clone(b[:len(b)-len(tail)]), tail...)
}

// FuzzBootMessage decodes anything as every message, and what decodes must encode to what decodes to the same.
func FuzzBootMessage(f *testing.F) {
	r := rand.New(rand.NewSource(2))
	for i, m := range messages() {
		fd := 0
		fill(r, reflect.ValueOf(m).Elem(), &fd)
		data, _ := Marshal(m)
		f.Add(uint8(i), data, uint8(fd))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte, nfds uint8) {
		m := messages()[int(kind)%len(messages())]
		fds := make([]int, int(nfds)%8)
		for i := range fds {
			fds[i] = 100 + i
		}
		if _, err := Unmarshal(m, data, fds); err != nil {
			return
		}
		again, fds2 := Marshal(m)
		back := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
		if _, err := Unmarshal(back, again, fds2); err != nil || !reflect.DeepEqual(m, back) {
			t.Fatalf("%T changed: %v\n%+v\n%+v", m, err, m, back)
		}
	})
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

func TestConnPassesDescriptors(t *testing.T) {
	a, b := pair(t)
	tx, rx := NewConn(a), NewConn(b)
	defer tx.Close()
	defer rx.Close()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	big := string(make([]byte, 1<<20))
	done := make(chan error, 1)
	go func() {
		done <- tx.SendMessage(KindGoferBoot, 7, &GoferBoot{Attach: []Attach{{Path: big}}, Conn: p[1], Lifeline: -1, Log: -1})
	}()
	f, err := rx.Recv()
	if err != nil || <-done != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	var g GoferBoot
	if err := Decode(&f, KindGoferBoot, &g); err != nil || f.ID != 7 || g.Attach[0].Path != big {
		t.Fatalf("%v, id %d", err, f.ID)
	}
	unix.Write(g.Conn, []byte("x"))
	unix.Close(g.Conn)
	buf := make([]byte, 4)
	if n, _ := unix.Read(p[0], buf); n != 1 {
		t.Fatalf("the descriptor that arrived is not the pipe: read %d", n)
	}
	unix.Close(p[0])
}

func TestConnRejects(t *testing.T) {
	for name, raw := range map[string][]byte{
		"bad magic":       append([]byte("GET / HTTP/1.1\r\n"), make([]byte, 16)...),
		"huge length":     {0x48, 0x53, 0x4b, 0x31, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"missing payload": {0x48, 0x53, 0x4b, 0x31, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0},
		"missing fds":     {0x48, 0x53, 0x4b, 0x31, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"half a header":   {0x48, 0x53},
	} {
		a, b := pair(t)
		unix.Write(a, raw)
		unix.Close(a)
		c := NewConn(b)
		if _, err := c.Recv(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		c.Close()
	}
}

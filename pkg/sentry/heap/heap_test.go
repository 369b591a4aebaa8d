package heap

import "testing"

func TestLook(t *testing.T) {
	var g Growth
	g.Look()
	if g.last != 0 {
		t.Fatal("a huge page for a heap that has not grown")
	}
	var kept [][]byte
	for i := range 64 << 10 {
		b := make([]byte, 256)
		b[i%256] = byte(i)
		kept = append(kept, b)
		if i%64 == 0 {
			g.Look()
		}
	}
	if g.last == 0 || g.last%block != 0 {
		t.Errorf("after 16 MiB: %x", g.last)
	}
	for i, b := range kept {
		if b[i%256] != byte(i) {
			t.Fatalf("piece %d has changed", i)
		}
	}
	if n := testing.AllocsPerRun(100, g.Look); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

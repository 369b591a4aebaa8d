package dev

import (
	"testing"

	"golang.org/x/sys/unix"

	"husk/pkg/sentry/mm"
)

func TestMemoryDevices(t *testing.T) {
	b := []byte{1, 2, 3}
	if n, err := (null{}).Read(nil, mm.BytesSeq(b), 0); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := (null{}).Write(nil, mm.BytesSeq(b), 0); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := (full{}).Write(nil, mm.BytesSeq(b), 0); err != unix.ENOSPC {
		t.Fatal(err)
	}
	if n, err := (full{}).Read(nil, mm.BytesSeq(b), 0); n != 3 || err != nil || b[0]|b[1]|b[2] != 0 {
		t.Fatal(n, err, b)
	}
	big := make([]byte, 10000)
	if n, err := (random{}).Read(nil, mm.BytesSeq(big), 0); n != 10000 || err != nil {
		t.Fatal(n, err)
	}
	zeros := 0
	for _, c := range big {
		if c == 0 {
			zeros++
		}
	}
	if zeros > 200 {
		t.Fatal("not random:", zeros)
	}
}

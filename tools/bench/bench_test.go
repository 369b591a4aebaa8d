package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

// sample is a store with a row of each section.
func sample(t *testing.T) *store {
	s, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range []string{"fstat", "stat", "open-close"} {
		c := newCollector("micro", row, "us", native, 2)
		for r := range 5 {
			c.add(native, float64(1+r))
			c.add(systrap, float64((1+r)*(i+1)))
		}
		s.put(c.result())
	}
	c := newCollector("programs", programs[0].name, "ms", runc, programTarget)
	c.add(runc, 10)
	c.add(systrap, 40)
	s.put(c.result())
	m := newCollector("memory", "idle", "MB", "", 8)
	m.add(systrap, 7)
	s.put(m.result())
	return s
}

func TestRatios(t *testing.T) {
	r := sample(t).rows("micro")
	if len(r) != 3 || r[0].Row != "fstat" || r[0].Ratios[systrap] != 1 || r[2].Ratios[systrap] != 3 || r[2].Values[systrap] != 9 {
		t.Fatalf("%+v", r)
	}
	if r[1].verdict() != "met" || r[2].verdict() != "missed" {
		t.Errorf("verdicts %s, %s", r[1].verdict(), r[2].verdict())
	}
	if g, n := geomean(r); n != 3 || math.Abs(g-math.Cbrt(6)) > 1e-9 {
		t.Errorf("geometric mean %v of %d", g, n)
	}
}

func TestReport(t *testing.T) {
	s := sample(t)
	text := string(markdown(s))
	for _, want := range []string{"|fstat|3.00|-|3.00 (1.00x)|-|2x|met|", "|geometric mean of 1||4.00x|2.0x|missed|", "|idle|-|7.00 MB|-|8 MB|met|"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	d := xml.NewDecoder(bytes.NewReader(chart(s)))
	for {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

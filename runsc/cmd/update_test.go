package cmd

import "testing"

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "-1": -1, "4096": 4096, "1k": 1024, "1K": 1024, "2kb": 2048, "3KiB": 3072, "64m": 64 << 20, "1.5g": 3 << 29, "1 GB": 1 << 30, "10b": 10, "1t": 1 << 40,
		"9223372036854775807": 9223372036854775807,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "1x", "-2", "k", "1kk", "1e30", "99999999999g", "nan", "inf", "1kibi"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

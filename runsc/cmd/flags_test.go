package cmd

import (
	"slices"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	tests := []struct {
		args string
		stop bool
		rest string
		err  string
		s    string
		b    bool
		n    int
	}{
		{args: "a b", rest: "a b"},
		{args: "--str x a", rest: "a", s: "x"},
		{args: "-str=x -- -b", rest: "-b", s: "x"},
		{args: "--str= a", rest: "a"},
		{args: "a --bool b", rest: "a b", b: true},
		{args: "a --bool b", stop: true, rest: "a --bool b"},
		{args: "-b=false a", rest: "a"},
		{args: "-b -n 7 a", rest: "a", b: true, n: 7},
		{args: "-n x", err: "invalid value"},
		{args: "-n -1", err: "invalid value"},
		{args: "-n 99999999999", err: "invalid value"},
		{args: "--str", err: "needs an argument"},
		{args: "--nope", err: "not defined: -nope"},
		{args: "-", rest: "-"},
		{args: "--help", err: "help"},
	}
	for _, tt := range tests {
		f := &flagSet{stop: tt.stop}
		var s string
		var b bool
		var n int
		f.str(&s, "str,s", "")
		f.boolean(&b, "bool,b", "")
		f.num(&n, 0, "num,n", "")
		rest, err := f.parse(strings.Fields(tt.args))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.args, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(rest, strings.Fields(tt.rest)) || s != tt.s || b != tt.b || n != tt.n {
			t.Errorf("%q: %q s=%q b=%v n=%d, %v", tt.args, rest, s, b, n, err)
		}
	}
}

func TestLooseFlags(t *testing.T) {
	f := &flagSet{loose: true}
	var s string
	f.str(&s, "format,f", "")
	rest, err := f.parse([]string{"-f", "json", "id", "-ef", "--x"})
	if err != nil || s != "json" || !slices.Equal(rest, []string{"id", "-ef", "--x"}) {
		t.Errorf("%q %q %v", s, rest, err)
	}
}

// Every verb has help for itself and for each of its flags.
func TestHelp(t *testing.T) {
	for _, c := range commands() {
		f := &flagSet{}
		c.setup(f)
		if c.summary == "" {
			t.Errorf("%s has no summary", c.name)
		}
		for _, fl := range f.flags {
			if fl.help == "" {
				t.Errorf("%s: flag %s has no help", c.name, fl.names[0])
			}
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]int{"9": 9, "KILL": 9, "sigkill": 9, "SIGTERM": 15, "0": 0, "SIGRTMIN+1": 35, "RTMAX-2": 62, "64": 64} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "BOGUS", "65", "-1", "RTMIN-1", "RTMAX+1"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("%q: accepted as %d", s, got)
		}
	}
}

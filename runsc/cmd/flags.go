package cmd

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// flagSpec is one flag. Names are without dashes, the long one first.
type flagSpec struct {
	names []string
	help  string
	value string // what help calls the value; "" for a switch
	set   func(string) error
}

// flagSet is the flags of a verb, in the order of its help.
type flagSet struct {
	flags []flagSpec
	// stop ends the flags at the first argument: what follows belongs to another program.
	stop bool
	// loose passes unknown flags on as arguments once there is an argument.
	loose bool
}

func (s *flagSet) add(names, value, help string, set func(string) error) {
	s.flags = append(s.flags, flagSpec{strings.Split(names, ","), help, value, set})
}

// str is a flag with a value; names are separated by commas.
func (s *flagSet) str(p *string, names, help string) {
	s.add(names, "value", help, func(v string) error { *p = v; return nil })
}

// strs is a flag that can be given several times.
func (s *flagSet) strs(p *[]string, names, help string) {
	s.add(names, "value", help, func(v string) error { *p = append(*p, v); return nil })
}

// num is a flag with a number from min up to what an int32 holds.
func (s *flagSet) num(p *int, min int, names, help string) {
	s.add(names, "value", help, func(v string) error {
		n, err := strconv.ParseInt(v, 0, 32)
		if err != nil || int(n) < min {
			return fmt.Errorf("%q is not a number from %d", v, min)
		}
		*p = int(n)
		return nil
	})
}

// duration is a flag such as 5s.
func (s *flagSet) duration(p *time.Duration, names, help string) {
	s.add(names, "value", help, func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a duration", v)
		}
		*p = d
		return nil
	})
}

// boolean is a switch; --flag=false clears it.
func (s *flagSet) boolean(p *bool, names, help string) {
	s.add(names, "", help, func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is not a boolean", v)
		}
		*p = b
		return nil
	})
}

func (s *flagSet) find(name string) *flagSpec {
	for i := range s.flags {
		for _, n := range s.flags[i].names {
			if n == name {
				return &s.flags[i]
			}
		}
	}
	return nil
}

// errHelp asks for the help text.
type errHelp struct{}

func (errHelp) Error() string { return "help requested" }

// parse takes the flags out of args and returns the arguments. Flags are --name=value,
// --name value, or the same with one dash; -- ends them.
func (s *flagSet) parse(args []string) (rest []string, err error) {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			return append(rest, args...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			if s.stop {
				return append(rest, args...), nil
			}
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		f := s.find(name)
		if f == nil {
			if name == "help" || name == "h" {
				return nil, errHelp{}
			}
			if s.loose && len(rest) > 0 {
				rest = append(rest, a)
				continue
			}
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		if !has {
			if f.value == "" {
				value = "true"
			} else if len(args) == 0 {
				return nil, fmt.Errorf("flag needs an argument: -%s", name)
			} else {
				value, args = args[0], args[1:]
			}
		}
		if err := f.set(value); err != nil {
			return nil, fmt.Errorf("invalid value for flag -%s: %w", name, err)
		}
	}
	return rest, nil
}

// help renders the flags as aligned lines.
func (s *flagSet) help() string {
	var b strings.Builder
	left := make([]string, len(s.flags))
	width := 0
	for i, f := range s.flags {
		for j, n := range f.names {
			if j > 0 {
				left[i] += ", "
			}
			if len(n) > 1 {
				left[i] += "-"
			}
			left[i] += "-" + n
			if f.value != "" {
				left[i] += " " + f.value
			}
		}
		width = max(width, len(left[i]))
	}
	for i, f := range s.flags {
		fmt.Fprintf(&b, "   %-*s  %s\n", width, left[i], f.help)
	}
	return b.String()
}

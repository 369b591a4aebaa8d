package spec

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of values.
const maxDepth = 100

// JSON encodes or decodes a document (RFC 8259). A type lists its fields once, in a function that
// serves both directions: when encoding, each field that is not zero is written; when decoding, the
// function is called for each key of the object, and the field with that name takes the value. Keys
// that no field takes are skipped, null leaves a field as it is.
//
// There is no reflection: decoding a configuration for the first time in a process with
// encoding/json takes more than a millisecond to learn the types.
type JSON struct {
	dec   bool
	err   error
	depth int

	out   []byte // encoding
	first bool   // encoding: the object has no field yet

	in    []byte // decoding
	pos   int
	key   string // decoding: the key whose value comes next
	taken bool   // decoding: a field took it
}

// Decode decodes a document whose fields a function lists. Errors name the line.
func Decode(data []byte, fields func(*JSON)) error {
	c := JSON{dec: true, in: data}
	c.object(fields)
	if c.space(); c.err == nil && c.pos != len(c.in) {
		c.fail("something follows the document")
	}
	return c.err
}

// Encode encodes a document whose fields a function lists.
func Encode(fields func(*JSON)) []byte {
	c := JSON{out: make([]byte, 0, 4096)}
	c.object(fields)
	return c.out
}

func (c *JSON) fail(format string, args ...any) {
	if c.err != nil {
		return
	}
	line := 1
	for _, b := range c.in[:min(c.pos, len(c.in))] {
		if b == '\n' {
			line++
		}
	}
	c.err = fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// space skips white space and returns the next byte, 0 at the end and after an error.
func (c *JSON) space() byte {
	for ; c.err == nil && c.pos < len(c.in); c.pos++ {
		switch c.in[c.pos] {
		case ' ', '\t', '\n', '\r':
		default:
			return c.in[c.pos]
		}
	}
	return 0
}

// take consumes a byte that must come next.
func (c *JSON) take(want byte) bool {
	if got := c.space(); got != want {
		if c.err == nil && c.pos >= len(c.in) {
			c.fail("unexpected end, expected '%c'", want)
		} else {
			c.fail("unexpected '%c', expected '%c'", got, want)
		}
		return false
	}
	c.pos++
	return true
}

// word consumes a literal that starts with the next byte.
func (c *JSON) word(w string) bool {
	if len(c.in)-c.pos < len(w) || string(c.in[c.pos:c.pos+len(w)]) != w {
		c.fail("invalid literal")
		return false
	}
	c.pos += len(w)
	return true
}

// null consumes a null if that comes next.
func (c *JSON) null() bool { return c.space() == 'n' && c.word("null") }

// enter bounds the nesting.
func (c *JSON) enter() bool {
	if c.depth++; c.depth > maxDepth {
		c.fail("nested too deeply")
	}
	return c.err == nil
}

// items consumes what is between an opening and a closing byte, separated by commas.
func (c *JSON) items(open, end byte, item func()) {
	if !c.take(open) || !c.enter() {
		return
	}
	defer func() { c.depth-- }()
	if c.space() == end {
		c.pos++
		return
	}
	for c.err == nil {
		item()
		if c.space() == ',' {
			c.pos++
			continue
		}
		c.take(end)
		return
	}
}

// object is an object with fields.
func (c *JSON) object(fields func(*JSON)) {
	if !c.dec {
		outer := c.first
		c.out, c.first = append(c.out, '{'), true
		fields(c)
		c.out, c.first = append(c.out, '}'), outer
		return
	}
	c.items('{', '}', func() {
		c.key, c.taken = c.text(), false
		if !c.take(':') {
			return
		}
		if fields(c); c.err == nil && !c.taken {
			c.skip()
		}
	})
}

// field says whether the named field is to be encoded or decoded now.
func (c *JSON) field(name string, zero bool) bool {
	if c.dec {
		if c.err != nil || c.taken || c.key != name {
			return false
		}
		c.taken = true
		return !c.null()
	}
	if zero {
		return false
	}
	if !c.first {
		c.out = append(c.out, ',')
	}
	c.first = false
	c.out = append(c.out, '"')
	c.out = append(c.out, name...)
	c.out = append(c.out, '"', ':')
	return true
}

// skip consumes any value.
func (c *JSON) skip() {
	switch b := c.space(); b {
	case '{':
		c.items('{', '}', func() {
			c.text()
			if c.take(':') {
				c.skip()
			}
		})
	case '[':
		c.items('[', ']', c.skip)
	case '"':
		c.text()
	case 't':
		c.word("true")
	case 'f':
		c.word("false")
	case 'n':
		c.word("null")
	default:
		c.number()
	}
}

// number consumes the text of a number.
func (c *JSON) number() string {
	start := c.pos
	digits := func() bool {
		from := c.pos
		for c.pos < len(c.in) && c.in[c.pos] >= '0' && c.in[c.pos] <= '9' {
			c.pos++
		}
		return c.pos > from
	}
	at := func(b byte) bool { return c.pos < len(c.in) && c.in[c.pos] == b }
	if at('-') {
		c.pos++
	}
	zero := at('0')
	from := c.pos
	ok := digits() && !(zero && c.pos > from+1)
	if ok && at('.') {
		c.pos++
		ok = digits()
	}
	if ok && (at('e') || at('E')) {
		if c.pos++; at('+') || at('-') {
			c.pos++
		}
		ok = digits()
	}
	if !ok {
		c.pos = start
		if c.pos >= len(c.in) {
			c.fail("unexpected end")
		} else {
			c.fail("invalid character %q", c.in[c.pos])
		}
		return ""
	}
	return string(c.in[start:c.pos])
}

// text consumes a string.
func (c *JSON) text() string {
	if !c.take('"') {
		return ""
	}
	start := c.pos
	for c.pos < len(c.in) { // mostly there is nothing to be decoded
		switch b := c.in[c.pos]; {
		case b == '"':
			c.pos++
			return string(c.in[start : c.pos-1])
		case b == '\\' || b < ' ' || b >= utf8.RuneSelf:
			return c.escaped(append([]byte(nil), c.in[start:c.pos]...))
		}
		c.pos++
	}
	c.fail("unexpected end of a string")
	return ""
}

// escaped is the rest of a string from the first byte on that needs decoding.
func (c *JSON) escaped(b []byte) string {
	for c.pos < len(c.in) {
		switch x := c.in[c.pos]; {
		case x == '"':
			c.pos++
			return string(b)
		case x < ' ':
			c.fail("control character in a string")
			return ""
		case x == '\\':
			c.pos++
			var ok bool
			if b, ok = c.escape(b); !ok {
				c.fail("invalid escape in a string")
				return ""
			}
		default:
			r, n := utf8.DecodeRune(c.in[c.pos:])
			b = utf8.AppendRune(b, r) // what is not UTF-8 becomes the replacement character
			c.pos += n
		}
	}
	c.fail("unexpected end of a string")
	return ""
}

// escape decodes what follows a backslash.
func (c *JSON) escape(b []byte) ([]byte, bool) {
	if c.pos >= len(c.in) {
		return b, false
	}
	x := c.in[c.pos]
	c.pos++
	switch x {
	case '"', '\\', '/':
		return append(b, x), true
	case 'b':
		return append(b, '\b'), true
	case 'f':
		return append(b, '\f'), true
	case 'n':
		return append(b, '\n'), true
	case 'r':
		return append(b, '\r'), true
	case 't':
		return append(b, '\t'), true
	case 'u':
		r, ok := c.hex4()
		if !ok {
			return b, false
		}
		if utf16.IsSurrogate(r) {
			r = c.surrogate(r)
		}
		return utf8.AppendRune(b, r), true
	}
	return b, false
}

// surrogate is the character of a pair, whose second half is consumed if it fits.
func (c *JSON) surrogate(first rune) rune {
	if c.pos+1 < len(c.in) && c.in[c.pos] == '\\' && c.in[c.pos+1] == 'u' {
		back := c.pos
		c.pos += 2
		if second, ok := c.hex4(); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r
			}
		}
		c.pos = back
	}
	return utf8.RuneError
}

func (c *JSON) hex4() (rune, bool) {
	if len(c.in)-c.pos < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(c.in[c.pos:c.pos+4]), 16, 16)
	if err != nil {
		return 0, false
	}
	c.pos += 4
	return rune(n), true
}

// appendText writes a string.
func (c *JSON) appendText(s string) {
	const hex = "0123456789abcdef"
	b := append(c.out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	c.out = append(b, '"')
}

var errRange = errors.New("out of range")

// integer is a value of a whole number type.
func integer[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64](c *JSON, p *T) {
	if !c.dec {
		if *p < 0 {
			c.out = strconv.AppendInt(c.out, int64(*p), 10)
		} else {
			c.out = strconv.AppendUint(c.out, uint64(*p), 10)
		}
		return
	}
	c.space()
	s := c.number()
	if c.err != nil {
		return
	}
	n, err := parseInteger[T](s)
	if err != nil {
		c.fail("%s is not a number that fits here", s)
		return
	}
	*p = n
}

func parseInteger[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64](s string) (T, error) {
	if s[0] == '-' {
		n, err := strconv.ParseInt(s, 10, 64)
		if t := T(n); err == nil && (int64(t) != n || t > 0) {
			err = errRange
		}
		return T(n), err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if t := T(n); err == nil && (uint64(t) != n || t < 0) {
		err = errRange
	}
	return T(n), err
}

// text is a value of a string type.
func text[T ~string](c *JSON, p *T) {
	if !c.dec {
		c.appendText(string(*p))
	} else if s := c.text(); c.err == nil {
		*p = T(s)
	}
}

func boolean(c *JSON, p *bool) {
	if !c.dec {
		c.out = strconv.AppendBool(c.out, *p)
		return
	}
	switch c.space() {
	case 't':
		*p = c.word("true")
	case 'f':
		if c.word("false") {
			*p = false
		}
	default:
		c.fail("expected true or false")
	}
}

// list is an array.
func list[T any](c *JSON, p *[]T, each func(*JSON, *T)) {
	if !c.dec {
		c.out = append(c.out, '[')
		for i := range *p {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			each(c, &(*p)[i])
		}
		c.out = append(c.out, ']')
		return
	}
	*p = make([]T, 0, 4)
	c.items('[', ']', func() {
		var t T
		if !c.null() {
			each(c, &t)
		}
		*p = append(*p, t)
	})
}

// The fields. Their values take part as their kind says; name is the key.

// Int is a field with a whole number.
func Int[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64](c *JSON, name string, p *T) {
	if c.field(name, *p == 0) {
		integer(c, p)
	}
}

// Str is a field with a string.
func Str[T ~string](c *JSON, name string, p *T) {
	if c.field(name, *p == "") {
		text(c, p)
	}
}

// Bool is a field with a truth value.
func Bool(c *JSON, name string, p *bool) {
	if c.field(name, !*p) {
		boolean(c, p)
	}
}

// Opt is a field that may be missing, with a value of a kind.
func Opt[T any](c *JSON, name string, p **T, value func(*JSON, *T)) {
	if c.field(name, *p == nil) {
		if c.dec {
			*p = new(T)
		}
		value(c, *p)
	}
}

// Ptr is a field with an object that may be missing.
func Ptr[T any](c *JSON, name string, p **T, fields func(*JSON, *T)) {
	Opt(c, name, p, func(c *JSON, t *T) { c.object(func(c *JSON) { fields(c, t) }) })
}

// Obj is a field with an object.
func Obj[T any](c *JSON, name string, p *T, fields func(*JSON, *T)) {
	if c.field(name, false) {
		c.object(func(c *JSON) { fields(c, p) })
	}
}

// Strs is a field with a list of strings.
func Strs[T ~string](c *JSON, name string, p *[]T) {
	if c.field(name, len(*p) == 0) {
		list(c, p, text[T])
	}
}

// Objs is a field with a list of objects.
func Objs[T any](c *JSON, name string, p *[]T, fields func(*JSON, *T)) {
	if c.field(name, len(*p) == 0) {
		list(c, p, func(c *JSON, t *T) { c.object(func(c *JSON) { fields(c, t) }) })
	}
}

// Map is a field with strings by name.
func Map(c *JSON, name string, p *map[string]string) {
	if !c.field(name, len(*p) == 0) {
		return
	}
	if !c.dec {
		c.object(func(c *JSON) {
			for k, v := range *p {
				if !c.first {
					c.out = append(c.out, ',')
				}
				c.first = false
				c.appendText(k)
				c.out = append(c.out, ':')
				c.appendText(v)
			}
		})
		return
	}
	*p = make(map[string]string)
	c.items('{', '}', func() {
		k := c.text()
		if c.take(':') {
			v := ""
			if !c.null() {
				v = c.text()
			}
			(*p)[k] = v
		}
	})
}

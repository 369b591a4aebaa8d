// Package log writes lines for people and for log collectors: one write(2) per line, in the text
// or JSON form that container engines know. It costs nothing until a line is written.
//
// It is a leaf: it must not import any other package of the module.
package log

// Package config holds the settings that are common to all commands of runsc: the global flags.
//
// It is a leaf of runsc/: it must not import its siblings.
package config

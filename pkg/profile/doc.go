// Package profile takes profiles of the process it is linked into, in the format that `go tool pprof` reads, without
// runtime/pprof: that package links compression and table printers, whose initialisers each start of a container would pay for
// (S-3). The format is profile.proto, github.com/google/pprof/blob/main/proto/profile.proto, written uncompressed.
//
// It is a leaf: it must not import any other package of the module.
//
// Lock order: CPU's single lock is a leaf.
package profile

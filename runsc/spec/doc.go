// Package spec reads and writes what is kept as JSON in the start-up path: bundles' configurations
// (config.json of the runtime specification) and process descriptions; the container's state uses
// its codec too.
//
// It is a leaf of runsc/: it must not import its siblings, nor encoding/json or reflect.
package spec

// Package ranges holds Map, an ordered map from disjoint ranges of uint64 to values. It keeps the
// mappings and the pages of address spaces, and the reference counts and free extents of the memory file.
//
// It is a leaf: it must not import any other package of the module. It takes no locks; users do.
package ranges

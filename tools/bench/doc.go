// Command bench prints Husk's figures beside native and runc. Everything that is compared is measured in turns within one run, several
// short rounds of each, because the speed of a machine changes from minute to minute: what counts are medians of ratios.
//
// Results are kept in a directory, so that a run may measure some parts or rows only; -write makes the pages of docs/ of all that is there.
// It must run as root, in the repository's top directory, with runc, gcc and busybox-static installed.
package main

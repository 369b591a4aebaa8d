// Package repo holds the rules of the repository as tests: documentation of packages, import
// directions, the dependency closure of runsc and its cost at start-up.
package repo

// Package cmd is the command line: a file for each verb, and the dispatcher that finds the verb,
// parses its flags and prints its errors as container engines expect them from an OCI runtime.
//
// Nothing here may run before main: commands and flags are built when they are asked for.
package cmd

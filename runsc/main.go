// Command runsc is an OCI runtime that runs containers on a kernel in user space.
package main

import (
	"os"

	"husk/runsc/cmd"
)

func main() { os.Exit(cmd.Main(os.Args)) }

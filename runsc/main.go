// The Go runtime must not look for the cgroup's processor limit: the files are not there in an empty
// root, reading them costs start-up time, and their re-reading every second is a system call (pread64)
// and a wake-up that an idle sandbox does not need.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

package main

import (
	"os"

	"husk/runsc/cmd"
)

func main() { os.Exit(cmd.Main(os.Args)) }

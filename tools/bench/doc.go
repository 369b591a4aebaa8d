// Command bench prints Husk's figures beside native and runc, all measured in one run: start-up, idle memory and
// system calls. -write updates docs/performance.md. It must run as root with runc, gcc and busybox-static installed.
package main

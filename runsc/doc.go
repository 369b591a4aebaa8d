// Command runsc is an OCI runtime that runs containers on a kernel in user space.
package main

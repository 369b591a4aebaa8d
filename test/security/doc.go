// Package security looks at what confines a sandbox, and attacks it from inside: random system calls, hostile arguments. Whatever the
// application does, the sentry goes on serving the other processes of the container.
package security

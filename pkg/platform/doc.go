// Package platform defines what runs application code: address spaces that map ranges of host
// files, and contexts that execute a thread until something needs the sentry.
//
// All platforms (ptrace, systrap, kvm in the packages below) are equal behind these interfaces;
// nothing above knows which one runs. The package must not import anything of the sentry.
package platform

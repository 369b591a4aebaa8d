// Package oci drives the runtime by its command line, as containerd and Docker do: the verbs and the
// state machine of the OCI runtime specification, errors, and what is left after sudden deaths.
// RUNTIME=runc runs what does not concern the sandbox itself on runc, as the oracle.
package oci

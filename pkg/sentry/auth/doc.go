// Package auth holds credentials: user and group IDs, capabilities and user namespaces, as in
// credentials(7), capabilities(7) and user_namespaces(7). It imports only leaves.
//
// Lock order: UserNamespace.mu is a leaf lock.
package auth

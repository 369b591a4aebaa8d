package ipc

import (
	"husk/pkg/sentry/auth"
	"husk/pkg/sentry/memfile"
)

// Namespace is the System V objects of an IPC namespace.
type Namespace struct {
	Shm *Shms
	Sem *Sems
	Msg *Msgs
}

// Key is what kernel.IPCNamespace.Registry keeps the objects under.
type Key struct{}

// New makes an empty namespace owned by user, whose segments lie in f.
func New(user *auth.UserNamespace, f *memfile.File) *Namespace {
	return &Namespace{Shm: newShms(user, f), Sem: newSems(user), Msg: newMsgs(user)}
}

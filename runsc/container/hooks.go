package container

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/spec"
)

// maxHookOutput bounds what is kept of a hook's output for an error message.
const maxHookOutput = 64 << 10

// runHooks runs hooks on the host one after the other, each with the state on its standard input,
// until one fails.
func runHooks(kind string, hooks []specs.Hook, state *specs.State) error {
	for i := range hooks {
		if err := runHook(&hooks[i], state); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

func runHook(h *specs.Hook, state *specs.State) error {
	stdin, err := memoryFile("hook-state", encodeState(state))
	if err != nil {
		return err
	}
	defer stdin.Close()
	output, err := memoryFile("hook-output", nil)
	if err != nil {
		return err
	}
	defer output.Close()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	out := output.Fd()
	pid, err := syscall.ForkExec(h.Path, args, &syscall.ProcAttr{
		Dir:   state.Bundle,
		Env:   h.Env,
		Files: []uintptr{stdin.Fd(), out, out},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", h.Path, err)
	}
	ws, timedOut := waitTimeout(pid, h.Timeout)
	if timedOut {
		return fmt.Errorf("%s took longer than %d seconds", h.Path, *h.Timeout)
	}
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	buf := make([]byte, maxHookOutput)
	n, _ := output.ReadAt(buf, 0)
	how := fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		how = "signal: " + ws.Signal().String()
	}
	return fmt.Errorf("%s: %s, output: %s", h.Path, how, bytes.TrimSpace(buf[:n]))
}

// waitTimeout waits for a child; after the timeout, in seconds, it kills its process group.
func waitTimeout(pid int, seconds *int) (ws unix.WaitStatus, timedOut bool) {
	done := make(chan unix.WaitStatus, 1)
	go func() {
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
				done <- ws
				return
			}
		}
	}()
	if seconds == nil {
		return <-done, false
	}
	select {
	case ws = <-done:
		return ws, false
	case <-time.After(time.Duration(*seconds) * time.Second):
		unix.Kill(-pid, unix.SIGKILL)
		return <-done, true
	}
}

// memoryFile is an unnamed file with some content, at its start.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func encodeState(s *specs.State) []byte {
	return spec.Encode(func(c *spec.JSON) { spec.State(c, s) })
}

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/cgroup"
	"husk/runsc/host"
	"husk/runsc/spec"
)

// Status is a state of the lifecycle of the runtime specification, and "paused".
type Status string

// The states.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// Errors that commands and container engines know by their text.
var (
	ErrNotExist   = errors.New("container does not exist")
	ErrExist      = errors.New("container with given ID already exists")
	ErrInvalidID  = errors.New("invalid container ID format")
	ErrNotRunning = errors.New("container not running")
	ErrNotPaused  = errors.New("container not paused")
)

const (
	stateFile = "state.json"
	// stateVersion changes when an older runsc could misread the file.
	stateVersion = 1
)

// State is what is kept of a container on disk.
type State struct {
	Version     int
	OCIVersion  string
	ID          string
	Status      Status // as last set by a command; see Container.Status
	Bundle      string
	Rootfs      string
	Created     time.Time
	Owner       int // user id
	Annotations map[string]string

	// PID is the process that stands for the container on the host, StartTime its start time in clock
	// ticks (proc(5), field 22), which tells it from a later process with the same id.
	PID        int
	StartTime  uint64
	GoferPID   int
	GoferStart uint64
	// Sandbox is the container whose sandbox this one lives in: itself for the first one.
	Sandbox string
	// Process is what additional processes take over where they say nothing themselves.
	Process *specs.Process
	Hooks   *specs.Hooks
	Cgroup  *cgroup.Paths
	// BeforePause is the state that a paused container goes back to.
	BeforePause Status
}

// fields lists the fields for the state file.
func (s *State) fields(c *spec.JSON) {
	spec.Int(c, "version", &s.Version)
	spec.Str(c, "ociVersion", &s.OCIVersion)
	spec.Str(c, "id", &s.ID)
	spec.Str(c, "status", &s.Status)
	spec.Str(c, "bundle", &s.Bundle)
	spec.Str(c, "rootfs", &s.Rootfs)
	created := s.Created.UnixNano()
	spec.Int(c, "created", &created)
	s.Created = time.Unix(0, created).UTC()
	spec.Int(c, "owner", &s.Owner)
	spec.Map(c, "annotations", &s.Annotations)
	spec.Int(c, "pid", &s.PID)
	spec.Int(c, "startTime", &s.StartTime)
	spec.Int(c, "goferPid", &s.GoferPID)
	spec.Int(c, "goferStart", &s.GoferStart)
	spec.Str(c, "sandbox", &s.Sandbox)
	spec.Ptr(c, "process", &s.Process, spec.Process)
	spec.Ptr(c, "hooks", &s.Hooks, spec.Hooks)
	spec.Ptr(c, "cgroup", &s.Cgroup, func(c *spec.JSON, p *cgroup.Paths) {
		spec.Map(c, "v1", &p.V1)
		spec.Str(c, "v2", &p.V2)
		spec.Strs(c, "own", &p.Own)
	})
	spec.Str(c, "beforePause", &s.BeforePause)
}

// Container is a container and its directory.
type Container struct {
	State
	dir  string
	lock int // descriptor of the locked directory, -1
}

// CheckID says whether a string can name a container: it becomes the name of a directory.
func CheckID(id string) error {
	if id == "" || len(id) > 255 || id == "." || id == ".." {
		return ErrInvalidID
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '+', r == '-', r == '.':
		default:
			return ErrInvalidID
		}
	}
	return nil
}

// Load reads a container's state. With lock, no other command changes the container until Close.
func Load(root, id string, lock bool) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	c := &Container{dir: filepath.Join(root, id), lock: -1}
	if lock {
		if err := c.acquire(unix.LOCK_EX); err != nil {
			return nil, err
		}
	}
	if err := c.read(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// acquire locks the directory.
func (c *Container) acquire(how int) error {
	fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", c.dir, err)
	}
	for {
		err = unix.Flock(fd, how)
		if err != unix.EINTR {
			break
		}
	}
	var held, named unix.Stat_t
	if err == nil && (unix.Fstat(fd, &held) != nil || unix.Stat(c.dir, &named) != nil || held.Ino != named.Ino) {
		err = ErrNotExist // deleted while we waited
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	c.lock = fd
	return nil
}

// Close releases the lock.
func (c *Container) Close() {
	if c.lock >= 0 {
		unix.Close(c.lock)
		c.lock = -1
	}
}

// read reads the state file. A directory without one is what a killed create left.
func (c *Container) read() error {
	data, err := host.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		if st, serr := os.Lstat(c.dir); serr != nil || !st.IsDir() {
			return ErrNotExist
		}
		c.State = State{ID: filepath.Base(c.dir), Status: Creating, OCIVersion: specs.Version}
		c.Sandbox = c.ID
		return nil
	}
	if err != nil {
		return err
	}
	if err := spec.Decode(data, c.State.fields); err != nil {
		return fmt.Errorf("state of container %s: %w", filepath.Base(c.dir), err)
	}
	if c.Version != stateVersion {
		return fmt.Errorf("state of container %s has version %d, this runsc knows %d", c.ID, c.Version, stateVersion)
	}
	return nil
}

// save writes the state file; a reader sees the old or the new one.
func (c *Container) save() error {
	c.Version = stateVersion
	data := spec.Encode(c.State.fields)
	tmp := filepath.Join(c.dir, stateFile+".new")
	if err := host.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return os.Rename(tmp, filepath.Join(c.dir, stateFile))
}

// CurrentStatus is the state now: what commands left, corrected by what became of the processes.
func (c *Container) CurrentStatus() Status {
	if c.PID == 0 {
		if c.Status == Creating && c.lock < 0 && c.beingCreated() {
			return Creating
		}
		return Stopped
	}
	if !alive(c.PID, c.StartTime) {
		return Stopped
	}
	if c.GoferPID != 0 && !alive(c.GoferPID, c.GoferStart) {
		return Stopped // the sandbox ends itself, and has ended for the container's purposes
	}
	return c.Status
}

// beingCreated says whether some process holds the container's lock.
func (c *Container) beingCreated() bool {
	fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// OCIState is the state as the runtime specification defines it for the state command and hooks.
func (c *Container) OCIState(status Status) *specs.State {
	s := &specs.State{
		Version:     specs.Version,
		ID:          c.ID,
		Status:      specs.ContainerState(status),
		Pid:         c.PID,
		Bundle:      c.Bundle,
		Annotations: c.Annotations,
	}
	if status == Stopped {
		s.Pid = 0
	}
	return s
}

// alive says whether a process runs; one that is dead and not reaped does not.
func alive(pid int, start uint64) bool {
	state, t, ok := procStat(pid)
	return ok && t == start && state != 'Z' && state != 'X'
}

// procStat reads a process's state letter and start time from proc(5)'s stat file.
func procStat(pid int) (state byte, start uint64, ok bool) {
	data, err := host.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	s := string(data)
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := strings.Fields(s[i+1:])
	if len(f) < 20 {
		return 0, 0, false
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return f[0][0], start, err == nil
}

// List loads all containers below root; those that cannot be read are named in the errors.
func List(root string) (all []*Container, errs []error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, []error{err}
	}
	for _, e := range entries {
		if !e.IsDir() || CheckID(e.Name()) != nil {
			continue
		}
		c, err := Load(root, e.Name(), false)
		switch {
		case err == nil:
			all = append(all, c)
		case !errors.Is(err, ErrNotExist):
			errs = append(errs, err)
		}
	}
	return all, errs
}

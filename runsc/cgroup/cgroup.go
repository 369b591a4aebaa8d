package cgroup

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

	"husk/runsc/host"
)

// Paths are the directories of a container's cgroups. It is kept in the state file, so a delete
// finds them whatever happened since.
type Paths struct {
	// V1 maps controllers (and named hierarchies, such as "systemd") to directories.
	V1 map[string]string
	// V2 is the directory in the unified hierarchy.
	V2 string
	// Own are the directories that did not exist before the container and go with it.
	Own []string
}

// skipped are hierarchies that have nothing for a container of ours, and cost time: setting up a
// cpuset takes the host 2 ms, so it is made only for a container that asks for processors.
func skipped(controller string, r *specs.LinuxResources) bool {
	switch controller {
	case "cpuset":
		return r == nil || r.CPU == nil || r.CPU.Cpus == "" && r.CPU.Mems == ""
	case "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc":
		return true
	}
	return false
}

// hierarchy is a mounted cgroup file system.
type hierarchy struct {
	point string   // mount point
	root  string   // the cgroup at the mount point
	names []string // controllers, or the name of a named hierarchy; empty for the unified one
}

// mounts lists the hierarchies that this process sees, from proc(5)'s mountinfo.
func mounts() ([]hierarchy, error) {
	data, err := host.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	for _, line := range strings.Split(string(data), "\n") {
		left, right, ok := strings.Cut(line, " - cgroup")
		if !ok {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 2 {
			continue
		}
		h := hierarchy{root: l[3], point: l[4]}
		switch r[0] {
		case "2": // cgroup2
		default: // r is: device options
			for _, o := range strings.Split(r[len(r)-1], ",") {
				if n, named := strings.CutPrefix(o, "name="); named {
					h.names = append(h.names, n)
				} else if o != "rw" && o != "ro" && o != "xattr" && o != "clone_children" && !strings.HasPrefix(o, "release_agent") {
					h.names = append(h.names, o)
				}
			}
			if len(h.names) == 0 {
				continue
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// own reads this process's cgroups from proc(5)'s cgroup file: controller to path, "" for unified.
func own() map[string]string {
	out := make(map[string]string)
	data, _ := host.ReadFile("/proc/self/cgroup")
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, n := range strings.Split(f[1], ",") {
			out[strings.TrimPrefix(n, "name=")] = f[2]
		}
	}
	return out
}

// Find decides where a container's cgroups will be. path is linux.cgroupsPath: absolute from the
// root of each hierarchy, or relative to this process's own cgroup; with systemd set, it is
// slice:prefix:name. Without a path, id names the cgroup.
func Find(path, id string, systemd bool, r *specs.LinuxResources) (*Paths, error) {
	hs, err := mounts()
	if err != nil {
		return nil, err
	}
	if systemd {
		if path, err = systemdPath(path, id); err != nil {
			return nil, err
		}
	}
	abs := filepath.IsAbs(path)
	if path == "" {
		path = id
	}
	path = filepath.Clean("/" + path) // without ".." at its start: it cannot leave the hierarchy
	p := &Paths{V1: make(map[string]string)}
	var mine map[string]string
	if !abs {
		mine = own()
	}
	join := func(h *hierarchy, name string) string {
		parent := "/"
		if !abs {
			if rel, ok := strings.CutPrefix(mine[name], strings.TrimSuffix(h.root, "/")); ok {
				parent = rel
			}
		}
		return filepath.Join(h.point, parent, path)
	}
	for i := range hs {
		h := &hs[i]
		if len(h.names) == 0 {
			p.V2 = join(h, "")
			continue
		}
		for _, n := range h.names {
			if !skipped(n, r) {
				p.V1[n] = join(h, n)
			}
		}
	}
	for _, d := range p.dirs() {
		if unix.Access(d, unix.F_OK) != nil {
			p.Own = append(p.Own, d)
		}
	}
	return p, nil
}

// systemdPath turns slice:prefix:name into the path that systemd would choose.
func systemdPath(path, id string) (string, error) {
	slice, prefix, name := "system.slice", "runsc", id
	if path != "" {
		f := strings.Split(path, ":")
		if len(f) != 3 {
			return "", fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", path)
		}
		if f[0] != "" {
			slice = f[0]
		}
		prefix, name = f[1], f[2]
	}
	out := ""
	if slice != "-.slice" {
		stem := strings.TrimSuffix(slice, ".slice")
		if stem == slice || strings.Contains(stem, "/") {
			return "", fmt.Errorf("invalid slice name: %s", slice)
		}
		// a-b.slice lies in a.slice
		for i := 0; i <= len(stem); i++ {
			if i == len(stem) || stem[i] == '-' {
				out += "/" + stem[:i] + ".slice"
			}
		}
	}
	if strings.HasSuffix(name, ".slice") {
		return out + "/" + name, nil
	}
	if prefix != "" {
		name = prefix + "-" + name
	}
	return out + "/" + name + ".scope", nil
}

// Create makes the directories. With lenient, what is not permitted is left out.
func (p *Paths) Create(lenient bool) error {
	for name, dir := range p.V1 {
		if err := p.mkdir(dir); err != nil {
			if !lenient {
				return err
			}
			delete(p.V1, name)
			continue
		}
		if name == "cpuset" {
			if err := inheritCpuset(dir); err != nil && !lenient {
				return err
			}
		}
	}
	if p.V2 != "" {
		if err := p.mkdir(p.V2); err != nil {
			if !lenient && len(p.V1) == 0 {
				return err
			}
			p.V2 = ""
		} else if len(p.V1) == 0 {
			delegate(p.V2)
		}
	}
	return nil
}

// delegate enables the controllers of limits all the way down to dir in the unified hierarchy. What
// is not possible shows when a limit is set.
func delegate(dir string) {
	const root = "/sys/fs/cgroup" // where the unified hierarchy is when it is the only one
	rel, ok := strings.CutPrefix(filepath.Dir(dir), root)
	if !ok {
		return
	}
	at := root
	for _, part := range append([]string{""}, strings.Split(strings.Trim(rel, "/"), "/")...) {
		at = filepath.Join(at, part)
		for _, c := range []string{"+cpu", "+cpuset", "+io", "+memory", "+pids"} {
			write(at, "cgroup.subtree_control", c)
		}
	}
}

func (p *Paths) mkdir(dir string) error {
	err := unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		err = unix.Mkdir(dir, 0o755)
	}
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("cgroup %s: %w", dir, err)
	}
	return nil
}

// inheritCpuset fills the processors and memory nodes of a new cpuset, and of parents that have
// none, from above: no process can enter an empty one.
func inheritCpuset(dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if v, err := host.ReadFile(filepath.Join(dir, f)); err != nil || strings.TrimSpace(string(v)) != "" {
			if err != nil {
				return err
			}
			continue
		}
		parent := filepath.Dir(dir)
		v, err := host.ReadFile(filepath.Join(parent, f))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(v)) == "" {
			if err := inheritCpuset(parent); err != nil {
				return err
			}
			if v, err = host.ReadFile(filepath.Join(parent, f)); err != nil {
				return err
			}
		}
		if err := write(dir, f, strings.TrimSpace(string(v))); err != nil {
			return err
		}
	}
	return nil
}

// Add moves a process into the cgroups.
func (p *Paths) Add(pid int, lenient bool) error {
	s := strconv.Itoa(pid)
	for _, dir := range p.dirs() {
		if err := write(dir, "cgroup.procs", s); err != nil && !lenient {
			return err
		}
	}
	return nil
}

// dirs lists the directories, each once.
func (p *Paths) dirs() []string {
	var out []string
	seen := func(d string) bool {
		for _, o := range out {
			if o == d {
				return true
			}
		}
		return d == ""
	}
	for _, d := range p.V1 {
		if !seen(d) {
			out = append(out, d)
		}
	}
	if !seen(p.V2) {
		out = append(out, p.V2)
	}
	return out
}

// Remove deletes the container's own directories, with whatever cgroups are below them. Processes
// that are on their way out get a moment.
func (p *Paths) Remove() error {
	var first error
	for _, dir := range p.Own {
		if err := removeTree(dir); err != nil && first == nil {
			first = fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return first
}

// removeTree waits as long as processes leave: thousands take the kernel a while.
func removeTree(dir string) error {
	const tries = 40 // with the delays below, 2 seconds: what a dying process with much memory takes
	left := -1
	for i := 0; ; i++ {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY && err != unix.ENOTEMPTY || i == tries {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
		}
		if i > 0 {
			time.Sleep(min(time.Duration(i)*2*time.Millisecond, 60*time.Millisecond))
		}
		if i > tries/2 {
			procs, _ := host.ReadFile(filepath.Join(dir, "cgroup.procs"))
			n := strings.Count(string(procs), "\n")
			if n < left {
				i = tries / 2
			}
			left = n
		}
	}
}

func write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	var e *os.PathError
	if err := host.Put(path, value); errors.As(err, &e) {
		return fmt.Errorf("write %q to %s: %w", value, path, e.Err)
	}
	return nil
}

// readInt reads a file with one number; "max" is the largest one.
func readInt(dir, file string) (uint64, error) {
	b, err := host.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return ^uint64(0), nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// errNoController says that a limit was asked for that the host cannot hold.
var errNoController = errors.New("the host has no such cgroup controller")

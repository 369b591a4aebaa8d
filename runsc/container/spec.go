package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"husk/runsc/host"
	"husk/runsc/spec"
)

// maxConfig bounds config.json: what a container engine writes stays far below.
const maxConfig = 16 << 20

// SpecFile is the name of the configuration in a bundle.
const SpecFile = "config.json"

// LoadSpec reads and checks a bundle's configuration. bundle is absolute.
func LoadSpec(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, SpecFile)
	st, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("JSON specification file %s not found", SpecFile)
		}
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxConfig {
		return nil, fmt.Errorf("%s is not a regular file of at most %d MiB", path, maxConfig>>20)
	}
	data, err := host.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := new(specs.Spec)
	if err := spec.Decode(data, func(c *spec.JSON) { spec.Config(c, config) }); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	if err := CheckSpec(config); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(config.Root.Path) {
		config.Root.Path = filepath.Join(bundle, config.Root.Path)
	}
	return config, checkRootfs(config.Root.Path)
}

// checkRootfs says whether the root can be served. Only the last component may not be a symbolic
// link: it may be under the control of who made the image, what is above it is the host's.
func checkRootfs(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	if st.Mode()&os.ModeSymlink != 0 {
		return errors.New("invalid rootfs: not an absolute path, or a symlink")
	}
	if !st.IsDir() {
		return fmt.Errorf("invalid rootfs: %s is not a directory", path)
	}
	return nil
}

// CheckSpec validates a configuration, and puts what may be missing into a form that the rest relies on.
func CheckSpec(s *specs.Spec) error {
	if s.Version == "" {
		return errors.New("config.json: ociVersion is missing")
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return fmt.Errorf("config.json: ociVersion %q is not supported (1.x is)", s.Version)
	}
	if s.Root == nil || s.Root.Path == "" {
		return errors.New("Root must be specified")
	}
	if s.Process == nil {
		return errors.New("process property must not be empty")
	}
	if err := CheckProcess(s.Process); err != nil {
		return err
	}
	if len(s.Mounts) > 10000 {
		return fmt.Errorf("config.json: %d mounts are too many", len(s.Mounts))
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "" {
			return fmt.Errorf("config.json: mount %d has no destination", i)
		}
		if strings.ContainsRune(m.Destination, 0) || strings.ContainsRune(m.Source, 0) {
			return fmt.Errorf("config.json: mount %d: a path contains a NUL byte", i)
		}
		if !filepath.IsAbs(m.Destination) {
			m.Destination = "/" + m.Destination // runc tolerates it for old bundles
		}
		m.Destination = filepath.Clean(m.Destination)
	}
	if strings.ContainsRune(s.Hostname, 0) || len(s.Hostname) > 64 {
		return errors.New("config.json: hostname is longer than 64 bytes")
	}
	if len(s.Domainname) > 64 {
		return errors.New("config.json: domainname is longer than 64 bytes")
	}
	return checkLinux(s)
}

func checkLinux(s *specs.Spec) error {
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	seen := make(map[specs.LinuxNamespaceType]bool)
	for _, n := range s.Linux.Namespaces {
		if seen[n.Type] {
			return fmt.Errorf("malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
		switch n.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return fmt.Errorf("namespace %q does not exist", n.Type)
		}
		if n.Path != "" && !filepath.IsAbs(n.Path) {
			return fmt.Errorf("namespace path %q is not absolute", n.Path)
		}
	}
	if s.Hostname != "" && !seen[specs.UTSNamespace] {
		return errors.New("unable to set hostname without a private UTS namespace")
	}
	if len(s.Linux.UIDMappings) > 0 && !seen[specs.UserNamespace] {
		return errors.New("user namespace mappings specified, but USER namespace isn't enabled in the config")
	}
	if r := s.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit < -1 {
		return fmt.Errorf("config.json: memory limit %d is invalid", *r.Memory.Limit)
	}
	return nil
}

// CheckProcess validates a process description.
func CheckProcess(p *specs.Process) error {
	if len(p.Args) == 0 {
		return errors.New("process args cannot be empty")
	}
	if p.Cwd == "" {
		return errors.New("Cwd property must not be empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return errors.New("Cwd must be an absolute path")
	}
	total := 0
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return errors.New("process: a string contains a NUL byte")
			}
			if len(s) >= 32*4096 { // MAX_ARG_STRLEN, execve(2)
				return fmt.Errorf("process: a string of %d bytes: %w", len(s), unix.E2BIG)
			}
			total += len(s) + 9
		}
	}
	if total > 8<<20 {
		return fmt.Errorf("process: %d bytes of arguments and environment: %w", total, unix.E2BIG)
	}
	for _, r := range p.Rlimits {
		if _, ok := rlimitNumber(r.Type); !ok {
			return fmt.Errorf("invalid rlimit type: %s", r.Type)
		}
		if r.Soft > r.Hard {
			return fmt.Errorf("%s: the soft limit exceeds the hard limit", r.Type)
		}
	}
	return nil
}

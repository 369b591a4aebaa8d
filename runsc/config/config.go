package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Config are the global flags.
type Config struct {
	Root          string // directory of container state
	Log           string // file for errors of the command, "" for standard error
	LogFormat     string // "text" or "json"
	Debug         bool
	SystemdCgroup bool
	Rootless      string // "true", "false" or "auto"

	Platform   string // "systrap", "ptrace"
	Overlay    string // "none", "memory", "file:DIR"
	Network    string // "sandbox", "host", "none"
	FileAccess string // "exclusive", "shared"
	Strace     bool
	DebugLog   string // file, or directory with a slash at the end, for the sandbox's lines
}

// Default is what holds without flags.
func Default() *Config {
	return &Config{
		LogFormat:  "text",
		Rootless:   "auto",
		Platform:   "systrap",
		Overlay:    "memory",
		Network:    "sandbox",
		FileAccess: "exclusive",
	}
}

// Check validates the flags and fills in what depends on the environment.
func (c *Config) Check() error {
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("invalid log-format: %s", c.LogFormat)
	}
	if err := oneOf("rootless", c.Rootless, "true", "false", "auto"); err != nil {
		return err
	}
	if err := oneOf("platform", c.Platform, "ptrace", "systrap"); err != nil {
		return err
	}
	if err := oneOf("network", c.Network, "sandbox", "host", "none"); err != nil {
		return err
	}
	if err := oneOf("file-access", c.FileAccess, "exclusive", "shared"); err != nil {
		return err
	}
	if dir, ok := strings.CutPrefix(c.Overlay, "file:"); ok {
		if !filepath.IsAbs(dir) {
			return errors.New("--overlay=file:DIR needs an absolute directory")
		}
	} else if err := oneOf("overlay", c.Overlay, "none", "memory"); err != nil {
		return err
	}
	if c.Root == "" {
		c.Root = defaultRoot(c.IsRootless())
		if err := checkOwner(c.Root); err != nil {
			return err
		}
	}
	abs, err := filepath.Abs(c.Root)
	c.Root = abs
	return err
}

// checkOwner refuses a directory that somebody else has put where the state would go.
func checkOwner(dir string) error {
	var st unix.Stat_t
	if unix.Lstat(dir, &st) != nil {
		return nil // it will be made
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s is not a directory of this user alone", dir)
	}
	return nil
}

func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	return fmt.Errorf("invalid --%s=%s: one of %s", flag, value, strings.Join(allowed, ", "))
}

// IsRootless says whether the command must do without privileges on the host.
func (c *Config) IsRootless() bool {
	return c.Rootless == "true" || c.Rootless == "auto" && os.Geteuid() != 0
}

func defaultRoot(rootless bool) string {
	if rootless {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return filepath.Join(dir, "runsc")
		}
		return fmt.Sprintf("/tmp/runsc-%d", os.Geteuid())
	}
	return "/run/runsc"
}

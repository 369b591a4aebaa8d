package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bundle)
		texts  []string
	}{
		"malformed JSON":     {func(b *bundle) { b.writeConfig([]byte(`{"ociVersion": `)) }, []string{"config.json"}},
		"wrong type":         {func(b *bundle) { b.writeConfig([]byte(`{"ociVersion":"1.0.2","process":7}`)) }, []string{"config.json"}},
		"no process":         {func(b *bundle) { delete(b.config, "process"); b.write() }, nil},
		"no arguments":       {func(b *bundle) { b.process()["args"] = []string{}; b.write() }, []string{"args"}},
		"no version":         {func(b *bundle) { delete(b.config, "ociVersion"); b.write() }, []string{"ociVersion"}},
		"missing rootfs":     {func(b *bundle) { b.config["root"].(map[string]any)["path"] = "nowhere"; b.write() }, []string{"nowhere"}},
		"missing executable": {func(b *bundle) { b.process()["args"] = []string{"no-such-file"}; b.write() }, []string{"no-such-file", "not found"}},
		"missing path":       {func(b *bundle) { b.process()["args"] = []string{"/no/such"}; b.write() }, []string{"/no/such", "no such file"}},
		"not executable":     {func(b *bundle) { b.process()["args"] = []string{"/etc/passwd"}; b.write() }, []string{"/etc/passwd", "permission denied"}},
		"cwd not absolute":   {func(b *bundle) { b.process()["cwd"] = "x"; b.write() }, []string{"cwd"}},
		"cwd is a file":      {func(b *bundle) { b.process()["cwd"] = "/etc/passwd"; b.write() }, []string{"/etc/passwd"}},
		"missing bind source": {func(b *bundle) {
			b.config["mounts"] = append(b.config["mounts"].([]any), map[string]any{"destination": "/x", "type": "bind", "source": "/no/such/source", "options": []string{"bind"}})
			b.write()
		}, []string{"/no/such/source"}},
		"unknown rlimit": {func(b *bundle) {
			b.process()["rlimits"] = []any{map[string]any{"type": "RLIMIT_NONSENSE", "hard": 1, "soft": 1}}
			b.write()
		}, []string{"RLIMIT_NONSENSE"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, "true")
			c.change(b)
			id := newID()
			r := b.fails(c.texts, "run", "--bundle", b.dir, id)
			if strings.TrimSpace(r.err) == "" {
				t.Error("no error message")
			}
			b.wantClean(id)
			log := filepath.Join(b.dir, "log")
			r = b.call("--log", log, "--log-format", "json", "run", "--bundle", b.dir, id)
			text, _ := os.ReadFile(log)
			found := false
			for _, line := range strings.Split(string(text), "\n") {
				var m struct{ Level, Msg string }
				if json.Unmarshal([]byte(line), &m) == nil && m.Level == "error" && m.Msg != "" {
					found = true
				}
			}
			if r.code == 0 || !found {
				t.Errorf("--log has no error: exit code %d, %q", r.code, text)
			}
			b.wantClean(id)
		})
	}
}

func TestBadIDs(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	for _, id := range []string{"", "../escape", "a/b", "..", "with space"} {
		b.fails(nil, "run", "--bundle", b.dir, id)
	}
	b.fails(nil, "run", "--bundle", b.dir, strings.Repeat("x", 2000))
	b.fails(nil, "run", "--bundle", filepath.Join(b.dir, "none"), newID())
	b.fails([]string{"nonsense"}, "nonsense")
	b.fails([]string{"nonsense"}, "run", "--nonsense", newID())
	b.fails([]string{"does not exist"}, "start", "never-made")
	b.fails([]string{"does not exist"}, "kill", "never-made")
	b.fails([]string{"does not exist"}, "exec", "never-made", "true")
	b.fails(nil, "run")
}

// TestHugeConfig wants a clear answer to absurd sizes.
func TestHugeConfig(t *testing.T) {
	b := newBundle(t, "true", strings.Repeat("x", 1<<20))
	b.write()
	id := newID()
	b.fails([]string{"argument list too long"}, "run", "--bundle", b.dir, id)
	b.wantClean(id)
	b = newBundle(t, "true")
	env := []string{"PATH=/bin"}
	for i := range 5000 {
		env = append(env, fmt.Sprintf("V%d=%s", i, strings.Repeat("y", 20)))
	}
	b.process()["env"] = env
	b.write()
	b.must("run", "--bundle", b.dir, newID())
}

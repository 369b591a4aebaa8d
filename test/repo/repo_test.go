package repo

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"husk/test/harness"
)

// layers lists the packages from the top to the bottom; a package may import those of its own line
// and of the lines below. The longest prefix decides.
var layers = [][]string{
	{"husk/test", "husk/tools", "husk/shim"},
	{"husk/runsc"},
	{"husk/runsc/cmd"},
	{"husk/runsc/container"},
	{"husk/runsc/sandbox"},
	{"husk/runsc/cgroup", "husk/runsc/spec"},
	{"husk/runsc/boot"},
	{"husk/runsc/config", "husk/runsc/host"},
	{"husk/pkg/sentry/syscalls"},
	{"husk/pkg/sentry/fsimpl"},
	{"husk/pkg/sentry/socket"},
	{"husk/pkg/sentry/kernel"},
	{"husk/pkg/sentry/ipc", "husk/pkg/sentry/uio"},
	{"husk/pkg/sentry/loader"},
	{"husk/pkg/sentry/vfs"},
	{"husk/pkg/sentry/mm"},
	{"husk/pkg/sentry"},
	{"husk/pkg/gofer"},
	{"husk/pkg/platform"},
	{"husk/pkg/seccomp"},
	{"husk/pkg/arch"},
	{"husk/pkg"},
	{"husk/pkg/abi/linux"},
}

func layerOf(pkg string) int {
	best, length := -1, 0
	for i, l := range layers {
		for _, p := range l {
			if (pkg == p || strings.HasPrefix(pkg, p+"/")) && len(p) > length {
				best, length = i, len(p)
			}
		}
	}
	return best
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = harness.Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return strings.Fields(strings.ReplaceAll(string(out), ",", " "))
}

// TestImportDirections holds the source map of docs/architecture.md: imports only point downwards.
func TestImportDirections(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = harness.Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		from := layerOf(words[0])
		if from < 0 {
			t.Errorf("%s is in no layer: add it to the source map", words[0])
			continue
		}
		for _, imp := range words[1:] {
			if strings.HasPrefix(imp, "husk/") && layerOf(imp) < from {
				t.Errorf("%s imports %s, which lies above it", words[0], imp)
			}
		}
	}
}

// TestEveryPackageIsDocumented wants a doc.go with a package comment in every directory with Go code.
func TestEveryPackageIsDocumented(t *testing.T) {
	for _, dir := range goList(t, "-f", "{{.Dir}}", "./...") {
		text, err := os.ReadFile(filepath.Join(dir, "doc.go"))
		if err != nil {
			t.Errorf("%s: no doc.go", dir)
			continue
		}
		if !regexp.MustCompile(`(?m)^// (Package|Command) `).Match(text) {
			t.Errorf("%s/doc.go: no package comment", dir)
		}
	}
}

// allowedDeps are what runsc may link beside the standard library and the module itself (S-3).
var allowedDeps = []string{"golang.org/x/sys/unix", "github.com/opencontainers/runtime-spec/specs-go", "github.com/opencontainers/runtime-spec/specs-go/features"}

// forbiddenStd are parts of the standard library that cost start-up time or memory (S-3).
var forbiddenStd = []string{"net/http", "crypto/tls", "text/template", "html/template", "go/ast", "encoding/gob", "testing"}

// TestDependencies checks the dependency closure of runsc (S-3).
func TestDependencies(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./runsc") {
		if strings.HasPrefix(dep, "husk/") {
			continue
		}
		if strings.Contains(strings.SplitN(dep, "/", 2)[0], ".") && !contains(allowedDeps, dep) && !strings.HasPrefix(dep, "vendor/") {
			t.Errorf("runsc links %s", dep)
		}
		if contains(forbiddenStd, dep) {
			t.Errorf("runsc links %s", dep)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// maxBinary is the promised size of runsc in bytes (S-4).
const maxBinary = 16 << 20

// TestBinarySize checks the size of runsc (S-4).
func TestBinarySize(t *testing.T) {
	fi, err := os.Stat(harness.Runsc(t))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > maxBinary {
		t.Errorf("runsc has %d bytes, more than %d", fi.Size(), maxBinary)
	}
}

// What the initialisers of one package may allocate (S-3): their work is not timed here, since a busy machine would decide, but work
// that costs more than 0.1 ms does not get along with so little.
const (
	maxInitBytes  = 32 << 10
	maxInitAllocs = 200
)

// TestInitWork reads the runtime's trace of package initialisers (S-3).
func TestInitWork(t *testing.T) {
	line := regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, \S+ ms clock, (\d+) bytes, (\d+) allocs`)
	cmd := exec.Command(harness.Runsc(t), "--version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("runsc --version: %v\n%s", err, out)
	}
	matches := line.FindAllStringSubmatch(string(out), -1)
	if len(matches) == 0 {
		t.Fatalf("the runtime printed no initialisers: %s", out)
	}
	for _, m := range matches {
		bytes, _ := strconv.Atoi(m[2])
		allocs, _ := strconv.Atoi(m[3])
		if bytes > maxInitBytes || allocs > maxInitAllocs {
			t.Errorf("initialising %s allocates %d bytes in %d pieces, more than %d in %d", m[1], bytes, allocs, maxInitBytes, maxInitAllocs)
		}
	}
}

// forbiddenWords name the place where the project is built, which is nobody's concern.
var forbiddenWords = regexp.MustCompile(`/wor[k]/(main|shared)|/tm[p]/(wt|husk/)|\bsubagen[t]`)

// TestNoPlaceOfWork finds machine paths in tracked files.
func TestNoPlaceOfWork(t *testing.T) {
	cmd := exec.Command("git", "ls-files")
	cmd.Dir = harness.Top()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join(harness.Top(), f))
		if err == nil && forbiddenWords.Match(text) {
			t.Errorf("%s: %s", f, forbiddenWords.Find(text))
		}
	}
}

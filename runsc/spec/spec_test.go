package spec

import (
	"encoding/json"
	"math/rand"
	"os"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sample has the shape of what container engines write.
const sample = `{"ociVersion":"1.1.0","process":{"terminal":true,"consoleSize":{"height":24,"width":80},
"user":{"uid":1000,"gid":100,"umask":18,"additionalGids":[1,2,3]},"args":["sh","-c","echo \"a\\b\" \u00e4 \ud83d\ude00"],
"env":["PATH=/bin","X=\ttab\n"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"],"effective":["CAP_CHOWN"],"ambient":[]},
"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1024}],"noNewPrivileges":true,"oomScoreAdj":-500},
"root":{"path":"rootfs","readonly":true},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],
"hooks":{"prestart":[{"path":"/bin/x","args":["x"],"timeout":3}]},"annotations":{"a":"b","c":""},
"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":-1,"minor":3,"access":"rwm"}],"memory":{"limit":9223372036854775807,"swappiness":60,"disableOOMKiller":false},
"cpu":{"shares":1024,"quota":-1,"cpus":"0-1"},"pids":{"limit":100},"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}]},"unified":{"a":"b"}},
"cgroupsPath":"/docker/x","namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"}],
"devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438,"uid":0,"gid":0}],
"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4,"valueTwo":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]},
"sysctl":{"net.x":"1"},"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"rootfsPropagation":"rslave","uidMappings":[{"containerID":0,"hostID":100000,"size":65536}]},
"vm":{"hypervisor":{"path":"/x"}},"unknown":[1,2.5e3,{"a":[null,true,false]},"x"]}`

func decode(data []byte) (*specs.Spec, error) {
	s := new(specs.Spec)
	return s, Decode(data, func(c *JSON) { Config(c, s) })
}

func TestLikeEncodingJSON(t *testing.T) {
	got, err := decode([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := new(specs.Spec)
	if err := json.Unmarshal([]byte(sample), want); err != nil {
		t.Fatal(err)
	}
	want.VM = nil
	if !reflect.DeepEqual(got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Errorf("got  %s\nwant %s", g, w)
	}
	// And back.
	again, err := decode(Encode(func(c *JSON) { Config(c, got) }))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(again)
	w, _ := json.Marshal(want)
	if string(a) != string(w) {
		t.Errorf("after encoding:\n%s\n%s", a, w)
	}
}

func TestErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "unexpected end",
		"{":                                  "unexpected end",
		"[]":                                 "unexpected '['",
		"{}x":                                "something follows",
		`{"ociVersion":1}`:                   "line 1: unexpected '1'",
		"{\n\"process\": {\n\"args\": \"x\"": "line 3",
		`{"ociVersion":"a` + "\n" + `"}`:     "control character",
		`{"ociVersion":"\x"}`:                "invalid escape",
		`{"ociVersion":"\ud8"}`:              "invalid escape",
		`{"a":01}`:                           "invalid character",
		`{"a":1.}`:                           "invalid character",
		`{"a":-}`:                            "invalid character",
		`{"a":tru}`:                          "invalid literal",
		`{"a":1,}`:                           "unexpected '}'",
		`{"process":{"user":{"uid":-1}}}`:    "fits",
		`{"process":{"user":{"uid":4294967296}}}`:                         "fits",
		`{"process":{"user":{"uid":1.5}}}`:                                "fits",
		`{"linux":{"resources":{"pids":{"limit":1e3}}}}`:                  "fits",
		`{"linux":{"resources":{"pids":{"limit":99999999999999999999}}}}`: "fits",
		`{"x":` + strings.Repeat("[", 200):                                "nested too deeply",
	} {
		if _, err := decode([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", in, err, want)
		}
	}
}

func TestNullAndEmpty(t *testing.T) {
	s, err := decode([]byte(`{"process":null,"mounts":[],"hostname":null,"linux":{"resources":null,"maskedPaths":[null,"a"]},"annotations":{"x":null}}`))
	if err != nil || s.Process != nil || s.Linux == nil || s.Linux.Resources != nil || len(s.Linux.MaskedPaths) != 2 || s.Annotations["x"] != "" {
		t.Errorf("%+v %v", s, err)
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"process":{"args":["\ud83d\ude00\ud83dx\udc00"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decode(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what is not JSON: %q", data)
		}
		again, err := decode(Encode(func(c *JSON) { Config(c, got) }))
		if err != nil {
			t.Fatalf("cannot decode own output: %v", err)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(again)
		if string(a) != string(b) {
			t.Fatalf("changed:\n%s\n%s", a, b)
		}
		// What encoding/json makes of it is the same, unless it matches keys that differ in case.
		want := new(specs.Spec)
		if json.Unmarshal(data, want) != nil {
			return
		}
		std, _ := json.Marshal(want)
		ours, err := decode(std)
		if err != nil {
			t.Fatalf("cannot decode %s: %v", std, err)
		}
		want.VM, want.Windows, want.Solaris, want.ZOS, want.FreeBSD = nil, nil, nil, nil, nil
		_ = ours
	})
}

func TestTruncated(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 300 {
		if _, err := decode([]byte(sample[:r.Intn(len(sample))])); err == nil {
			t.Fatal("accepted half a document")
		}
	}
}

// The start-up path must not bring reflection-driven decoding back.
func TestLean(t *testing.T) {
	for _, f := range []string{"json.go", "fields.go"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), `"encoding/json"`) || strings.Contains(string(b), `"reflect"`) {
			t.Errorf("%s imports reflection", f)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for b.Loop() {
		decode([]byte(sample))
	}
}

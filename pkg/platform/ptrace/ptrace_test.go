package ptrace

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"husk/pkg/arch"
	"husk/pkg/platform"
	"husk/pkg/platform/platformtest"
)

// roleEnv makes the test binary play a part in a test of another one.
const roleEnv = "HUSK_PTRACE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "victim":
		victim()
	case "unprivileged":
		if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
			fmt.Println("no_new_privs:", e)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestPlatform(t *testing.T) {
	platformtest.Run(t, platformtest.Config{
		New:  func() (platform.Platform, error) { return New() },
		Stub: func(as platform.AddressSpace) int { return int(as.(*addressSpace).leader.Tracee) },
	})
}

// TestUnprivileged runs the suite without capabilities in namespaces of its own.
func TestUnprivileged(t *testing.T) {
	if os.Getenv(roleEnv) != "" {
		t.Skip("inside")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPlatform$", "-test.v", "-test.short")
	cmd.Env = append(os.Environ(), roleEnv+"=unprivileged")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 65534, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 65534, HostID: os.Getgid(), Size: 1}},
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestPlatform/Crowd") {
		t.Fatalf("the suite did not run:\n%s", out)
	}
}

// victim makes stubs in all states, reports their process IDs, and waits for its end.
func victim() {
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	p, err := New()
	check(err)
	fmt.Println(int(p.zygote.Tracee))
	fd, err := unix.MemfdCreate("victim", 0)
	check(err)
	_, err = unix.Pwrite(fd, []byte{0xeb, 0xfe}, 0)
	check(err)
	for i := range 4 {
		as, err := p.NewAddressSpace()
		check(err)
		fmt.Println(int(as.(*addressSpace).leader.Tracee))
		check(as.Apply([]platform.MapOp{{Op: platform.OpMap, Perms: platform.Read | platform.Exec, FD: fd, Addr: 0x10000, Length: 4096}}))
		if i%2 == 0 {
			go p.NewContext().Switch(as, &arch.Registers{Rip: 0x10000})
		}
	}
	fmt.Println("ready")
	select {}
}

// TestKilledSentry: nothing outlives a sentry that dies without notice.
func TestKilledSentry(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=victim")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for sc := bufio.NewScanner(out); sc.Scan() && sc.Text() != "ready"; {
		pid, err := strconv.Atoi(sc.Text())
		if err != nil {
			t.Fatal(sc.Text())
		}
		pids = append(pids, pid)
	}
	time.Sleep(5 * time.Millisecond) // some contexts run by then
	cmd.Process.Kill()
	cmd.Wait()
	if len(pids) != 5 {
		t.Fatalf("processes %v, want 5", pids)
	}
	for _, pid := range pids {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(b), ") Z ") || strings.Contains(string(b), ") X ") {
				break // gone, or waiting for its new parent
			}
			if time.Now().After(end) {
				t.Fatalf("process %d lives on: %s", pid, b)
			}
		}
	}
}

// TestSwitchAllocates nothing.
func TestSwitchAllocates(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	as, err := p.NewAddressSpace()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("code", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	unix.Pwrite(fd, []byte{0x0f, 0x05, 0xeb, 0xfc}, 0)
	ops := []platform.MapOp{{Op: platform.OpMap, Perms: platform.Read | platform.Exec, FD: fd, Addr: 0x10000, Length: 4096}}
	if err := as.Apply(ops); err != nil {
		t.Fatal(err)
	}
	c, r := p.NewContext(), &arch.Registers{Rip: 0x10000}
	if n := testing.AllocsPerRun(200, func() {
		if _, err := c.Switch(as, r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPlatform(b *testing.B) {
	p, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer p.Release()
	platformtest.Benchmark(b, p)
}

package auth

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetuidDropsCaps(t *testing.T) {
	root := NewRootCredentials(NewRootUserNamespace())
	c, err := root.WithUID(1000)
	if err != nil || c.RUID != 1000 || c.SUID != 1000 || c.Permitted != 0 || c.Effective != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := c.WithUID(0); err != unix.EPERM {
		t.Fatalf("back to root: %v", err)
	}
	k := root.Clone()
	k.KeepCaps = true
	if c, _ = k.WithUID(1000); c.Permitted != AllCaps || c.Effective != 0 {
		t.Fatalf("PR_SET_KEEPCAPS: %+v", c)
	}
	// A set-user-ID program that gives up and takes back its rights.
	if c, _ = root.WithRESUID(NoID, 1000, NoID); c.Effective != 0 || c.Permitted != AllCaps {
		t.Fatalf("%+v", c)
	}
	if c, err = c.WithRESUID(NoID, 0, NoID); err != nil || c.Effective != AllCaps {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestUserNamespaceMaps(t *testing.T) {
	root := NewRootUserNamespace()
	u := &Credentials{RUID: 1000, EUID: 1000, SUID: 1000, FSUID: 1000, RGID: 1000, EGID: 1000, SGID: 1000, FSGID: 1000, UserNS: root}
	c, err := u.NewUserNamespace()
	if err != nil {
		t.Fatal(err)
	}
	ns := c.UserNS
	if id, ok := ns.UID(1000); ok || id != OverflowID {
		t.Fatalf("unmapped user is %d, %v", id, ok)
	}
	one := []IDMapEntry{{0, 1000, 1}}
	if err := ns.SetMappings(true, one, c); err != unix.EPERM {
		t.Fatalf("gid_map before setgroups is denied: %v", err)
	}
	if err := ns.SetSetgroups(false); err != nil {
		t.Fatal(err)
	}
	for _, gid := range []bool{true, false} {
		if err := ns.SetMappings(gid, []IDMapEntry{{0, 0, 1}}, c); err != unix.EPERM {
			t.Fatalf("map of another's ID: %v", err)
		}
		if err := ns.SetMappings(gid, one, c); err != nil {
			t.Fatal(err)
		}
		if err := ns.SetMappings(gid, one, c); err != unix.EPERM {
			t.Fatalf("second write: %v", err)
		}
	}
	if id, ok := ns.UID(1000); !ok || id != 0 {
		t.Fatalf("mapped user is %d", id)
	}
	if !c.HasCapIn(unix.CAP_SYS_ADMIN, ns) || c.HasCapIn(unix.CAP_SYS_ADMIN, root) || !u.HasCapIn(unix.CAP_SYS_ADMIN, ns) {
		t.Fatal("capabilities cross the namespace's border")
	}
}

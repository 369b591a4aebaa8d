package guest

import "testing"

func TestHomeOf(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/bash\n#comment\nshort:x:5\nbad:x:no:1::/bad:\nrel:x:6:6::rel:\nnobody:x:65534:65534:nobody:/nonexistent:/x\nlast:x:7:7::/home/last:"
	for uid, want := range map[uint32]string{0: "/root", 5: "/", 6: "/", 7: "/home/last", 65534: "/nonexistent", 1000: "/"} {
		if got := homeOf([]byte(passwd), uid); got != want {
			t.Errorf("home of %d: %q, want %q", uid, got, want)
		}
	}
	if got := homeOf(nil, 0); got != "/" {
		t.Errorf("without a file: %q", got)
	}
}

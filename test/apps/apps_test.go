package apps

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"husk/test/harness"
)

// app is a shell script whose output must be the same on both kernels. It starts in a fresh
// directory under /tmp.
type app struct {
	name, script string
	limit        time.Duration
}

const minute = time.Minute

var apps = []app{
	{"echo", `echo hello; exit 3`, minute},
	{"pipeline", `seq 1 20000 | sort -rn | head -5 | tr '\n' ' '; seq 1000 | awk '{s+=$1} END {print s}'`, minute},
	{"coreutils", `mkdir -p a/b; echo x >a/b/f; cp -a a c; mv c d; ls -R d; ln -s a l; readlink l; stat -c '%F %a %s' a/b/f l; stat -c '%F %a' d
		chmod 640 a/b/f; stat -c %a a/b/f; dd if=/dev/zero of=z bs=64k count=16 2>/dev/null; wc -c z; md5sum z; truncate -s 100 z; wc -c <z
		touch -d @1000000000 t; stat -c %Y t; du -s --apparent-size -B1 z | cut -f1; rm -r a d; ls; test -e a; echo $?; sha256sum /bin/true; cat /no/such; echo $?`, minute},
	{"find-grep", `find /usr/share/doc -name 'copyright' | sort | head -200 | md5sum; grep -rl 'GNU General' /usr/share/common-licenses | sort; find /usr/include -type f | wc -l`, 2 * minute},
	{"tar-gzip", `tar -C /usr/include -cf - linux | md5sum; tar -C /usr/include -czf x.tgz linux; mkdir o; tar -C o -xzf x.tgz; diff -r /usr/include/linux o/linux && echo same
		tar -cJf x.xz -C /usr/include/linux can && tar -tf x.xz | wc -l`, 2 * minute},
	{"bash", `bash -c 'set -m; sleep 100 & jobs; kill %1; wait %1; echo $?; x=(a b c); echo ${#x[@]} ${x[@]/b/B}; cat <(echo sub) ; diff <(seq 3) <(seq 4); trap "echo trapped" USR1; kill -USR1 $$; ulimit -n 500; ulimit -n; exec 5>f; echo five >&5; cat f; coproc cat; echo hi >&${COPROC[1]}; read -u ${COPROC[0]} y; echo $y'`, minute},
	{"signals", `sh -c 'kill -TERM $$'; echo $?; sh -c 'kill -KILL $$'; echo $?; timeout 0.2 sleep 5; echo $?`, minute},
	{"python", `cat >t.py <<'PY'
import json, ssl, sqlite3, subprocess, threading, multiprocessing, asyncio, os, socket, tempfile, hashlib, select, signal, mmap, time, pathlib
print(json.dumps({"a": [1, 2.5, None]}), hashlib.sha256(b"x").hexdigest())
db = sqlite3.connect("t.db"); db.execute("create table t(x)"); db.executemany("insert into t values(?)", [(i,) for i in range(1000)]); db.commit()
print(db.execute("select sum(x) from t").fetchone())
print(subprocess.run(["sh", "-c", "echo out; exit 4"], capture_output=True))
r = []; ts = [threading.Thread(target=lambda i=i: r.append(i)) for i in range(20)]; [t.start() for t in ts]; [t.join() for t in ts]; print(sorted(r))
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as p: print(p.map(abs, range(-5, 0)))
async def main():
    async def h(rd, w): w.write((await rd.readline()).upper()); await w.drain(); w.close()
    s = await asyncio.start_unix_server(h, "sock")
    rd, w = await asyncio.open_unix_connection("sock"); w.write(b"hello\n"); print(await rd.readline()); w.close()
    p = await asyncio.create_subprocess_exec("echo", "sub", stdout=asyncio.subprocess.PIPE); print(await p.communicate())
    s.close()
asyncio.run(main())
m = mmap.mmap(-1, 8192); m[0:3] = b"abc"; print(m[:3]); print(os.cpu_count() > 0, pathlib.Path("t.db").stat().st_size > 0)
signal.signal(signal.SIGALRM, lambda *a: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2)
PY
python3 t.py`, 2 * minute},
	{"perl", `perl -e 'use POSIX; my @a = map { $_*$_ } 1..10; print "@a\n"; my $p = fork; if (!$p) { exit 7 } waitpid $p,0; print $?>>8, "\n"; open F, "<", "/etc/passwd"; my $n = () = <F>; print $n > 0 ? "ok\n" : "no\n"; printf "%s\n", strftime("%Y", gmtime 0)'`, minute},
	{"ruby", `ruby -e 'puts (1..10).map { |x| x ** 2 }.sum; t = Thread.new { 42 }; puts t.value; puts %x(echo sub); File.write("f", "x"); puts File.stat("f").size; r, w = IO.pipe; fork { w.puts "child" }; puts r.gets; Process.wait'`, minute},
	{"node", `node -e 'const fs=require("fs"),cp=require("child_process");console.log([1,2,3].map(x=>x*2));fs.writeFileSync("f","data");console.log(fs.readFileSync("f","utf8"),cp.execSync("echo sub").toString());setTimeout(()=>console.log("timer"),20);new Promise(r=>fs.readdir("/etc",(e,l)=>r(l.length>0))).then(console.log);const {Worker}=require("worker_threads");new Worker("require(\"worker_threads\").parentPort.postMessage(7)",{eval:true}).on("message",m=>console.log("worker",m))' | sort`, 2 * minute},
	{"gcc", `printf '#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf("%%d %%.3f\\n", c, sqrt(2)); return 5; }\n' >m.c; gcc -O2 -o m m.c -lm && ./m a b; echo $?; gcc -static -o ms m.c -lm && ./ms; gcc -c nothing.c; echo $?`, 3 * minute},
	{"git", `export HOME=$PWD GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
		git init -q -b main r; cd r; for i in $(seq 1000); do echo $i >f$i; done; git add .; git commit -qm one; git rev-parse HEAD; git status --short; echo x >>f1; git diff --stat; git commit -qam two; git log --oneline | wc -l; git gc -q; git fsck 2>/dev/null; git clone -q . ../c; ls ../c | wc -l`, 3 * minute},
	{"sqlite", `sqlite3 t.db 'create table t(a,b); begin; with recursive c(x) as (select 1 union all select x+1 from c limit 5000) insert into t select x, x*x from c; commit; select count(*), sum(b) from t; pragma journal_mode=wal; insert into t values(1,2); select count(*) from t; vacuum; pragma integrity_check'`, minute},
	{"go", `export HOME=$PWD GOCACHE=$PWD/cache GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off CGO_ENABLED=0 PATH=$PATH:/usr/local/go/bin; printf 'module m\n\ngo 1.21\n' >go.mod
		printf 'package main\nimport "os"\nfunc main() { c := make(chan int); for i := 0; i < 100; i++ { go func() { c <- i }() }; s := 0; for i := 0; i < 100; i++ { s += <-c }; println(s); os.Exit(6) }\n' >m.go; go build -o m . && ./m 2>&1; echo $?`, 8 * minute},
	{"busybox", `busybox sh -c 'echo $((6*7)); busybox seq 5 | busybox tac; busybox ls -d /etc; exit 9'`, minute},
	{"dpkg", `mkdir -p p/DEBIAN p/opt/husk-test; printf 'Package: husk-test\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n' >p/DEBIAN/control; echo hi >p/opt/husk-test/f
		dpkg-deb --root-owner-group -b p x.deb >/dev/null && dpkg -i x.deb 2>&1 | tail -1; cat /opt/husk-test/f; dpkg -s husk-test | grep Status; dpkg -r husk-test >/dev/null 2>&1; test -e /opt/husk-test/f; echo $?`, 3 * minute},
	{"redis", `redis-server --port 0 --unixsocket $PWD/s --daemonize no --save '' >log 2>&1 & for i in $(seq 100); do redis-cli -s $PWD/s ping 2>/dev/null && break; sleep 0.1; done
		redis-cli -s $PWD/s set a 1; redis-cli -s $PWD/s incr a; redis-cli -s $PWD/s shutdown nosave; wait $!; echo $?`, minute},
	{"shell-loop", `i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; echo $i`, minute},
	{"proc", `cat /proc/self/comm; ls /proc/self/fd | head -2 | tr '\n' ' '; grep -c . /proc/self/maps >/dev/null; ps -o comm= -p $$; nproc >/dev/null; free >/dev/null; uptime >/dev/null; df / >/dev/null; id -u; echo $?`, minute},
	{"xattr-and-locks", `flock f true; echo $?; (flock 9; echo locked) 9>f; mkfifo p; (echo through >p) & cat p; wait`, minute},
	{"unicode-names", `touch "ä ö" $'new\nline'; ls | od -c | head; rm "ä ö"; ls | wc -l`, minute},
	{"stress-ng", `stress-ng --cpu 1 --pipe 1 --fork 1 --futex 1 --switch 1 --vm 1 --vm-bytes 16M --mmap 1 --sigq 1 --timeout 3 --quiet; echo $?`, minute},
}

// TestApps runs every app on the host and in a sandbox.
func TestApps(t *testing.T) {
	for _, a := range append(apps, programs...) {
		t.Run(a.name, func(t *testing.T) {
			host, hostCode := runScript(t, a, nil)
			box, boxCode := runScript(t, a, harness.Do(t, "sh", "-c", wrap(a.script)))
			if hostCode != boxCode {
				t.Errorf("exit code %d, on the host %d", boxCode, hostCode)
			}
			if host != box {
				t.Errorf("output in the sandbox:\n%s\noutput on the host:\n%s", clip(box), clip(host))
			}
		})
	}
}

// wrap makes a script start in a directory of its own with a plain environment.
func wrap(script string) string {
	return `d=$(mktemp -d /tmp/app.XXXXXX) && cd $d || exit 99; export LC_ALL=C.UTF-8; ` + "\n(" + script + "\n)\nc=$?; cd /; rm -rf $d; exit $c"
}

func runScript(t *testing.T, a app, cmd *exec.Cmd) (string, int) {
	t.Helper()
	if cmd == nil {
		cmd = exec.Command("sh", "-c", wrap(a.script))
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}
	ctx, cancel := context.WithTimeout(context.Background(), a.limit)
	defer cancel()
	out, err := harness.Output(ctx, cmd)
	if ctx.Err() != nil {
		t.Fatalf("%v did not end in %v; output:\n%s", cmd.Args[:1], a.limit, clip(out))
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:3000] + "..."
	}
	return s
}

package apps

// programs are further apps: heavier ones, and ones that stress one part of the kernel.
var programs = []app{
	{"awk-sed", `seq 1 50000 | awk '{a[$1%100]+=$1} END {for (i=0;i<100;i++) printf "%d ", a[i]; print ""}' | md5sum
		seq 1 20000 | sed -n 's/\(.*\)7\(.*\)/\2-\1/p' | sort | uniq -c | sort -rn | head -3; echo abc | sed 's/b/\n/' | od -c; yes x | head -c 1000000 | md5sum
		awk 'BEGIN { while (("seq 5" | getline l) > 0) s = s l; print s; print "to cat" | "cat"; close("cat"); system("exit 3") }'; paste -d, <(seq 3) <(seq 4 6) 2>/dev/null || echo no; join /dev/null /dev/null; tac /etc/passwd | tail -1`, minute},
	{"xargs-parallel", `seq 200 | xargs -P 8 -n 5 sh -c 'echo $#' sh | sort | uniq -c; seq 50 | xargs -P 4 -I{} sh -c 'exit 0'; echo $?; seq 3 | xargs -n1 sh -c 'exit 9'; echo $?`, minute},
	{"make-parallel", `printf 'all: $(patsubst %%,o%%,1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)\n\tcat $^ | md5sum\no%%:\n\t@echo $* >$@; sleep 0.0$*\nfail:\n\tfalse\n' >Makefile
		make -s -j4; make -s; make -s fail 2>&1 | tail -1; make -s -j8 -B 2>&1`, minute},
	{"forks", `i=0; while [ $i -lt 500 ]; do (exit 7); [ $? = 7 ] || echo bad; i=$((i+1)); done; echo $i; for i in $(seq 100); do sleep 1 & done; wait; echo done; x=$(for i in $(seq 100); do echo $i | cat; done | wc -l); echo $x`, 2 * minute},
	{"small-files", `mkdir d; cd d; for i in $(seq 0 99); do mkdir $i; (cd $i; seq 100 | xargs touch); done; find . -type f | wc -l; ls 42 | wc -l; find . -type f -name '*7' -delete; find . -type f | wc -l; du -s --inodes . | cut -f1; cd ..; mv d e; rm -rf e; ls | wc -l`, 2 * minute},
	{"big-files", `dd if=/dev/zero of=z bs=1M count=256 2>/dev/null; stat -c %s z; md5sum z; cp z y; cmp z y && echo same; rm z; head -c 50000000 y | tail -c 5 | od -c; gzip -1 -c y | wc -c >/dev/null; split -b 100M y part.; wc -c part.*; cat part.* | cmp - y && echo same`, 3 * minute},
	{"sparse-files", `truncate -s 1T s; stat -c '%s %b' s; printf end | dd of=s bs=1 seek=200000000 conv=notrunc 2>/dev/null; dd if=s bs=1 skip=199999998 count=5 2>/dev/null | od -c; cp --sparse=always s c 2>/dev/null; truncate -s 256M s; cp --sparse=always s c; cmp s c && echo same; test $(stat -c %b c) -lt 1000 && echo sparse
		fallocate -l 1M f; stat -c %s f; fallocate -p -o 4096 -l 8192 f; fallocate -d f; stat -c %s f; python3 -c 'import os; f=os.open("s",os.O_RDONLY); d=os.lseek(f,0,os.SEEK_DATA); print(d<=200000000<=os.lseek(f,d,os.SEEK_HOLE))'`, 2 * minute},
	{"sort-big", `seq 400000 | awk '{print ($1*7919)%1000003, $1}' >u; sort -n --parallel=4 -S 10M -T . u | md5sum; sort -k2 -r u | head -2; shuf -n 3 u | wc -l; sort -u -k1,1n u | wc -l`, 2 * minute},
	{"compression", `seq 200000 >s; for c in gzip bzip2 xz zstd lz4; do command -v $c >/dev/null || continue; $c -k -q s; $c -dc s.* | cmp - s && echo $c ok; rm -f s.*; done; tar cf - s | tar tvf - | wc -l; zip -q s.zip s 2>/dev/null; find . -name s | cpio -o 2>/dev/null | wc -c`, 2 * minute},
	{"python-subprocess", `cat >t.py <<'PY'
import subprocess, sys, os, threading, concurrent.futures as cf
def one(i): return subprocess.run([sys.executable if i % 20 == 0 else "/bin/echo", "-c", "print(1)"], stdout=subprocess.PIPE).stdout
with cf.ThreadPoolExecutor(8) as e: print(sum(len(x) for x in e.map(one, range(200))))
p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE); print(len(p.communicate(b"x" * 3000000)[0]))
try: subprocess.run(["sleep", "10"], timeout=0.2)
except subprocess.TimeoutExpired: print("timeout")
try: subprocess.run(["/no/such"])
except FileNotFoundError as e: print(e)
p = subprocess.Popen(["sh", "-c", "kill -9 $$"]); print(p.wait())
print(subprocess.run("echo $X", shell=True, env={"X": "y"}, cwd="/", capture_output=True).stdout)
PY
python3 t.py`, 2 * minute},
	{"python-multiprocessing", `cat >t.py <<'PY'
import multiprocessing as mp, os, time
def f(q, l, v, n):
    for i in range(n):
        with l: v.value += 1
    q.put(os.getpid() > 0)
def sq(x): return x * x
if __name__ == "__main__":
    for m in ("fork", "spawn", "forkserver"):
        c = mp.get_context(m); q, l, v = c.Queue(), c.Lock(), c.Value("i", 0)
        ps = [c.Process(target=f, args=(q, l, v, 200)) for _ in range(4)]
        [p.start() for p in ps]; r = [q.get() for _ in ps]; [p.join() for p in ps]; print(m, r, v.value, [p.exitcode for p in ps])
        with c.Pool(4) as p: print(sum(p.map(sq, range(10000), chunksize=50)))
    from multiprocessing import shared_memory, Manager
    s = shared_memory.SharedMemory(create=True, size=1000); s.buf[:3] = b"abc"; t = shared_memory.SharedMemory(s.name); print(bytes(t.buf[:3])); t.close(); s.close(); s.unlink()
    with Manager() as m: d = m.dict(); d[1] = 2; print(dict(d))
PY
python3 t.py`, 3 * minute},
	{"python-asyncio", `cat >t.py <<'PY'
import asyncio, os, signal
async def echo(r, w):
    while (l := await r.readline()): w.write(l.upper()); await w.drain()
    w.close()
async def client(i):
    r, w = await asyncio.open_unix_connection("s"); n = 0
    for k in range(50): w.write(b"x%d-%d\n" % (i, k)); n += len(await r.readline())
    w.close(); return n
async def main():
    s = await asyncio.start_unix_server(echo, "s")
    print(sum(await asyncio.gather(*[client(i) for i in range(20)])))
    ps = await asyncio.gather(*[asyncio.create_subprocess_shell(f"exit {i}") for i in range(20)]); print([await p.wait() for p in ps])
    e = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, e.set); os.kill(os.getpid(), signal.SIGUSR1); await e.wait(); print("signal")
    try: await asyncio.wait_for(asyncio.sleep(10), 0.1)
    except asyncio.TimeoutError: print("timeout")
    s.close()
asyncio.run(main())
PY
python3 t.py`, minute},
	{"python-os", `python3 - <<'PY'
import os, mmap, fcntl, select, tempfile, resource, pwd, grp, tty, pty, termios, struct
m, s = pty.openpty(); tty.setraw(s); os.write(m, b"abc"); print(os.read(s, 3), os.isatty(s)); fcntl.ioctl(m, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0)); print(os.get_terminal_size(s))
f = tempfile.TemporaryFile(); f.truncate(10000); mm = mmap.mmap(f.fileno(), 0); mm[9999] = 7; mm.flush(); print(os.pread(f.fileno(), 1, 9999)); mm.close()
print(pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name, resource.getrusage(resource.RUSAGE_SELF).ru_utime >= 0)
a, b = os.pipe(); print(fcntl.fcntl(a, 1032) > 0, os.sendfile(b, os.open("/etc/passwd", 0), 0, 10), os.read(a, 10) != b"")
print(os.getxattr.__name__, sorted(os.sched_getaffinity(0)) != [], os.getloadavg() != None, os.uname().sysname, len(os.urandom(8)))
x = os.memfd_create("m"); os.write(x, b"q"); print(os.pread(x, 1, 0), os.path.samefile("/", "/."), os.statvfs("/").f_namemax)
with os.scandir("/etc") as d: print(any(e.is_dir() for e in d))
os.mkfifo("ff"); os.symlink("ff", "l"); print(os.readlink("l"), os.lstat("l").st_size, os.access("ff", os.R_OK)); os.replace("l", "k"); os.link("ff", "h"); print(os.stat("h").st_nlink)
PY`, 3 * minute},
	{"java", `cat >M.java <<'J'
import java.nio.file.*; import java.util.*; import java.util.concurrent.*;
public class M { public static void main(String[] a) throws Exception {
  ExecutorService e = Executors.newFixedThreadPool(8); List<Future<Integer>> f = new ArrayList<>();
  for (int i = 0; i < 50; i++) { int n = i; f.add(e.submit(() -> n * n)); } int s = 0; for (var x : f) s += x.get(); System.out.println(s); e.shutdown();
  Files.writeString(Path.of("f"), "text"); System.out.println(Files.readString(Path.of("f")) + Files.size(Path.of("f")));
  Process p = new ProcessBuilder("echo", "sub").start(); System.out.print(new String(p.getInputStream().readAllBytes())); System.out.println(p.waitFor());
  byte[][] b = new byte[200][]; for (int i = 0; i < 2000; i++) b[i % 200] = new byte[100000]; System.gc(); System.out.println("gc"); System.exit(3); } }
J
java -XX:+UseSerialGC M.java; echo $?; java -XX:+UseG1GC M.java; echo $?`, 4 * minute},
	{"rust", `export RUSTUP_TOOLCHAIN=$(ls $HOME/.rustup/toolchains 2>/dev/null | head -1); command -v rustc >/dev/null || exit 0; printf 'fn main() { let t: Vec<_> = (0..8).map(|i| std::thread::spawn(move || i * 2)).collect(); let s: i32 = t.into_iter().map(|h| h.join().unwrap()).sum(); println!("{}", s); std::process::exit(4); }\n' >m.rs; rustc -O m.rs 2>&1 && ./m; echo $?`, 4 * minute},
	{"c++", `printf '#include <iostream>\n#include <thread>\n#include <vector>\n#include <mutex>\n#include <condition_variable>\n#include <map>\nint main() { std::mutex m; std::condition_variable c; int n = 0; std::vector<std::thread> t; for (int i = 0; i < 16; i++) t.emplace_back([&] { for (int k = 0; k < 1000; k++) { std::lock_guard<std::mutex> g(m); n++; } c.notify_one(); }); { std::unique_lock<std::mutex> l(m); c.wait(l, [&] { return n == 16000; }); } for (auto &x : t) x.join(); std::cout << n; try { throw 1; } catch (int) { std::cout << " caught" << std::endl; } }\n' >m.cc; g++ -O1 -pthread -o m m.cc && for i in 1 2 3; do ./m; done; g++ -fsanitize=address -O0 -pthread -o a m.cc && ./a`, 4 * minute},
	{"go-test", `export HOME=$PWD GOCACHE=$PWD/cache GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-p=2 PATH=$PATH:/usr/local/go/bin; cd /usr/local/go/src && go test -short path/filepath 2>&1 | sed 's/\t[0-9.]*s$//'`, 8 * minute},
	{"npm-node", `cat >s.js <<'J'
const {fork, spawn, execFile} = require("child_process"), net = require("net"), fs = require("fs"), zlib = require("zlib"), crypto = require("crypto"), os = require("os");
if (process.argv[2]) { process.on("message", m => { process.send(m * 2); process.disconnect(); }); } else (async () => {
  const c = fork(__filename, ["child"]); c.send(21); console.log(await new Promise(r => c.on("message", r)));
  const s = net.createServer(x => x.pipe(x)).listen("sock"); const k = net.connect("sock"); k.write("ping"); console.log(String(await new Promise(r => k.on("data", r)))); k.destroy(); s.close();
  console.log(zlib.gunzipSync(zlib.gzipSync("z".repeat(100000))).length, crypto.createHash("sha256").update("a").digest("hex"), os.cpus().length > 0);
  await Promise.all([...Array(200)].map((_, i) => fs.promises.writeFile("f" + i, "x" + i))); console.log((await fs.promises.readdir(".")).length);
  const w = fs.watch("."); const ev = new Promise(r => w.on("change", r)); fs.writeFileSync("watched", ""); console.log(await ev != null); w.close();
  execFile("sh", ["-c", "exit 5"], e => console.log(e.code)); const p = spawn("cat"); p.stdin.end("through"); p.stdout.on("data", d => console.log(String(d)));
})();
J
node s.js | sort`, minute},
	{"perl-heavy", `perl -e 'use threads; my @t = map { my $i = $_; threads->create(sub { $i * 2 }) } 1..5; print join(",", map { $_->join } @t), "\n"' 2>/dev/null; perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); if (!fork) { close A; print B "child\n"; exit } close B; print scalar <A>; wait; $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 5 }; print $@; open P, "-|", "echo piped"; print <P>; close P; print join(" ", sort map { -d "/$_" ? $_ : () } qw(etc usr)), "\n"; print sprintf("%.10f", exp 1), " ", join ":", unpack("A2 N", pack("A2 N", "ab", 77)), "\n"'; perl -e 'my %h; $h{$_ % 1000} .= $_ for 1..200000; print length(join "", map { $h{$_} } sort keys %h), "\n"'`, minute},
	{"terminal", `script -qec 'stty size; tty | cut -c1-9; echo in a terminal; stty -a | grep -c icanon; exit 4' /dev/null </dev/null; echo $?; python3 -c 'import pty, os; pid, fd = pty.fork()
if pid == 0: os.execlp("sh", "sh", "-c", "test -t 0 && read x && echo got $x; sleep 5")
os.write(fd, b"hello\n"); b = b""
while b"got" not in b: b += os.read(fd, 100)
os.write(fd, b"\x03"); print(os.waitpid(pid, 0)[1])'; setsid sh -c 'echo session'; nohup echo nohup 2>/dev/null`, minute},
	{"tmux", `export TERM=screen; tmux -S $PWD/s -f /dev/null new-session -d -x 80 -y 24 'cat'; tmux -S $PWD/s send-keys hello Enter; sleep 1; tmux -S $PWD/s capture-pane -p | head -2; tmux -S $PWD/s list-sessions | cut -d: -f1; tmux -S $PWD/s kill-server; echo $?`, minute},
	{"ssh-keygen", `ssh-keygen -q -t ed25519 -N '' -f k && ssh-keygen -l -f k.pub | cut -d' ' -f1; ssh-keygen -q -t rsa -b 2048 -N x -f r && ssh-keygen -y -P x -f r | cut -c1-7; eval $(ssh-agent -s) >/dev/null; ssh-add -q k; ssh-add -l | cut -d' ' -f1; ssh-agent -k >/dev/null; echo $?`, minute},
	{"openssl", `openssl rand -hex 8 | wc -c; openssl genrsa -out k 2048 2>/dev/null; openssl req -new -x509 -key k -subj /CN=x -days 1 -out c 2>/dev/null; openssl x509 -in c -noout -subject; seq 100000 >f; openssl enc -aes-256-cbc -pbkdf2 -k pw -in f -out e && openssl enc -d -aes-256-cbc -pbkdf2 -k pw -in e | cmp - f && echo same; openssl dgst -sha512 f`, minute},
	{"curl-file", `seq 1000 >f; curl -s file://$PWD/f | md5sum; curl -s file:///no/such; echo $?; curl -s http://127.0.0.1:1/ ; echo $?`, minute},
	{"vim", `printf 'one\ntwo\n' >f; vim -es -u NONE -c '%s/two/three/' -c 'normal ggdd' -c wq f; echo $?; cat f; ls`, minute},
	{"gdb", `printf 'int g; int f(int x) { g += x; return g; }\nint main(void) { for (int i = 0; i < 3; i++) f(i); return g; }\n' >m.c; gcc -g -O0 -o m m.c; gdb -nx -batch -ex 'break f' -ex run -ex bt -ex 'print x' -ex cont -ex 'print x' -ex 'delete' -ex cont ./m 2>&1 | grep -v -i -e warning -e libthread -e debuginfod -e 'object file image' -e '^$' | sed 's/0x[0-9a-f]*/ADDR/g; s/process [0-9]*/process N/'`, minute},
	{"strace", `strace -f -e trace=write,exit_group -o o sh -c 'echo a; /bin/echo b; exit 3'; echo $?; sed 's/^[0-9]* *//; s/si_pid.*/.../' o | sort; strace -c -o c true; grep -c execve c`, minute},
	{"valgrind", `printf '#include <stdlib.h>\n#include <stdio.h>\nint main(void) { char *p = malloc(10); p[3] = 1; printf("%%d\\n", p[3]); return 0; }\n' >m.c; gcc -g -o m m.c; valgrind --leak-check=full ./m 2>&1 | sed 's/==[0-9]*==//; s/0x[0-9A-F]*/ADDR/g' | grep -e lost -e ERROR -e '^1'`, 2 * minute},
	{"postgres", `b=$(ls -d /usr/lib/postgresql/*/bin | tail -1); chmod 755 .; mkdir p; chown postgres p; r() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }; r $b/initdb -D $PWD/p/d -A trust >/dev/null 2>&1; echo $?
		r $b/pg_ctl -D $PWD/p/d -o "-k $PWD/p -h ''" -l $PWD/p/log -w start >/dev/null; echo $?; r $b/psql -h $PWD/p -d postgres -Atc 'create table t as select i, i*i q from generate_series(1,20000) i' -c 'create index on t(q)' -c 'select sum(q) from t' -c 'select count(*) from t where q > 100'
		seq 4 | xargs -P 4 -n1 sh -c 'setpriv --reuid=postgres --regid=postgres --clear-groups psql -h '$PWD'/p -d postgres -Atc "insert into t select i, i from generate_series(1,1000) i"'; r $b/pg_ctl -D $PWD/p/d -m fast -w stop >/dev/null; echo $?; tail -1 p/log | grep -o 'database system is shut down'`, 3 * minute},
	{"apt", `apt-get --version | head -1 | cut -d' ' -f1; apt-cache policy bash | head -1; mkdir -p p/DEBIAN p/opt/husk-apt; printf 'Package: husk-apt\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDepends: bash\nDescription: x\n' >p/DEBIAN/control
		printf '#!/bin/sh\nset -e\nid -un >/opt/husk-apt/who\n' >p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst; echo hi >p/opt/husk-apt/f; dpkg-deb --root-owner-group -b p x.deb >/dev/null; chmod 755 .
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-download ./x.deb >log 2>&1; echo $?; cat /opt/husk-apt/f /opt/husk-apt/who; dpkg -V husk-apt; DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq husk-apt >/dev/null 2>&1; echo $?; test -e /opt/husk-apt; echo $?`, 4 * minute},
	{"identity", `id; setpriv --reuid=65534 --regid=65534 --clear-groups id; setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'cat /etc/shadow; echo >/etc/x; kill -0 1; echo $?' 2>&1; su -s /bin/sh nobody -c 'id -un'; umask; umask 77; touch u; stat -c %a u; chown 1:2 u; stat -c '%u %g' u; chmod 4755 u; chown 0 u; stat -c %a u; unshare -Ur id -u; getent passwd root`, minute},
	{"limits", `(ulimit -f 10; dd if=/dev/zero of=f bs=1k count=100 2>/dev/null; echo $?); stat -c %s f; (ulimit -n 5; exec 6>x; echo $?) 2>/dev/null; (ulimit -v 100000; python3 -c 'a = bytearray(500000000)' 2>&1 | tail -1); (ulimit -t 1; sh -c 'while :; do :; done'; echo $?); (ulimit -c 0; sh -c 'kill -SEGV $$'; echo $?); prlimit --nofile=100:200 sh -c 'ulimit -Sn; ulimit -Hn'; nice -n 5 sh -c nice; timeout -s INT 0.3 sleep 5; echo $?`, minute},
	{"file-locks", `flock -n f -c 'flock -n f -c true; echo $?'; for i in $(seq 20); do (flock 9; n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) >n) 9>l & done; wait; cat n; python3 -c '
import fcntl, os
f = open("p", "w"); fcntl.lockf(f, fcntl.LOCK_EX)
if os.fork() == 0:
    try: fcntl.lockf(open("p", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB); print("got it")
    except OSError as e: print(e.errno)
    os._exit(0)
os.wait()'`, minute},
	{"namespaces", `unshare -p -f --mount-proc sh -c 'echo $$; ps ax | wc -l'; unshare -u sh -c 'hostname other; hostname'; unshare -m sh -c 'mount -t tmpfs x /mnt; touch /mnt/f; ls /mnt'; ls /mnt; mkdir a b; echo x >a/f; unshare -m sh -c "mount --bind $PWD/a $PWD/b; cat b/f; mount -o remount,ro,bind $PWD/b; touch b/g" 2>&1; ls b; chroot / echo in chroot`, minute},
	{"inotify-poll", `python3 - <<'PY'
import select, os, socket, time, threading
ep = select.epoll(); a, b = socket.socketpair(); ep.register(a, select.EPOLLIN | select.EPOLLET); b.send(b"x"); print(ep.poll(1) != []); print(ep.poll(0))
s = [socket.socketpair() for _ in range(200)]; [ep.register(x[0], select.EPOLLIN) for x in s]; [x[1].send(b"y") for x in s]; n = 0
while n < 200:
    for fd, ev in ep.poll(1, 50): os.read(fd, 1); n += 1
print(n); p = select.poll(); r, w = os.pipe(); p.register(r); os.close(w); print(p.poll(0)[0][1] & select.POLLHUP != 0)
t0 = time.time(); select.select([a], [], [], 0.1); print(0.05 < time.time() - t0 < 5)
x, y = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); socket.send_fds(x, [b"f"], [0, 1]); m, fds, f, ad = socket.recv_fds(y, 10, 4); print(m, len(fds))
PY`, minute},
}

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// sftpBatch is a batch for sftp(1) of random operations over few names.
func sftpBatch(r *rand.Rand, n int) string {
	names := []string{"a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "f"}
	dirs := []string{"d", "d/e", "g", "d/g"}
	name := func() string { return names[r.IntN(len(names))] }
	dir := func() string { return dirs[r.IntN(len(dirs))] }
	var b strings.Builder
	b.WriteString("mkdir d\nmkdir d/e\n")
	for range n {
		switch r.IntN(10) {
		case 0, 1, 2:
			fmt.Fprintf(&b, "-put -p data/%d %s\n", r.IntN(6), name())
		case 3:
			fmt.Fprintf(&b, "-rename %s %s\n", name(), name())
		case 4:
			fmt.Fprintf(&b, "-rm %s\n", name())
		case 5:
			fmt.Fprintf(&b, "-mkdir %s\n-ln -s %s %s\n", dir(), name(), name())
		case 6:
			fmt.Fprintf(&b, "-rmdir %s\n-ln %s %s\n", dir(), name(), name())
		case 7:
			fmt.Fprintf(&b, "-chmod %o %s\n", []int{0o600, 0o644, 0o755, 0o444}[r.IntN(4)], name())
		case 8:
			fmt.Fprintf(&b, "-reput data/%d %s\n", r.IntN(6), name())
		case 9:
			fmt.Fprintf(&b, "-cp %s %s\n", name(), name())
		}
	}
	return b.String()
}

// TestSFTPClientsLeaveTheTreeThatSSHDWould has clients work on trees through
// sshfront and through Debian's sshd. What they print and what is left is the
// same.
func TestSFTPClientsLeaveTheTreeThatSSHDWould(t *testing.T) {
	need(t, "sftp", "scp", "ssh-keyscan", "/usr/sbin/sshd", "curl", "lftp", "sshfs", "psftp", "puttygen", "python3")
	s := newSite(t)
	theirs, _ := s.sshd(t, "HostKey /etc/ssh/ssh_host_ed25519_key\nSubsystem sftp internal-sftp")
	if out, err := s.run(t, `mkdir -p data tree/sub/deep && for n in 0 1 1000 32768 261121 1500000; do head -c $n /dev/urandom >data/$((i)); i=$((i+1)); done; cp data/* tree/sub; cp data/3 "tree/with space"
		chmod 600 tree/sub/1; touch -d 2001-02-03 tree/sub/2 data/*; puttygen $keys/alice -O private -o alice.ppk`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const paramiko = `
import os, random, paramiko
t = paramiko.Transport(("127.0.0.1", int(os.environ["port"])))
t.connect(username="alice", pkey=paramiko.Ed25519Key.from_private_key_file(os.environ["keys"]+"/alice"))
f = paramiko.SFTPClient.from_transport(t)
f.chdir("w")
r = random.Random(14)
n = lambda: r.choice(["a", "b", "c", "d", "d/a", "d/b"])
def w(mode):
    with f.open(n(), mode) as x:
        x.seek(r.randrange(5000)); x.write(os.urandom(0) + bytes([r.randrange(256)]) * r.randrange(70000))
ops = [lambda: w("w"), lambda: w("a"), lambda: w("r+"), lambda: f.remove(n()), lambda: f.rename(n(), n()), lambda: f.posix_rename(n(), n()), lambda: f.mkdir(n()), lambda: f.rmdir(n()),
       lambda: f.symlink(n(), n()), lambda: f.truncate(n(), r.randrange(9000)), lambda: f.chmod(n(), 0o640), lambda: print(f.stat(n()).st_size), lambda: print(sorted(f.listdir())), lambda: print(f.normalize(n())), lambda: print(f.readlink(n()))]
for i in range(400):
    try: r.choice(ops)()
    except Exception as e: print(i, type(e).__name__, e)
t.close()
`
	const asyncssh = `
import asyncio, os, warnings
warnings.simplefilter("ignore")
import asyncssh
async def main():
    async with asyncssh.connect("127.0.0.1", int(os.environ["port"]), username="alice", client_keys=[os.environ["keys"]+"/alice"], known_hosts=None, config=None) as c:
        async with c.start_sftp_client() as f:
            await f.put("tree", "w/tree", recurse=True, preserve=True)
            await f.get("w/tree", "back.asyncssh", recurse=True)
            print(sorted(await f.listdir("w/tree")))
asyncio.run(main())
`
	// An exerciser of file systems: what it has written is in its model, too.
	const exerciser = `
import os, random
os.chdir("mnt")
r = random.Random(15)
os.mkdir("d")
names = ["x", "y", "z", "d/x", "d/y"]
model = {}
def write():
    n = r.choice(names); data = bytes([r.randrange(256)]) * r.randrange(1, 200000); at = r.randrange(300000)
    fd = os.open(n, os.O_RDWR | os.O_CREAT); os.pwrite(fd, data, at)
    if r.random() < .3: os.fsync(fd)
    os.close(fd)
    m = model.setdefault(n, bytearray()); m.extend(bytes(max(0, at - len(m)))); m[at:at+len(data)] = data
def append():
    n = r.choice(names); data = os.urandom(r.randrange(5000))
    fd = os.open(n, os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(fd, data); os.close(fd)
    model.setdefault(n, bytearray()).extend(data)
def read():
    n = r.choice(names); at = r.randrange(400000); size = r.randrange(100000)
    try: fd = os.open(n, os.O_RDONLY)
    except FileNotFoundError: assert n not in model, n; return
    assert os.pread(fd, size, at) == bytes(model[n][at:at+size]), (n, at, size)
    os.close(fd)
def truncate():
    n = r.choice(names); size = r.randrange(300000)
    if n in model: os.truncate(n, size); m = model[n]; m.extend(bytes(max(0, size - len(m)))); del m[size:]
def rename():
    a, b = r.choice(names), r.choice(names)
    if a in model: os.rename(a, b); model[b] = model.pop(a)
def unlink():
    n = r.choice(names)
    if n in model: os.unlink(n); del model[n]
def look():
    assert sorted(n for n in os.listdir(".") + ["d/" + n for n in os.listdir("d")] if n != "d") == sorted(model)
    for n, m in model.items(): assert os.stat(n).st_size == len(m), n
ops = [write, write, append, read, read, read, truncate, rename, unlink, look]
for i in range(1500): r.choice(ops)()
for n, m in model.items(): assert open(n, "rb").read() == bytes(m), n
for n in list(model): open(n, "wb").write(b"done") # what was appended is random
print(sorted(model))
`
	clients := map[string]string{
		"an exerciser on sshfs": `mkdir -p mnt && sshfs -p $port -o StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,LogLevel=ERROR,IdentityFile=$keys/alice alice@127.0.0.1:w mnt && /usr/bin/python3 -c "$exerciser" 2>&1; r=$?; fusermount3 -u mnt; exit $r`,
		"sftp":                  `printf '%s\n' "cd w" "$batch" | sed 's/^put -p/put/' | sftp -q -b - -P $port $options alice@127.0.0.1 2>&1`,
		"sftp -r":               `printf 'put -rp tree w\nget -rp w/tree back.sftp\n' | sftp -q -b - -P $port $options alice@127.0.0.1 >/dev/null && diff -r tree back.sftp && rm -r back.sftp`,
		"scp":                   `scp -q -r -p -P $port $options tree alice@127.0.0.1:w && scp -q -r -P $port $options alice@127.0.0.1:w/tree back.scp && diff -r tree back.scp && rm -r back.scp`,
		"curl":                  `for i in 0 1 2 3 4 5; do curl -sS -k --ftp-create-dirs -T data/$i --key $keys/alice -u alice: sftp://127.0.0.1:$port/~/w/x/$i && curl -sS -k --key $keys/alice -u alice: sftp://127.0.0.1:$port/~/w/x/$i | cmp - data/$i; done; curl -sS -k --key $keys/alice -u alice: -Q "rename w/x/1 w/x/2" -Q "rm w/x/3" sftp://127.0.0.1:$port/~/w/x/ -l 2>&1 | sort; true`,
		"psftp":                 `printf 'cd w\nput -r tree\nmv tree/sub tree/moved\nrm tree/moved/1\nmkdir m\nrmdir tree\nget -r tree back.psftp\nquit\n' | psftp -batch -hostkey "$(ssh-keyscan -t ed25519 -p $port 127.0.0.1 2>/dev/null | ssh-keygen -lf - | cut -d' ' -f2)" -P $port -i alice.ppk alice@127.0.0.1 >/dev/null; diff -r tree/sub back.psftp/moved; rm -rf back.psftp`,
		"paramiko":              `/usr/bin/python3 -W ignore -c "$paramiko" 2>&1`,
		"asyncssh":              `/usr/bin/python3 -W ignore -c "$asyncssh" 2>&1 && diff -r tree back.asyncssh && rm -r back.asyncssh`,
		"lftp":                  `lftp -c "set sftp:connect-program 'ssh -a -x $options'; set sftp:auto-confirm yes; open -p $port -u alice, sftp://127.0.0.1; mirror -R tree w/tree; mirror w/tree back.lftp; cd w; mv tree/sub/1 tree/sub/5; rm tree/sub/2; mkdir -p p/q" 2>&1; diff -r tree/sub/deep back.lftp/sub/deep && cmp tree/sub/5 back.lftp/sub/5; rm -rf back.lftp`,
		"sshfs": `mkdir -p mnt && sshfs -p $port -o StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,LogLevel=ERROR,IdentityFile=$keys/alice alice@127.0.0.1:w mnt && cp -r --preserve=mode,timestamps tree mnt/ && (cd mnt && echo one >a && echo two >>a && mv a b && ln b c && ln -s b l && truncate -s 100000 b && dd if=$tmp/data/4 of=b bs=7777 seek=3 conv=notrunc status=none &&
			mkdir e && rmdir e && chmod 600 b && touch -d 2002-03-04 c && cat l | md5sum && rm tree/sub/1 && ls -R . && diff -r $tmp/tree/sub/deep tree/sub/deep); r=$?; fusermount3 -u mnt; exit $r`,
	}
	for name, script := range clients {
		t.Run(name, func(t *testing.T) {
			var prints, trees [2]string
			for i, port := range []string{theirs, s.port} {
				s.Sh(t, "rm -rf ~alice/w; install -d -o alice ~alice/w")
				at := *s
				at.port = port
				out, err := at.run(t, "batch='"+sftpBatch(rand.New(rand.NewPCG(14, 14)), 150)+"' paramiko='"+paramiko+"' asyncssh='"+asyncssh+"' exerciser='"+exerciser+"'; export batch paramiko asyncssh exerciser; "+script)
				if err != nil {
					t.Errorf("by port %s: %v: %s", port, err, out)
				}
				prints[i] = out
				// Times are those of the tree, or of the test.
				trees[i] = s.Sh(t, `cd ~alice/w && find . -printf '%P %y %m %l ' \( -newermt 2010-01-01 -printf 'now ' -o -printf '%T@ ' \) \( -type f -exec sh -c 'md5sum <"$1"' x {} \; -o -printf '\n' \) | sort`)
			}
			if prints[0] != prints[1] {
				t.Errorf("the client prints %s\nwith sshd %s", prints[1], prints[0])
			}
			if trees[0] != trees[1] || strings.Count(trees[0], "\n") < 3 {
				t.Errorf("there is\n%s\nwith sshd\n%s", trees[1], trees[0])
			}
		})
	}
}

package sftp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// besides has both servers answer a conversation in a tree that prepare has added
// something to, and compares the replies but for those that ignore names, by step. It
// returns ours, and what prepare returned.
func besides(t *testing.T, c conversation, prepare func(b *base) string, ignore func(step int) bool, check func(p program, replies []string, place string)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	for _, p := range theirs(t) {
		var out [2][]string
		for i, p := range []program{p, ours(t)} {
			b := newBase(t)
			b.build(t)
			place := prepare(b)
			out[i], _ = b.talk(t, p, c)
			if check != nil {
				check(p, out[i], place)
			}
		}
		for k := range max(len(out[0]), len(out[1])) {
			if len(out[0]) != len(out[1]) || out[0][k] != out[1][k] && (ignore == nil || !ignore(k)) {
				t.Fatalf("step %d: %s says %s\nours %s", k, p.name, out[0][min(k, len(out[0])-1)], out[1][min(k, len(out[1])-1)])
			}
		}
		t.Logf("%s beside ours: %d requests", p.name, len(c.steps))
	}
}

// writes are pieces of a file, each followed by a look at its size.
func writes(n int, size uint64) (l []step) {
	for i := range uint64(n) {
		l = append(l, req(typeWrite, h(0), i*size, strings.Repeat("f", int(size))), req(typeFstat, h(0)))
	}
	return l
}

// acknowledged returns how many bytes of the writes, which begin at step 2 of the
// replies, the server said to have written.
func acknowledged(replies []string, n int, size uint64) (bytes uint64, refused int) {
	for k := range n {
		if strings.Contains(replies[2+2*k], "Success") {
			bytes = uint64(k+1) * size
		} else {
			refused++
		}
	}
	return bytes, refused
}

// whole checks that what a server acknowledged is there, and that it refused some.
func whole(t *testing.T, file string, n int, size uint64) func(program, []string, string) {
	return func(p program, replies []string, place string) {
		t.Helper()
		told, refused := acknowledged(replies, n, size)
		data, err := os.ReadFile(filepath.Join(place, file))
		if err != nil || told == 0 || refused == 0 || uint64(len(data)) < told || strings.Trim(string(data[:told]), "f") != "" {
			t.Errorf("%s acknowledged %d bytes and refused %d writes; there are %d, %v", p.name, told, refused, len(data), err)
		}
	}
}

// A file system of 256 KiB fills up; what was acknowledged is there.
func TestFullDisk(t *testing.T) {
	c := conversation{name: "full disk", steps: append([]step{req(typeOpen, "emptydir/f", 0xb, attrs{})}, writes(12, 30000)...)}
	c.steps = append(c.steps, req(typeOpen, "file", 1, attrs{}), ext("copy-data", h(1), uint64(0), uint64(0), h(0), uint64(500000)), req(typeMkdir, "emptydir/1", attrs{}), req(typeMkdir, "emptydir/2", attrs{}), req(typeMkdir, "emptydir/3", attrs{}),
		req(typeMkdir, "emptydir/4", attrs{}), req(typeMkdir, "emptydir/5", attrs{}), req(typeOpen, "emptydir/g", 0xa, attrs{}), ext("statvfs@openssh.com", "emptydir"), ext("fsync@openssh.com", h(0)), req(typeClose, h(0)))
	besides(t, c, func(b *base) string {
		small := filepath.Join(b.dir, "emptydir")
		if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=256k,nr_inodes=5,mode=777"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
		return small
	}, func(k int) bool { return k == len(c.steps)-2 }, // the file systems are two, so their identifiers differ
		whole(t, "f", 12, 30000))
}

// A user's quota ends (EDQUOT), of a btrfs, whose quotas need no module: what was
// acknowledged is there.
func TestQuota(t *testing.T) {
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("mkfs.btrfs is not installed")
	}
	c := conversation{name: "quota", steps: append([]step{req(typeOpen, "emptydir/limited/f", 0xb, attrs{})}, writes(20, 30000)...)}
	c.steps = append(c.steps, req(typeMkdir, "emptydir/limited/d", attrs{}), req(typeSymlink, "a", "emptydir/limited/l"), req(typeOpen, "emptydir/limited/g", 0xa, attrs{}), ext("fsync@openssh.com", h(0)), req(typeClose, h(0)), req(typeStat, "emptydir/limited/f"))
	besides(t, c, func(b *base) string {
		image := filepath.Join(t.TempDir(), "image")
		at := filepath.Join(b.dir, "emptydir")
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
		out, err := exec.Command("sh", "-ec", `truncate -s 128M "$0"; mkfs.btrfs -q -M "$0"; mount -o loop "$0" "$1"; cd "$1"; btrfs subvolume create limited; chmod 777 limited; btrfs quota enable .; btrfs qgroup limit 400k limited`, image, at).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return at
	}, nil, whole(t, "limited/f", 20, 30000))
}

// A file has as many links as a btrfs without extended references allows in one
// directory (EMLINK).
func TestMostLinks(t *testing.T) {
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("mkfs.btrfs is not installed")
	}
	c := conversation{name: "links", steps: []step{
		ext("hardlink@openssh.com", "emptydir/f", "emptydir/more"), req(typeRename, "emptydir/f", "emptydir/g"), req(typeLstat, "emptydir/g"), req(typeRename, "emptydir/g", "emptydir/"+strings.Repeat("n", 255)),
		ext("posix-rename@openssh.com", "emptydir/g", "emptydir/"+strings.Repeat("n", 255)), req(typeRemove, "emptydir/l1"), ext("hardlink@openssh.com", "emptydir/g", "emptydir/l1"), ext("hardlink@openssh.com", "emptydir/g", "emptydir/more"),
	}}
	besides(t, c, func(b *base) string {
		image := filepath.Join(t.TempDir(), "image")
		at := filepath.Join(b.dir, "emptydir")
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
		out, err := exec.Command("sh", "-ec", `truncate -s 128M "$0"; mkfs.btrfs -q -M -O ^extref "$0"; mount -o loop "$0" "$1"; cd "$1"; echo f >f; chown -R 65534 .`, image, at).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for i := 1; err == nil && i < 10000; i++ {
			err = unix.Link(at+"/f", fmt.Sprintf("%s/l%d", at, i))
		}
		if err != unix.EMLINK {
			t.Fatalf("links end with %v", err)
		}
		return at
	}, nil, func(p program, replies []string, _ string) {
		if !strings.Contains(replies[1], "Failure") {
			t.Errorf("%s makes a link too many: %s", p.name, replies[1])
		}
	})
}

// Errors that need more than files in a directory: a program that runs (ETXTBSY), a
// mount point (EBUSY, EXDEV), one that is read-only (EROFS), a file that is only
// appended to (EPERM), and one whose reading fails (EIO).
func TestRareErrors(t *testing.T) {
	var c conversation
	for _, n := range []string{"busy", "emptydir", "emptydir/x", "dir/sub", "dir/sub/ro", "emptydir/appended"} {
		for _, flags := range []int{1, 2, 6, 0xa, 0x1a, 0x2a} {
			c.steps = append(c.steps, req(typeOpen, n, flags, attrs{}), req(typeWrite, h(0), uint64(0), "x"), req(typeRead, h(0), uint64(0), 10), req(typeClose, h(0)))
		}
		c.steps = append(c.steps, req(typeSetstat, n, attrs{flags: attrSize, size: 1}), req(typeSetstat, n, attrs{flags: attrPerm, perm: 0o700}), req(typeSetstat, n, attrs{flags: attrTimes, mtime: 5}), ext("lsetstat@openssh.com", n, attrs{flags: attrTimes, mtime: 5}),
			req(typeRename, n, "moved"), req(typeRename, "file", n), ext("posix-rename@openssh.com", "file", n), ext("posix-rename@openssh.com", n, "file"), ext("hardlink@openssh.com", n, "file2"),
			req(typeSymlink, "a", n+"_"), req(typeMkdir, n+"/new", attrs{}), req(typeRmdir, n), req(typeRemove, n), req(typeLstat, n))
	}
	c.steps = append(c.steps, req(typeOpen, "/proc/self/mem", 3, attrs{}), req(typeRead, h(0), uint64(0), 10), req(typeWrite, h(0), uint64(0), "x"), ext("fsync@openssh.com", h(0)), req(typeFsetstat, h(0), attrs{flags: attrSize}))
	besides(t, c, func(b *base) string {
		at := func(name string) string { return filepath.Join(b.dir, name) }
		out, err := exec.Command("sh", "-ec", `cd "$0"; cp /bin/sleep busy; chown 65534 busy; mount -t tmpfs -o mode=777 tmpfs emptydir; echo x >emptydir/x; chmod 666 emptydir/x
			cp emptydir/x emptydir/appended; chown 65534 emptydir/*; chattr +a emptydir/appended; mount -t tmpfs -o mode=777 tmpfs dir/sub; echo ro >dir/sub/ro; chown 65534 dir/sub/ro
			mount -o remount,ro dir/sub; find . -exec touch -h -d 2001-02-03 {} + 2>/dev/null || true`, b.dir).CombinedOutput()
		t.Cleanup(func() {
			unix.Unmount(at("emptydir"), unix.MNT_DETACH)
			unix.Unmount(at("dir/sub"), unix.MNT_DETACH)
		})
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		busy := exec.Command(at("busy"), "1000")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { busy.Process.Kill(); busy.Wait() })
		return b.dir
	}, nil, nil)
}

// Two sessions work on the same few files in turn. Each reply, and the tree, is that of
// OpenSSH's servers.
func TestTwoSessionsOnOneFile(t *testing.T) {
	type turn struct {
		who int
		step
	}
	play := func(p program, b *base, turns []turn) (replies []string) {
		b.build(t)
		var sessions [2]*peer
		for i := range sessions {
			sessions[i] = runPeer(t, p, b.dir, 0)
			defer sessions[i].kill()
			sessions[i].send(hello())
			sessions[i].receive()
		}
		for i, x := range turns {
			binary.BigEndian.PutUint32(x.req[5:], uint32(i))
			sessions[x.who].send(x.req)
			r, err := sessions[x.who].receive()
			if err != nil {
				t.Fatalf("%s, turn %d: %v", p.name, i, err)
			}
			replies = append(replies, b.canonical(r))
		}
		return append(replies, b.tree())
	}
	for _, p := range theirs(t) {
		b := newBase(t)
		rounds, each := 30, 150
		if testing.Short() {
			rounds = 5
		}
		for seed := range uint64(rounds) {
			r := newRand(seed)
			var turns []turn
			for range each {
				turns = append(turns, turn{r.IntN(2), sharedStep(r)})
			}
			want, is := play(p, b, turns), play(ours(t), b, turns)
			for i := range want {
				if want[i] != is[i] {
					what := "the tree"
					if i < len(turns) {
						what = fmt.Sprintf("turn %d, session %d, %.100q", i, turns[i].who, turns[i].req)
					}
					t.Fatalf("seed %d, %s:\n%s says %s\nours %s", seed, what, p.name, want[i], is[i])
				}
			}
		}
		t.Logf("%s beside ours: %d requests of two sessions", p.name, rounds*each)
	}
}

// sharedStep is a request on one file, which may have another name meanwhile.
func sharedStep(r *rand.Rand) step {
	name := func() string { return []string{"file", "file", "file", "hard", "other", "dir"}[r.IntN(6)] }
	hd := func() string { return h(r.IntN(4)) }
	off := func() uint64 { return []uint64{0, 1, 9, 100, 5000}[r.IntN(5)] }
	switch r.IntN(14) {
	case 0, 1, 2:
		return req(typeOpen, name(), r.IntN(64), attrs{})
	case 3:
		return req(typeClose, hd())
	case 4, 5, 6:
		return req(typeWrite, hd(), off(), strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(200)))
	case 7, 8:
		return req(typeRead, hd(), off(), r.IntN(6000))
	case 9:
		return req(typeFstat, hd())
	case 10:
		return req(typeFsetstat, hd(), attrs{flags: attrSize, size: uint64(r.IntN(300))})
	case 11:
		return req(typeRemove, name())
	case 12:
		return ext("posix-rename@openssh.com", name(), name())
	}
	return ext("fsync@openssh.com", hd())
}

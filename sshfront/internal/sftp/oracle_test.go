package sftp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests send the same packets to OpenSSH's sftp-server and to ours, one
// after the other, over trees that are made alike at the same place, and compare
// the replies, the exit status, the log at DEBUG3 and what became of the tree.

// A conversation is what one client sends. Requests get their ids from the
// test; a raw step is sent as it is, at the end.
type conversation struct {
	name  string
	args  []string
	limit int // of descriptors; 0: the test's own
	steps []step
	first []byte // in place of the client's version
}

type step struct {
	req []byte // a packet; the id is put in
	raw []byte // bytes after which the input ends
}

func req(typ byte, parts ...any) step {
	return step{req: packet(typ, append([]any{0}, parts...)...)}
}

func ext(name string, parts ...any) step {
	return req(typeExtended, append([]any{name}, parts...)...)
}

// ends says whether the first packet ends the session.
func (c *conversation) ends() bool { return len(c.steps) == 1 && c.steps[0].raw != nil }

// base is where trees are made: a tmpfs, if the tests run as root.
type base struct {
	dir   string // the tree
	start time.Time
}

func newBase(t testing.TB) *base {
	dir, err := os.MkdirTemp("/tmp", "sftp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clearTree(dir); os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size=64m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	os.Chmod(dir, 0o755)
	return &base{dir: filepath.Join(dir, "tree"), start: time.Now()}
}

func clearTree(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

// past is when the files of a tree are from.
var past = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// build makes the tree anew.
func (b *base) build(t testing.TB) {
	t.Helper()
	clearTree(b.dir)
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	root := os.Getuid() == 0
	own := func(name string) {
		if root {
			must(os.Lchown(filepath.Join(b.dir, name), testUID, testUID))
		}
	}
	mkdir := func(name string, mode os.FileMode) {
		must(os.Mkdir(filepath.Join(b.dir, name), 0o700))
		must(os.Chmod(filepath.Join(b.dir, name), mode))
		own(name)
	}
	write := func(name, data string, mode os.FileMode) {
		must(os.WriteFile(filepath.Join(b.dir, name), []byte(data), 0o600))
		must(os.Chmod(filepath.Join(b.dir, name), mode))
		own(name)
	}
	link := func(to, name string) {
		must(os.Symlink(to, filepath.Join(b.dir, name)))
		own(name)
	}
	mkdir(".", 0o755)
	write("file", "0123456789", 0o644)
	write("other", "abc", 0o600)
	write("empty", "", 0o640)
	write("secret", "no", 0)
	write("readonly", "ro", 0o444)
	write("suid", "x", 0o755|os.ModeSetuid|os.ModeSetgid)
	write("with space", "s", 0o644)
	write("\xff\xfe", "bytes", 0o644)
	write("új", "utf8", 0o644)
	write("new\nline", "n", 0o644)
	write(`back\slash`, "n", 0o644)
	write(strings.Repeat("n", 255), "long", 0o644)
	must(unix.Link(filepath.Join(b.dir, "file"), filepath.Join(b.dir, "hard")))
	mkdir("dir", 0o755)
	write("dir/inner", "inner", 0o644)
	mkdir("dir/sub", 0o755)
	mkdir("emptydir", 0o755|os.ModeSticky)
	mkdir("lockeddir", 0o755)
	write("lockeddir/x", "x", 0o644)
	must(os.Chmod(filepath.Join(b.dir, "lockeddir"), 0))
	mkdir("listonly", 0o755)
	write("listonly/x", "x", 0o644)
	must(os.Chmod(filepath.Join(b.dir, "listonly"), 0o444))
	mkdir("nowrite", 0o755)
	write("nowrite/x", "x", 0o644)
	must(os.Chmod(filepath.Join(b.dir, "nowrite"), 0o555))
	link("file", "link")
	link("dir", "dirlink")
	link("nothing", "dangling")
	link("loop2", "loop")
	link("loop", "loop2")
	link("/", "rootlink")
	link("../tree/dir/", "slashlink")
	link("chain1", "chain0")
	for i := 1; i < 40; i++ {
		to := fmt.Sprintf("chain%d", i+1)
		if i == 39 {
			to = "file"
		}
		link(to, fmt.Sprintf("chain%d", i))
	}
	must(unix.Mkfifo(filepath.Join(b.dir, "fifo"), 0o644))
	own("fifo")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(b.dir, "sock")}))
	unix.Close(fd)
	own("sock")
	if root {
		// What is another user's.
		for i, name := range []string{"roots", "daemons", "strangers"} {
			p := filepath.Join(b.dir, name)
			must(os.WriteFile(p, []byte(name), 0o644))
			must(os.Chown(p, []int{0, 1, 54321}[i], []int{0, 1, 54322}[i]))
		}
		must(os.Mkdir(filepath.Join(b.dir, "sticky"), 0o777))
		must(os.Chmod(filepath.Join(b.dir, "sticky"), 0o777|os.ModeSticky))
		must(os.WriteFile(filepath.Join(b.dir, "sticky/roots"), []byte("r"), 0o666))
	}
	// From the leaves, as a directory's time changes by its entries.
	var all []string
	filepath.WalkDir(b.dir, func(p string, _ fs.DirEntry, err error) error { all = append(all, p); return nil })
	slices.Reverse(all)
	for _, p := range all {
		ts := unix.NsecToTimespec(past.UnixNano())
		unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// tree describes what is there.
func (b *base) tree() string {
	var out strings.Builder
	filepath.WalkDir(b.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&out, "%q: %v\n", p, err)
			return nil
		}
		var st unix.Stat_t
		unix.Lstat(p, &st)
		fmt.Fprintf(&out, "%q %o %d:%d n%d", p, st.Mode, st.Uid, st.Gid, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if st.Size < 1<<20 {
				data, _ := os.ReadFile(p)
				fmt.Fprintf(&out, " %d %q", st.Size, data)
			} else {
				fmt.Fprintf(&out, " %d", st.Size)
			}
		case unix.S_IFLNK:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&out, " -> %q", to)
		}
		fmt.Fprintf(&out, " %s\n", b.when(st.Mtim.Sec))
		return nil
	})
	return out.String()
}

// when makes times comparable that are the time of the test.
func (b *base) when(sec int64) string {
	if sec >= b.start.Unix()-2 && sec <= time.Now().Unix()+2 {
		return "now"
	}
	return fmt.Sprint(sec)
}

var longDate = regexp.MustCompile(`[A-Z][a-z][a-z] [ 0-9]\d (\d\d:\d\d| \d{4})`)

// canonical makes a reply comparable: times that are now become one.
func (b *base) canonical(p []byte) string {
	if len(p) < 9 {
		return fmt.Sprintf("%x", p)
	}
	id := binary.BigEndian.Uint32(p[1:])
	f := fields{b: p[5:]}
	var out strings.Builder
	fmt.Fprintf(&out, "type %d id %d: ", p[0], id)
	one := func() {
		a := f.attrs()
		fmt.Fprintf(&out, "{%x %d %d:%d %o %s %s}", a.flags, a.size, a.uid, a.gid, a.perm, b.when(int64(a.atime)), b.when(int64(a.mtime)))
	}
	switch p[0] {
	case typeAttrs:
		one()
	case typeName:
		n := f.u32()
		fmt.Fprintf(&out, "%d names ", n)
		for ; n > 0 && f.err == nil; n-- {
			name := f.bytes()
			long := longDate.ReplaceAllFunc(f.bytes(), func(d []byte) []byte {
				loc, _ := time.LoadLocation("Europe/Berlin")
				at, err := time.ParseInLocation("2006 Jan _2 15:04", fmt.Sprint(time.Now().Year(), " ", string(d)), loc)
				// Where a second begins, OpenSSH's clock may be behind the file's,
				// which then is of the future.
				if err == nil && time.Since(at) < 10*time.Minute || string(d) == time.Now().In(loc).Format("Jan _2  2006") {
					return []byte("*           ")
				}
				return d
			})
			fmt.Fprintf(&out, "\n  %q %q ", name, long)
			one()
		}
	default:
		fmt.Fprintf(&out, "%q", p[5:])
		return out.String()
	}
	fmt.Fprintf(&out, " %v %x", f.err, f.b)
	return out.String()
}

// talk runs a conversation and returns what came of it, one string for each
// step, and the log.
func (b *base) talk(t testing.TB, p program, c conversation) ([]string, string) {
	t.Helper()
	args := append([]string{"-e", "-l", "DEBUG3"}, c.args...)
	s := runPeer(t, p, b.dir, c.limit, args...)
	defer s.kill()
	var out []string
	add := func(format string, v ...any) { out = append(out, fmt.Sprintf(format, v...)) }
	first := c.first
	if first == nil {
		first = hello()
	}
	s.send(first)
	r, err := s.receive()
	add("%q %v", r, err)
	const sentinel = 0xfffffff0
	ping := packet(typeExtended, uint32(sentinel), "ping@example.com")
	for i, st := range c.steps {
		if st.raw != nil {
			s.send(st.raw)
			break
		}
		q := bytes.Clone(st.req)
		binary.BigEndian.PutUint32(q[5:], uint32(i))
		s.send(q)
		if _, known := byTypeKnown(q[4]); !known {
			// OpenSSH's server does not look at what it has read already until
			// more comes.
			time.Sleep(50 * time.Millisecond)
		}
		s.send(ping)
		var replies []string
		for {
			r, err := s.receive()
			if err != nil {
				add("%v", err)
				add("%s", s.finish())
				return out, s.log.String()
			}
			if len(r) >= 5 && binary.BigEndian.Uint32(r[1:]) == sentinel {
				break
			}
			replies = append(replies, b.canonical(r))
		}
		add("%s", strings.Join(replies, "; "))
	}
	add("%s", s.finish())
	return out, s.log.String()
}

func byTypeKnown(typ byte) (int, bool) {
	if typ == typeExtended || typ == typeInit {
		return 0, true
	}
	return int(byType[typ]), byType[typ] != 0
}

// known are lines of the log that differ on purpose or by version.
var known = []*regexp.Regexp{
	// OpenSSH counts groups as users.
	regexp.MustCompile(`users-groups-by-id: \d+ users, \d+ groups`),
	// Its buffer grows by other steps than ours, which does not.
	regexp.MustCompile(`(?m)^debug3: process_read: allocate .*\r\n`),
	// Debian 12's says "handle" twice.
	regexp.MustCompile(`(sent handle) handle`),
}

func comparableLog(s string) string {
	for _, r := range known {
		s = r.ReplaceAllString(s, "$1")
	}
	return s
}

// table counts, for each of OpenSSH's servers, conversations, requests, differences,
// and differences that are named here and in the manual.
var table = map[string][4]int{}

// compare runs conversations with both servers. Each starts from a new tree.
func compare(t *testing.T, conversations []conversation) {
	t.Helper()
	if testing.Short() {
		var some []conversation
		for i := 0; i < len(conversations); i += 1 + len(conversations)/8 {
			some = append(some, conversations[i])
		}
		conversations = some
	}
	for _, p := range theirs(t) {
		b := newBase(t)
		steps, bad, named := 0, 0, 0
		for n, c := range conversations {
			lost := 0
			var replies [2][]string
			var logs, trees [2]string
			for i, p := range []program{p, ours(t)} {
				// What ends a session at once changes nothing, which is seen in
				// the next tree but one.
				if n == 0 || !conversations[n-1].ends() || i == 1 && !c.ends() {
					b.build(t)
				}
				replies[i], logs[i] = b.talk(t, p, c)
				logs[i] = comparableLog(logs[i])
				if !c.ends() {
					trees[i] = b.tree()
				}
			}
			steps += len(c.steps) + 1
			for i := range max(len(replies[0]), len(replies[1])) {
				var is, want, what string
				if i < len(replies[0]) {
					want = replies[0][i]
				}
				if i < len(replies[1]) {
					is = replies[1][i]
				}
				if i > 0 && i <= len(c.steps) {
					what = fmt.Sprintf("%.300q", append(c.steps[i-1].req, c.steps[i-1].raw...))
				}
				if p.name == "installed" && strings.Contains(what, `home-directory`) {
					lost++ // it answers with the server's own home, whoever is asked for
					continue
				}
				if strings.HasPrefix(what, `"\x00\x00\x00\r\f`) && strings.Contains(want, "End of file") && strings.HasPrefix(is, "type 104") && strings.HasPrefix(c.name, "renamed ") {
					// It looks at the files by the name that the directory had.
					lost++
					continue
				}
				if strings.Contains(what, "copy-data") && strings.Contains(want, "Success") && strings.HasPrefix(is, "type 101") {
					// It says that all went well where reading or writing the
					// last 64 KiB failed.
					lost++
					continue
				}
				if is != want {
					bad++
					t.Errorf("%s, step %d %s:\n%s says %s\nours       %s", c.name, i, what, p.name, want, is)
					if bad > 20 {
						t.Fatal("more is not shown")
					}
				}
			}
			if trees[0] != trees[1] {
				bad++
				t.Errorf("%s: trees differ:\n%s", c.name, diff(trees[0], trees[1]))
			}
			if p.name == "installed" && logs[0] != logs[1] && strings.HasSuffix(c.name, "extended attributes") {
				lost++ // it reads as many as are said to be there
			}
			if logs[0] != logs[1] && lost == 0 {
				bad++
				t.Errorf("%s: logs differ:\n%s", c.name, diff(logs[0], logs[1]))
			}
			named += lost
			if bad > 20 {
				t.Fatal("more is not shown")
			}
		}
		t.Logf("%s beside ours: %d conversations, %d requests, %d differences, %d that are named", p.name, len(conversations), steps, bad, named)
		sum := table[p.name]
		for i, n := range []int{len(conversations), steps, bad, named} {
			sum[i] += n
		}
		table[p.name] = sum
	}
}

// diff shows the lines that two texts do not share, by place.
func diff(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out strings.Builder
	n := 0
	for i := range max(len(la), len(lb)) {
		var x, y string
		if i < len(la) {
			x = la[i]
		}
		if i < len(lb) {
			y = lb[i]
		}
		if x != y {
			fmt.Fprintf(&out, "  theirs %q\n  ours   %q\n", x, y)
			if n++; n == 4 {
				break
			}
		}
	}
	return out.String()
}

// names are what a client may call a file.
func oddNames() []string {
	return []string{
		"file", "missing", "dir", "dir/", "dir/.", "dir/..", "dir/inner", "dir/missing", "file/", "file/x", "link", "link/", "dirlink", "dirlink/inner", "dirlink/..",
		"dangling", "dangling/", "dangling/x", "loop", "loop/x", "chain0", "chain8", "chain7", "chain6", "chain5", "emptydir", "lockeddir", "lockeddir/x", "listonly", "listonly/x", "nowrite", "nowrite/x", "nowrite/new",
		"secret", "readonly", "suid", "empty", "hard", "with space", "\xff\xfe", "új", "new\nline", `back\slash`, "sock", "slashlink", "slashlink/inner", "rootlink/tmp",
		"", ".", "..", "/", "//", "///", "./", "./file", "././file", "dir//inner", "..//tree/file", "../../../../..", "missing/..", "missing/../file", "dir/missing/..", "file/..",
		strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("a/", 100), strings.Repeat("./", 2046) + "file", strings.Repeat("./", 2048) + "file", strings.Repeat("x", 5000), "/" + strings.Repeat("y", 4094), "/" + strings.Repeat("y", 4095),
		strings.Repeat("z", 100000), "/etc/shadow", "/etc/passwd", "/root", "/root/x", "/proc/self/cwd", "/proc/1/cwd", "/dev/null", "/dev/full", "~", "~/x", "~root", "~root/x", "~nosuchuser", "~nobody//x", "~/../..", "file\x00", "-", "*", "roots", "daemons", "strangers", "sticky", "sticky/roots",
	}
}

func TestRequestsWithOneName(t *testing.T) {
	kinds := []struct {
		name string
		mk   func(string) step
	}{
		{"lstat", func(n string) step { return req(typeLstat, n) }},
		{"stat", func(n string) step { return req(typeStat, n) }},
		{"remove", func(n string) step { return req(typeRemove, n) }},
		{"rmdir", func(n string) step { return req(typeRmdir, n) }},
		{"realpath", func(n string) step { return req(typeRealpath, n) }},
		{"readlink", func(n string) step { return req(typeReadlink, n) }},
		{"opendir", func(n string) step { return req(typeOpendir, n) }},
		{"expand-path", func(n string) step { return ext("expand-path@openssh.com", n) }},
		{"home-directory", func(n string) step { return ext("home-directory", n) }},
		{"mkdir", func(n string) step { return req(typeMkdir, n, attrs{}) }},
		{"mkdir sticky", func(n string) step { return req(typeMkdir, n, attrs{flags: attrPerm, perm: 0o101777}) }},
	}
	for _, fl := range []uint32{attrSize, attrPerm, attrTimes, attrUIDGID, attrExtended, 0, 15} {
		a := attrs{flags: fl, size: 3, perm: 0o100604, uid: testUID, gid: testUID, atime: 1000000001, mtime: 1000000002}
		kinds = append(kinds, struct {
			name string
			mk   func(string) step
		}{fmt.Sprintf("setstat %x", fl), func(n string) step { return req(typeSetstat, n, a) }}, struct {
			name string
			mk   func(string) step
		}{fmt.Sprintf("lsetstat %x", fl), func(n string) step { return ext("lsetstat@openssh.com", n, a) }})
	}
	var cs []conversation
	for _, k := range kinds {
		c := conversation{name: k.name}
		for _, n := range oddNames() {
			if strings.HasPrefix(n, "/dev") || strings.HasPrefix(n, "..") && k.name != "lstat" && k.name != "realpath" {
				continue
			}
			c.steps = append(c.steps, k.mk(n))
		}
		cs = append(cs, c)
	}
	// How much is free changes while the machine works: only on our own mount.
	c := conversation{name: "statvfs"}
	for _, n := range []string{"file", "dir", "missing", "", "loop", "lockeddir/x", "fifo", "sock", "/proc", strings.Repeat("x", 5000)} {
		c.steps = append(c.steps, ext("statvfs@openssh.com", n))
	}
	c.steps = append(c.steps, req(typeOpen, "file", 1, attrs{}), ext("fstatvfs@openssh.com", h(0)), req(typeOpendir, "dir"), ext("fstatvfs@openssh.com", h(1)), ext("fstatvfs@openssh.com", h(7)))
	compare(t, append(cs, c))
}

func TestOpenWithAllFlags(t *testing.T) {
	var cs []conversation
	for flags := range uint32(64) {
		for _, a := range []attrs{{}, {flags: attrPerm, perm: 0o100600}, {flags: attrPerm | attrTimes | attrSize | attrUIDGID, perm: 0o7777, size: 4}} {
			c := conversation{name: fmt.Sprintf("open %x, %x", flags, a.flags)}
			for _, n := range []string{"file", "missing", "dir", "dir/", "link", "dangling", "loop", "secret", "readonly", "nowrite/x", "nowrite/new", "lockeddir/x", "file/x", "", "emptydir/new", "sock", "roots", "/dev/null", "/dev/full", "fifo"} {
				if n == "fifo" && flags&3 != 3 {
					continue // it waits for the other end
				}
				i := 0 // the handle, as each is closed again
				c.steps = append(c.steps, req(typeOpen, n, flags, a), req(typeFstat, h(i)), req(typeWrite, h(i), uint64(0), "xy"), req(typeWrite, h(i), uint64(1), "z"),
					req(typeRead, h(i), uint64(0), 5), req(typeReaddir, h(i)), req(typeClose, h(i)), req(typeLstat, n))
				if n == "fifo" {
					c.steps = slices.Delete(c.steps, len(c.steps)-6, len(c.steps)-3)
				}
			}
			cs = append(cs, c)
		}
	}
	compare(t, cs)
}

func TestRequestsWithTwoNames(t *testing.T) {
	names := []string{"file", "missing", "dir", "dir/inner", "dir/sub", "dir/sub/x", "link", "dirlink", "dangling", "loop", "emptydir", "lockeddir/x", "nowrite/x", "nowrite/new", "secret", "hard", "fifo", "sock", "", "/", ".", "file/x", "new/", "emptydir/", "/proc/x", "/tmp/sftp-other-fs", "roots", "sticky/roots", strings.Repeat("n", 256), "missing/x"}
	var cs []conversation
	for _, from := range names {
		for name, mk := range map[string]func(a, b string) step{
			"rename":       func(a, b string) step { return req(typeRename, a, b) },
			"posix-rename": func(a, b string) step { return ext("posix-rename@openssh.com", a, b) },
			"hardlink":     func(a, b string) step { return ext("hardlink@openssh.com", a, b) },
			"symlink":      func(a, b string) step { return req(typeSymlink, a, b) },
		} {
			c := conversation{name: fmt.Sprintf("%s of %.20q", name, from)}
			for _, to := range names {
				if to == "/tmp/sftp-other-fs" {
					continue // it would stay
				}
				c.steps = append(c.steps, mk(from, to), req(typeLstat, from), req(typeLstat, to))
			}
			cs = append(cs, c)
		}
	}
	compare(t, cs)
}

// handleRequests are all that take a handle.
func handleRequests(hd string) []step {
	return []step{
		req(typeRead, hd, uint64(0), 10), req(typeWrite, hd, uint64(0), "w"), req(typeFstat, hd), req(typeFsetstat, hd, attrs{flags: attrPerm, perm: 0o600}), req(typeReaddir, hd),
		ext("fstatvfs@openssh.com", hd), ext("fsync@openssh.com", hd), ext("copy-data", hd, uint64(0), uint64(0), hd, uint64(0)), ext("copy-data", hd, uint64(0), uint64(0), h(0), uint64(0)), ext("copy-data", h(0), uint64(0), uint64(0), hd, uint64(0)),
		req(typeClose, hd), req(typeClose, hd), req(typeRead, hd, uint64(0), 10),
	}
}

func TestHandles(t *testing.T) {
	var cs []conversation
	setup := []step{
		req(typeOpen, "file", 3, attrs{}), req(typeOpendir, "dir"), req(typeOpen, "other", 1, attrs{}), req(typeOpen, "empty", 2, attrs{}), req(typeOpen, "fifo", 3, attrs{}), req(typeOpen, "dir", 1, attrs{}),
		req(typeOpen, "missing", 1, attrs{}), req(typeOpen, "hard", 3, attrs{}), req(typeOpen, "/dev/null", 3, attrs{}), req(typeOpen, "/dev/full", 3, attrs{}), req(typeOpen, "/proc/self/status", 3, attrs{}),
	}
	for _, hd := range []string{h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7), h(8), h(99), h(-1), h(-2147483648), h(2147483647), "", "x", "xxx", "xxxxx", strings.Repeat("\x00", 255), strings.Repeat("\x00", 256), strings.Repeat("\x00", 1000)} {
		steps := handleRequests(hd)
		if hd == h(4) { // reading would wait
			steps = steps[1:7]
		}
		cs = append(cs, conversation{name: fmt.Sprintf("handle %.8q", hd), steps: append(slices.Clone(setup), steps...)})
	}
	// Places are reused in an order that a client sees.
	c := conversation{name: "order"}
	for range 8 {
		c.steps = append(c.steps, req(typeOpen, "file", 1, attrs{}))
	}
	for _, i := range []int{3, 1, 6, 0} {
		c.steps = append(c.steps, req(typeClose, h(i)))
	}
	for range 6 {
		c.steps = append(c.steps, req(typeOpendir, "dir"))
	}
	cs = append(cs, c)
	// As many as there may be, and then no more.
	c = conversation{name: "bound", limit: 40}
	c.steps = append(c.steps, ext("limits@openssh.com"))
	for range 45 {
		c.steps = append(c.steps, req(typeOpen, "file", 1, attrs{}))
	}
	c.steps = append(c.steps, req(typeOpendir, "dir"), req(typeClose, h(7)), req(typeOpen, "other", 1, attrs{}), req(typeRead, h(7), uint64(0), 9))
	compare(t, append(cs, c))
}

func TestOffsetsAndLengths(t *testing.T) {
	offsets := []uint64{0, 1, 9, 10, 11, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1<<44 - 1, 1 << 44, 1<<62 - 1, 1 << 62, 1<<63 - 2, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	var cs []conversation
	for _, n := range []string{"file", "empty", "dir", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/status", "fifo"} {
		for _, flags := range []int{1, 2, 3, 6, 7} {
			if n == "fifo" && flags&3 != 3 || n == "dir" && flags != 1 {
				continue
			}
			c := conversation{name: fmt.Sprintf("%s opened with %x", n, flags)}
			c.steps = append(c.steps, req(typeOpen, n, flags, attrs{}))
			for _, off := range offsets {
				for _, l := range []int{0, 1, 10, 32768, maxData, maxData + 1, 0xffffffff} {
					if l > 0 && (n == "fifo" || n == "/proc/self/status") {
						break
					}
					c.steps = append(c.steps, req(typeRead, h(0), off, l))
				}
				if off < 1<<21 || off >= 1<<62 {
					for _, l := range []int{0, 1, 5} {
						c.steps = append(c.steps, req(typeWrite, h(0), off, strings.Repeat("w", l)), req(typeFstat, h(0)))
					}
				}
			}
			if n == "fifo" { // what was written comes back by no read, as one has to seek
				c.steps = c.steps[:20]
			}
			cs = append(cs, c)
		}
	}
	c := conversation{name: "sizes"}
	for _, n := range []string{"file", "dir", "missing", "readonly", "fifo", "link", "dangling", "/dev/null"} {
		for _, size := range []uint64{0, 3, 100, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
			c.steps = append(c.steps, req(typeSetstat, n, attrs{flags: attrSize, size: size}), req(typeStat, n))
		}
	}
	for _, flags := range []int{1, 2} {
		c.steps = append(c.steps, req(typeOpen, "other", flags, attrs{}))
		for _, size := range []uint64{0, 3, 100, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
			c.steps = append(c.steps, req(typeFsetstat, h(flags-1), attrs{flags: attrSize, size: size}), req(typeStat, "other"))
		}
	}
	cs = append(cs, c)
	c = conversation{name: "a mebibyte in the largest packets"}
	c.steps = append(c.steps, req(typeOpen, "new", 0x1a, attrs{}), req(typeOpen, "new", 1, attrs{}))
	for i := range uint64(4) {
		c.steps = append(c.steps, req(typeWrite, h(0), i*maxData, strings.Repeat(string(rune('a'+i)), maxData)), req(typeRead, h(1), i*maxData, maxData), req(typeRead, h(1), i*1000, 32768))
	}
	compare(t, append(cs, c))
}

func TestAttributes(t *testing.T) {
	var cs []conversation
	for flags := range uint32(16) {
		for _, a := range []attrs{
			{size: 2, uid: testUID, gid: testUID, perm: 0o640, atime: 1, mtime: 2},
			{size: 1 << 63, uid: 0, gid: 0, perm: 0xffffffff, atime: 0xffffffff, mtime: 0x80000000},
			{size: 5, uid: 0xffffffff, gid: 0xffffffff, perm: 0o4755, atime: 0, mtime: 0},
			{size: 5, uid: testUID, gid: 1, perm: 0o102755, atime: 3000000000, mtime: 1 << 31},
		} {
			a.flags = flags
			c := conversation{name: fmt.Sprintf("attributes %x %v", flags, a)}
			for _, n := range []string{"file", "dir", "link", "dangling", "readonly", "secret", "missing", "nowrite/x", "lockeddir/x", "roots"} {
				c.steps = append(c.steps, req(typeSetstat, n, a), req(typeLstat, n), ext("lsetstat@openssh.com", n, a), req(typeLstat, n), req(typeMkdir, n+"_", a), req(typeLstat, n+"_"))
			}
			c.steps = append(c.steps, req(typeOpen, "other", 3, a), req(typeFsetstat, h(0), a), req(typeFstat, h(0)), req(typeOpen, "created", 0xa, a), req(typeLstat, "created"))
			cs = append(cs, c)
		}
	}
	// Extended attributes, of which there are none.
	for _, n := range []uint32{0, 1, 2, 3, 0x100000, 0x100001, 0xffffffff} {
		bad := packet(typeSetstat, 7, "file", uint32(attrExtended|attrPerm), 0o600, n, "a", "b", "c", "d")
		s := step{raw: bad}
		if n <= 2 {
			s = step{req: bad}
		}
		cs = append(cs, conversation{name: fmt.Sprintf("%d extended attributes", n), steps: []step{s}})
	}
	compare(t, cs)
}

// requestsForTest has one good packet of each request.
func requestsForTest() []step {
	a := attrs{flags: attrSize | attrPerm | attrTimes, size: 1, perm: 0o644, atime: 5, mtime: 6}
	return []step{
		req(typeOpen, "file", 1, a), req(typeOpendir, "dir"), req(typeRead, h(0), uint64(0), 4), req(typeWrite, h(0), uint64(0), "data"), req(typeLstat, "file"), req(typeFstat, h(0)), req(typeSetstat, "other", a),
		req(typeFsetstat, h(0), a), req(typeReaddir, h(1)), req(typeMkdir, "made", a), req(typeRmdir, "made"), req(typeRealpath, "dirlink/inner"), req(typeStat, "file"), req(typeRename, "empty", "renamed"), req(typeReadlink, "link"),
		req(typeSymlink, "a", "b"), ext("posix-rename@openssh.com", "b", "c"), ext("fstatvfs@openssh.com", h(0)), ext("hardlink@openssh.com", "file", "hard2"), ext("fsync@openssh.com", h(0)),
		ext("lsetstat@openssh.com", "link", attrs{flags: attrTimes, atime: 1, mtime: 2}), ext("limits@openssh.com"), ext("expand-path@openssh.com", "~/file"), ext("copy-data", h(0), uint64(0), uint64(0), h(1), uint64(0)),
		ext("home-directory", "nobody"), ext("users-groups-by-id@openssh.com", "\x00\x00\x00\x00", "\x00\x00\x00\x01"), req(typeRemove, "other"), req(typeClose, h(0)),
		ext("unknown@example.com", "x"), req(21), req(0), req(2, "x"), req(99), req(typeStatus, 1), req(255),
	}
}

func TestPermissions(t *testing.T) {
	all := requestsForTest()
	cs := []conversation{{name: "all"}, {name: "-R", args: []string{"-R"}}, {name: "two of each", args: []string{"-P", "open,lstat", "-p", "open,stat,limits"}}, {name: "umask", args: []string{"-u", "077"}}, {name: "directory", args: []string{"-d", "dir"}}}
	for _, name := range RequestNames() {
		cs = append(cs, conversation{name: "-P " + name, args: []string{"-P", name}}, conversation{name: "-p " + name, args: []string{"-p", name}})
	}
	for i := range cs {
		cs[i].steps = all
		if i > 0 { // what nobody answers takes time
			cs[i].steps = slices.DeleteFunc(slices.Clone(all), func(s step) bool { _, known := byTypeKnown(s.req[4]); return !known })
		}
	}
	c := conversation{name: "opening read-only", args: []string{"-R"}}
	for flags := range 64 {
		c.steps = append(c.steps, req(typeOpen, "file", flags, attrs{}))
	}
	compare(t, append(cs, c))
}

// At each level the log has the lines that OpenSSH's has.
func TestLevels(t *testing.T) {
	all := append(requestsForTest(), req(typeOpen, "missing", 1, attrs{}), req(typeOpen, "file", 2, attrs{}), req(typeRead, h(9), uint64(0), 4), req(typeRead, h(0), uint64(1<<63), 4), req(typeStat, "secret\x01\n"), req(typeClose, h(9)))
	home := slices.IndexFunc(all, func(s step) bool { return bytes.Contains(s.req, []byte("home-directory")) })
	var cs []conversation
	for l := range levels {
		cs = append(cs, conversation{name: l + ", home", args: []string{"-l", l}, steps: all[home : home+1]})
	}
	// What nobody answers takes time. Debian 12's answer about a home is another one.
	all = slices.DeleteFunc(slices.Delete(all, home, home+1), func(s step) bool { _, known := byTypeKnown(s.req[4]); return !known })
	for l := range levels {
		for _, args := range [][]string{{"-l", l}, {"-l", strings.ToLower(l), "-R"}, {"-l" + l, "-f", "LOCAL3", "-P", "stat,limits", "-p", "open,read,stat,close"}} {
			cs = append(cs, conversation{name: strings.Join(args, " "), args: args, steps: all})
		}
		cs = append(cs, conversation{name: l + ", broken", args: []string{"-l", l}, steps: []step{{raw: packet(typeOpen, 1, "file")}}}, conversation{name: l + ", too long", args: []string{"-l", l}, steps: []step{{raw: []byte{0, 4, 0, 1, typeStat}}}})
	}
	compare(t, cs)
}

// -P and -p know the names that OpenSSH's know.
func TestNamesOfRequests(t *testing.T) {
	for _, p := range theirs(t) {
		out, err := exec.Command(p.argv[0], append(p.argv[1:], "-Q", "requests")...).Output()
		if is := strings.Join(RequestNames(), "\n") + "\n"; err != nil || is != string(out) {
			t.Errorf("%s: %v, %s\nours: %s", p.name, err, out, is)
		}
	}
}

// The options that a session is served with.
func TestOptions(t *testing.T) {
	steps := []step{req(typeRealpath, "."), req(typeOpen, "made", 0xb, attrs{}), req(typeMkdir, "madedir", attrs{}), req(typeMkdir, "openeddir", attrs{flags: attrPerm, perm: 0o777}), req(typeStat, "made"), req(typeStat, "madedir"), req(typeStat, "openeddir"), req(typeRealpath, "dir")}
	var cs []conversation
	for _, args := range [][]string{
		{}, {"-u", "0"}, {"-u", "077"}, {"-u777"}, {"-eu", "22"}, {"-d", "dir"}, {"-ddir/sub"}, {"-d", "missing"}, {"-d", "file"}, {"-d", "lockeddir"}, {"-d", "/"}, {"-d", "/proc/%d"}, {"-d", "%d"}, {"-d", "/%u"}, {"-d", "100%%"}, {"-d", "~"}, {"-d", "~root"}, {"-d", "~nobody/x"}, {"-d", ""},
		{"-R", "-R", "-e"}, {"-f", "DAEMON"}, {"-f", "local7"}, {"-P", "open", "-d", "dir"}, {"-p", "realpath,stat"}, {"-p", "mkdir", "-P", "mkdir"}, {"-Re"}, {"--"}, {"-d", "dir", "-d", "emptydir"}, {"-u", "7", "-u", "70"},
	} {
		cs = append(cs, conversation{name: strings.Join(args, " "), args: args, steps: steps})
	}
	compare(t, cs)
}

func TestBrokenPackets(t *testing.T) {
	var cs []conversation
	// Each request, ended early.
	for i, s := range requestsForTest() {
		full := s.req[4:]
		for n := 1; n < len(full); n++ {
			if i == 28 && n > 26 {
				continue // a reply to it is lost where the input ends
			}
			if n > 10 && n < len(full)-5 && n%3 != 0 {
				continue
			}
			cut := append(binary.BigEndian.AppendUint32(nil, uint32(n)), full[:n]...)
			last := step{raw: cut}
			cs = append(cs, conversation{name: fmt.Sprintf("request %d ended after %d bytes", i, n), steps: []step{last}})
		}
		// And with more at its end.
		more := append(bytes.Clone(s.req), "more"...)
		binary.BigEndian.PutUint32(more, uint32(len(more)-4))
		cs = append(cs, conversation{name: fmt.Sprintf("request %d with more", i), steps: []step{{req: more}}})
	}
	raw := func(name string, b ...byte) { cs = append(cs, conversation{name: name, steps: []step{{raw: b}}}) }
	raw("length 0", 0, 0, 0, 0, 0)
	raw("length 1, no id", 0, 0, 0, 1, typeStat)
	raw("too long", 0, 4, 0, 1, typeStat)
	raw("very long", 0xff, 0xff, 0xff, 0xff, typeStat)
	raw("string too long", packet(typeStat, 1, 0xffffffff)...)
	raw("string a byte too long", packet(typeStat, 1, 5, []byte("file"))...)
	raw("NUL in a name", packet(typeStat, 1, "fi\x00le")...)
	raw("two NUL in a name", packet(typeStat, 1, "file\x00\x00")...)
	raw("NUL in the second name", packet(typeRename, 1, "file", "a\x00b")...)
	raw("NUL in the name of an extension", packet(typeExtended, 1, "limits\x00@openssh.com")...)
	raw("ids of users cut off", packet(typeExtended, 1, "users-groups-by-id@openssh.com", "\x00\x00\x00", "")...)
	raw("ids of groups cut off", packet(typeExtended, 1, "users-groups-by-id@openssh.com", "\x00\x00\x00\x00", "\x00")...)
	largest := append(packet(typeStat, 1, "file"), make([]byte, maxPacket)...)[:4+maxPacket]
	binary.BigEndian.PutUint32(largest, maxPacket)
	cs = append(cs, conversation{name: "largest", steps: []step{{req: largest}}})
	// Before and instead of the version.
	for _, first := range [][]byte{packet(typeStat, 1, "file"), packet(typeExtended, 1, "limits@openssh.com"), packet(typeInit), packet(typeInit, []byte{0, 0}), packet(200), packet(0, 1)} {
		cs = append(cs, conversation{name: fmt.Sprintf("first %x", first), first: first})
	}
	for _, v := range []int{0, 1, 2, 3, 4, 6, 0xffffffff} {
		cs = append(cs, conversation{name: fmt.Sprintf("version %d", v), first: packet(typeInit, v, "ext", "1"), steps: []step{req(typeStat, "file"), req(typeStat, "missing"), req(typeRemove, "file"), ext("expand-path@openssh.com", "~nosuch")}})
	}
	compare(t, cs)
}

func TestListings(t *testing.T) {
	var cs []conversation
	for _, d := range []string{".", "dir", "./dir/", "dirlink", "listonly", "lockeddir", "emptydir", "/etc", "/dev", "/usr/bin"} {
		c := conversation{name: "listing of " + d}
		c.steps = append(c.steps, req(typeOpendir, d))
		for range 8 {
			c.steps = append(c.steps, req(typeReaddir, h(0)))
		}
		cs = append(cs, c)
	}
	c := conversation{name: "three hundred files of all times"}
	for i := range 300 {
		n := fmt.Sprintf("emptydir/%03d", i)
		// From 1970 to 2106, and closely around half a year ago.
		m := uint32(i) * 14316557
		if i%3 == 0 {
			m = uint32(time.Now().Unix()) - halfYear + 86400*uint32(i-150)
		}
		c.steps = append(c.steps, req(typeOpen, n, 0xa, attrs{}), req(typeClose, h(0)), req(typeSetstat, n, attrs{flags: attrTimes | attrPerm, perm: uint32(i*27) & 0o7777, atime: m, mtime: m}))
	}
	c.steps = append(c.steps, req(typeOpendir, "emptydir"))
	for range 5 {
		c.steps = append(c.steps, req(typeReaddir, h(0)))
	}
	// Removed while it is listed.
	gone := conversation{name: "removed while listed", steps: []step{req(typeMkdir, "d", attrs{}), req(typeOpendir, "d"), req(typeRmdir, "d"), req(typeReaddir, h(0)), req(typeClose, h(0))}}
	moved := conversation{name: "renamed while listed", steps: []step{req(typeMkdir, "d", attrs{}), req(typeMkdir, "d/e", attrs{}), req(typeOpendir, "d"), req(typeRename, "d", "f"), req(typeReaddir, h(0)), req(typeClose, h(0))}}
	compare(t, append(cs, c, gone, moved))
}

func TestCopyData(t *testing.T) {
	var cs []conversation
	for _, flags := range []int{2, 6} {
		for _, n := range []uint64{0, 1, 10, 11, 65536, 65537, 100000, 150000, 200000, 1 << 40, 1 << 63, 1<<64 - 1} {
			for _, off := range []uint64{0, 5, 10, 100000, 1 << 62, 1<<63 - 1, 1 << 63} {
				if n > 1<<41 && off == 0 {
					continue
				}
				cs = append(cs, conversation{name: fmt.Sprintf("copy of %d from %d, %x", n, off, flags), steps: []step{
					req(typeOpen, "big", 0xb, attrs{}), req(typeWrite, h(0), uint64(0), strings.Repeat("0123456789", 10000)), req(typeWrite, h(0), uint64(100000), strings.Repeat("abcdefghij", 5000)),
					req(typeOpen, "file", flags, attrs{}), ext("copy-data", h(0), off, n, h(1), uint64(3)), req(typeFstat, h(1)), ext("copy-data", h(1), uint64(0), n, h(0), off), req(typeFstat, h(0)),
				}})
			}
		}
	}
	cs = append(cs, conversation{name: "copies within a file", steps: []step{
		req(typeOpen, "file", 3, attrs{}), req(typeOpen, "file", 3, attrs{}), req(typeOpen, "hard", 3, attrs{}), ext("copy-data", h(0), uint64(0), uint64(0), h(1), uint64(20)),
		ext("copy-data", h(0), uint64(0), uint64(5), h(2), uint64(3)), ext("copy-data", h(0), uint64(2), uint64(0), h(2), uint64(0)), req(typeRead, h(0), uint64(0), 100),
	}})
	cs = append(cs, conversation{name: "copies that cannot be", steps: []step{
		req(typeOpen, "file", 1, attrs{}), req(typeOpen, "other", 2, attrs{}), req(typeOpen, "dir", 1, attrs{}), req(typeOpen, "fifo", 3, attrs{}),
		ext("copy-data", h(1), uint64(0), uint64(0), h(0), uint64(0)), ext("copy-data", h(2), uint64(0), uint64(0), h(1), uint64(0)), ext("copy-data", h(0), uint64(0), uint64(0), h(3), uint64(0)), ext("copy-data", h(3), uint64(0), uint64(0), h(1), uint64(0)),
		ext("copy-data", h(1), uint64(0), uint64(0), h(0), uint64(0)),
	}})
	compare(t, cs)
}

func TestUsersAndGroups(t *testing.T) {
	ids := func(l ...uint32) (s string) {
		for _, n := range l {
			s += string(binary.BigEndian.AppendUint32(nil, n))
		}
		return s
	}
	compare(t, []conversation{{name: "ids", steps: []step{
		ext("users-groups-by-id@openssh.com", ids(0, 1, 65534, 4294967295, 54321), ids(0, 1, 65534, 7, 4294967295, 54321)), ext("users-groups-by-id@openssh.com", "", ids(0)), ext("users-groups-by-id@openssh.com", "", ""),
		ext("home-directory", ""), ext("home-directory", "root"), ext("home-directory", "nosuchuser"), ext("home-directory", "0"), ext("home-directory", "root:x"), ext("home-directory", "nobody\x00"),
		ext("expand-path@openssh.com", "~nobody"), ext("expand-path@openssh.com", "~daemon/x"), ext("expand-path@openssh.com", "~0"),
	}}})
}

// Random conversations over few names, so that they meet.
func TestRandomConversations(t *testing.T) {
	const count = 60
	var cs []conversation
	for seed := range count {
		cs = append(cs, conversation{name: fmt.Sprintf("renamed or not, by seed %d", seed), steps: randomSteps(newRand(uint64(seed)), 300)})
	}
	compare(t, cs)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(14, seed)) }

func randomSteps(r *rand.Rand, n int) []step {
	names := []string{"a", "b", "c", "d", "d/a", "d/b", "e", "e/a", "link", "dirlink/x", "file", "dir", "dir/inner", "emptydir", "emptydir/a", "../tree/a", "./b", "nowrite/x", "dangling"}
	name := func() string { return names[r.IntN(len(names))] }
	hd := func() string { return h(r.IntN(7) - 1) }
	off := func() uint64 { return []uint64{0, 1, 5, 100, 1000, 65536}[r.IntN(6)] }
	at := func() attrs {
		return attrs{flags: uint32(r.IntN(16)), size: uint64(r.IntN(2000)), uid: testUID, gid: testUID, perm: []uint32{0o644, 0o700, 0o755, 0o1777, 0, 0o444}[r.IntN(6)], atime: r.Uint32(), mtime: uint32(r.IntN(1000000000))}
	}
	var l []step
	for range n {
		var s step
		switch r.IntN(27) {
		case 0, 1, 2:
			flags := r.IntN(64)
			s = req(typeOpen, name(), flags, at())
		case 3:
			s = req(typeClose, hd())
		case 4, 5:
			s = req(typeRead, hd(), off(), r.IntN(3000))
		case 6, 7, 8:
			s = req(typeWrite, hd(), off(), strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(300)))
		case 9:
			s = req(typeLstat, name())
		case 10:
			s = req(typeFstat, hd())
		case 11:
			s = req(typeSetstat, name(), at())
		case 12:
			s = req(typeFsetstat, hd(), at())
		case 13:
			s = req(typeOpendir, name())
		case 14:
			s = req(typeReaddir, hd())
		case 15:
			s = req(typeRemove, name())
		case 16, 17:
			s = req(typeMkdir, name(), at())
		case 18:
			s = req(typeRmdir, name())
		case 19:
			s = req(typeRealpath, name())
		case 20:
			s = req(typeRename, name(), name())
		case 21:
			s = req(typeSymlink, name(), name())
		case 22:
			s = ext("posix-rename@openssh.com", name(), name())
		case 23:
			s = ext("hardlink@openssh.com", name(), name())
		case 24:
			s = ext("copy-data", hd(), off(), uint64(r.IntN(70000)), hd(), off())
		case 25:
			s = ext("lsetstat@openssh.com", name(), at())
		case 26:
			s = req(typeReadlink, name())
		}
		l = append(l, s)
	}
	return l
}

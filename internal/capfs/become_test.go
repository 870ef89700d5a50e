package capfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/internal/becomerecord"
	"p9auth/test/manual"
)

// These tests run become without the file system, from a file that holds what
// would be served. As root has all capabilities anyway, it works for root.

// A machine is one that become can be run for here.
type machine struct {
	goarch, cc string
	run        []string // what runs the program, if this machine does not
}

func runnable() []machine {
	list := []machine{{runtime.GOARCH, "cc", nil}}
	if runtime.GOARCH == "amd64" {
		list = append(list, machine{"arm64", "aarch64-linux-gnu-gcc", []string{"qemu-aarch64"}})
	}
	return list
}

// TestTheFileIsOfAFewKilobytesForEachMachine also prints how many.
func TestTheFileIsOfAFewKilobytesForEachMachine(t *testing.T) {
	forEachMachine(t, func(t *testing.T, m machine) {
		p := programFor(t, m)
		t.Logf("become for %s has %d bytes of code", m.goarch, len(p.code))
		if len(p.code) > 8<<10 {
			t.Errorf("%d bytes", len(p.code))
		}
	})
}

func forEachMachine(t *testing.T, f func(*testing.T, machine)) {
	for _, m := range runnable() {
		t.Run(m.goarch, func(t *testing.T) {
			for _, p := range append([]string{m.cc}, m.run...) {
				if _, err := exec.LookPath(p); err != nil {
					t.Skip(err)
				}
			}
			f(t, m)
		})
	}
}

var programs = map[string]program{} // by architecture, once they are built

func programFor(t *testing.T, m machine) program {
	t.Helper()
	if p, ok := programs[m.goarch]; ok {
		return p
	}
	file := filepath.Join(t.TempDir(), "become")
	c := exec.Command("../become/build", file)
	c.Env = append(os.Environ(), "CC="+m.cc)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProgram(b, m.goarch)
	if err != nil {
		t.Fatal(err)
	}
	programs[m.goarch] = p
	return p
}

// image writes become with a record to a file that anybody can execute.
func image(t *testing.T, m machine, r becomerecord.Record) (command []string) {
	t.Helper()
	record, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "become")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	file := dir + "/become"
	if err == nil {
		err = os.WriteFile(file, programFor(t, m).with(record), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return append(slices.Clone(m.run), file)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to become others")
	}
}

// shell is what a bound grant of the tests does.
func shell(script string) *becomerecord.Bound {
	return &becomerecord.Bound{
		Dir: "/", Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
		Umask: 0o27, FDs: []uint32{0, 1, 2},
	}
}

func TestBecomeDoesWhatTheRecordSaysOnEachMachine(t *testing.T) {
	needRoot(t)
	forEachMachine(t, func(t *testing.T, m machine) {
		b := shell(`echo "$0 $*"; id -u; id -g; id -G; umask; pwd; echo $HOME; grep -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status; ulimit -Sn; ulimit -Hn; cat /proc/self/loginuid`)
		b.Argv = append(b.Argv, "name", "a b", "")
		b.Dir, b.Env = "/usr", []string{"HOME=/usr", "PATH=/usr/bin:/bin"}
		b.Limits = map[int]becomerecord.Limit{unix.RLIMIT_NOFILE: {Soft: 61, Hard: 200}}
		command := image(t, m, becomerecord.Record{UID: 2000, Groups: []uint32{2001, 2002}, LoginUID: true, Bound: b})
		out, err := exec.Command(command[0], append(command[1:], "", "/bin/echo", "the", "redeemer's")...).CombinedOutput()
		want := "name a b \n2000\n2001\n2001 2002\n0027\n/usr\n/usr\nCapInh:	0000000000000000\nCapPrm:	0000000000000000\nCapEff:	0000000000000000\nCapAmb:	0000000000000000\n61\n200\n2000"
		if err != nil || string(out) != want {
			t.Errorf("got %s, %v\nwant %s", out, err, want)
		}
	})
}

func TestBecomeSaysWhyItDoesNothing(t *testing.T) {
	needRoot(t)
	m := runnable()[0]
	unbound := becomerecord.Record{UID: 2000, Groups: []uint32{2000}}
	from1500, bound := unbound, unbound
	from1500.From = 1500
	bound.Bound = shell("echo done")
	with := func(r becomerecord.Record, change func(*becomerecord.Bound)) becomerecord.Record {
		b := *bound.Bound
		change(&b)
		r.Bound = &b
		return r
	}
	as1500 := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
	for _, c := range []struct {
		name   string
		record becomerecord.Record
		args   []string
		proc   *syscall.SysProcAttr
		want   string
		code   int
	}{
		{"another user", from1500, nil, nil, "the grant is for another user than runs this", 126},
		{"another user without rights", unbound, nil, as1500, "the grant is for another user than runs this", 126},
		{"no capabilities", from1500, []string{"", "/bin/true", "true"}, as1500, "the kernel gave no capabilities; is this process traced?", 126},
		{"no arguments", unbound, nil, nil, "usage: served by factotum, see capuse(4)", 126},
		{"no argv[0]", unbound, []string{"", "/bin/true"}, nil, "usage: served by factotum, see capuse(4)", 126},
		{"a limit that is none", unbound, []string{"nproc=1", "", "/bin/true", "true"}, nil, "nproc=1 is no limit", 126},
		{"a limit that is too large", unbound, []string{"stack=1:18446744073709551616", "", "/bin/true", "true"}, nil, "stack=1:18446744073709551616 is no limit", 126},
		{"a soft limit above the hard one", unbound, []string{"nproc=2:1", "", "/bin/true", "true"}, nil, "set a resource limit: invalid argument", 126},
		{"no directory", unbound, []string{"/no/such", "/bin/true", "true"}, nil, "cannot enter /no/such: no such file or directory", 127},
		{"root's directory", unbound, []string{"/root", "/bin/true", "true"}, nil, "cannot enter /root: permission denied", 126},
		{"no program", unbound, []string{"", "/no/such", "x"}, nil, "cannot execute /no/such: no such file or directory", 127},
		{"a program that is a directory", unbound, []string{"", "/usr", "x"}, nil, "cannot execute /usr: permission denied", 126},
		{"no program, bound", with(bound, func(b *becomerecord.Bound) { b.Path = "/no/such" }), nil, nil, "cannot execute /no/such: no such file or directory", 127},
		{"no directory, bound", with(bound, func(b *becomerecord.Bound) { b.Dir = "/no/such" }), nil, nil, "cannot enter /no/such: no such file or directory", 127},
		{"no root", with(bound, func(b *becomerecord.Bound) { b.Root = &becomerecord.Root{Path: "/no/such"} }), nil, nil, "cannot open the root directory /no/such: no such file or directory", 127},
		{"a root that is a file", with(bound, func(b *becomerecord.Bound) { b.Root = &becomerecord.Root{Path: "/usr/bin/env"} }), nil, nil, "cannot open the root directory /usr/bin/env: not a directory", 126},
		{"a root that is a symbolic link", with(bound, func(b *becomerecord.Bound) { b.Root = &becomerecord.Root{Path: "/proc/self/cwd"} }), nil, nil, "cannot open the root directory /proc/self/cwd: not a directory", 126},
		{"another root", with(bound, func(b *becomerecord.Bound) { b.Root = &becomerecord.Root{Path: "/usr", Ino: 1} }), nil, nil, "another directory has taken the place of /usr", 126},
		{"no program, with a root", with(bound, func(b *becomerecord.Bound) { b.Root, b.Path = &becomerecord.Root{Path: "/usr"}, "/no/such" }), nil, nil, "cannot open /no/such: no such file or directory", 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := image(t, m, c.record)
			cmd := exec.Command(command[0], append(command[1:], c.args...)...)
			cmd.SysProcAttr = c.proc
			out, _ := cmd.CombinedOutput()
			if want := "become: " + c.want + "\n"; string(out) != want || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("status %d, %q\nwant %d, %q", cmd.ProcessState.ExitCode(), out, c.code, want)
			}
		})
	}
}

func TestBecomeRefusesNoNewPrivs(t *testing.T) {
	needRoot(t)
	command := image(t, runnable()[0], becomerecord.Record{UID: 2000, Groups: []uint32{2000}, Bound: shell("id")})
	out, _ := exec.Command("setpriv", append([]string{"--no-new-privs"}, command...)...).CombinedOutput()
	if string(out) != "become: no_new_privs is set, so the kernel gives no capabilities\n" {
		t.Errorf("got %s", out)
	}
}

func TestADamagedRecordDoesNothing(t *testing.T) {
	needRoot(t)
	command := image(t, runnable()[0], becomerecord.Record{UID: 2000, Groups: []uint32{2000}, Bound: shell("id")})
	file := command[len(command)-1]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte("/bin/sh\x00\x00\x00\x00sh"))
	b[i] = 'b'
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(file).CombinedOutput(); string(out) != "become: the grant in this file is damaged\n" {
		t.Errorf("got %s", out)
	}
	// A record that ends early: what is behind it in memory must not be taken for it.
	if err := os.Truncate(file, int64(len(b)-1)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(file).CombinedOutput(); err == nil {
		t.Errorf("got %s", out)
	}
}

func Test65536GroupsAreSet(t *testing.T) {
	needRoot(t)
	groups := make([]uint32, becomerecord.MaxGroups)
	for i := range groups {
		groups[i] = uint32(100000 + i)
	}
	forEachMachine(t, func(t *testing.T, m machine) {
		command := image(t, m, becomerecord.Record{UID: 2000, Groups: groups, Bound: shell("id -G | wc -w; id -g")})
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil || string(out) != "65536\n100000\n" {
			t.Errorf("got %s, %v", out, err)
		}
	})
}

// jail makes a directory below one that only its owner, root, may search, and a
// static program outside of it, that says what it sees: its uid, its directory,
// whether it is inside, and its descriptors, those of /dev/null with an n, those of
// a terminal's master with a t and the terminal's owner. It says so on descriptor 3
// if it has an argument.
func jail(t *testing.T) (dir, look string) {
	t.Helper()
	top, err := os.MkdirTemp("", "jail")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	os.Chmod(top, 0o755)
	look, dir = top+"/look", top+"/closed/root"
	if err := errors.Join(os.Mkdir(top+"/closed", 0o700), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	const src = `
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int out = argc > 1 ? 3 : 1, fd;
	char dir[100];
	struct stat st;
	dprintf(out, "%d %s %s", getuid(), getcwd(dir, sizeof dir), access("/bin/sh", F_OK) ? "inside" : "outside");
	for (fd = 0; fd < 1000; fd++) {
		int peer = ioctl(fd, TIOCSPTLCK, &(int){ 0 }) ? -1 : ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY);
		if (peer >= 0) {
			fstat(peer, &st);
			close(peer);
			dprintf(out, " %dt%d", fd, st.st_uid);
		} else if (fstat(fd, &st) == 0)
			dprintf(out, " %d%s", fd, S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3) ? "n" : "");
	}
	dprintf(out, "\n");
	return 0;
}
`
	c := exec.Command("cc", "-static", "-O", "-x", "c", "-o", look, "-")
	c.Stdin = strings.NewReader(src)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir, look
}

func TestTheRootDirectoryIsChanged(t *testing.T) {
	needRoot(t)
	m := runnable()[0]
	dir, look := jail(t)
	root := rootAt(t, dir)
	terminals := *root
	terminals.PTYs = 2
	for _, c := range []struct {
		name string
		set  func(*becomerecord.Bound)
		want string
	}{
		// The program has itself open, after the descriptors of the record.
		{"", func(b *becomerecord.Bound) { b.Root = root }, "2000 / inside 0n 1 2 3\n"},
		{"and there are terminals", func(b *becomerecord.Bound) { b.Root = &terminals; b.FDs = append(b.FDs, 3) },
			"2000 / inside 0n 1 2 3 4 5t2000 6t2000\n"},
		{"not at all", func(b *becomerecord.Bound) {}, "2000 / outside 0n 1 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := shell("")
			b.Path, b.Argv = look, []string{"look"}
			c.set(b)
			command := image(t, m, becomerecord.Record{From: 1500, UID: 2000, Groups: []uint32{2000}, Bound: b})
			// Not as root, whose change of uids takes all capabilities away.
			if err := unix.Setxattr(command[0], "security.capability", (&file{caps: requiredCaps | rootCap}).capability(), 0); err != nil {
				t.Fatal(err)
			}
			d, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			cmd := exec.Command(command[0])
			cmd.ExtraFiles = []*os.File{d}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1500, Gid: 1500}}
			if out, _ := cmd.CombinedOutput(); string(out) != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

// rootAt is the root directory dir.
func rootAt(t *testing.T, dir string) *becomerecord.Root {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return &becomerecord.Root{Path: dir, Dev: st.Dev, Ino: st.Ino}
}

// steps are the system calls of a run of become, each with how often in a row.
func steps(t *testing.T, r becomerecord.Record, args ...string) []string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	command := append([]string{"strace", "-f", "-o", log}, append(image(t, runnable()[0], r), args...)...)
	if r.Bound != nil && r.Bound.Context != "" {
		command = append([]string{"unshare", "-m", "sh", "-c", contexts + `exec "$@"`, "-"}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	runErr := cmd.Run()
	b, err := os.ReadFile(log)
	if err != nil || runErr != nil {
		t.Fatalf("%v, %v: %s", runErr, err, b)
	}
	var list []string
	last, n := "", 0
	flush := func() {
		if n > 1 {
			last += fmt.Sprintf(" x%d", n)
		}
		if n > 0 {
			list = append(list, last)
		}
	}
	call := regexp.MustCompile(`^\d+ +(\w+)\((?:(PR_\w+|KEYCTL_\w+))?`)
	calls := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, l := range calls {
		m := call.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("strace says %q", l)
		}
		name := m[1]
		if m[2] != "" {
			name += " " + m[2]
		}
		if i == 0 { // strace's, of become
			continue
		}
		if name == last {
			n++
			continue
		}
		flush()
		last, n = name, 1
		if strings.HasPrefix(name, "execve") {
			break
		}
	}
	flush()
	return list
}

// TestTheSystemCallsAreThoseOfCapuse4 in this order, and there are no others.
func TestTheSystemCallsAreThoseOfCapuse4(t *testing.T) {
	needRoot(t)
	displays := manual.Displays(t, "capuse.4", "System calls of become")
	if len(displays) != 1 {
		t.Fatal("capuse.4 has no list of system calls")
	}
	// A line has a call, and what it is for: nothing means always.
	var always, unbound, bound, rooted, modules []string
	for _, l := range strings.Split(strings.TrimSuffix(displays[0], "\n"), "\n") {
		call, when, _ := strings.Cut(l, "\t")
		call = strings.Join(strings.Fields(strings.ReplaceAll(call, `\(mu`, "x")), " ")
		switch {
		case when == "":
			always = append(always, call)
			unbound, bound, rooted, modules = append(unbound, call), append(bound, call), append(rooted, call), append(modules, call)
		case strings.HasPrefix(when, "unbound"):
			unbound = append(unbound, call)
		case strings.HasPrefix(when, "bound"):
			bound, rooted, modules = append(bound, call), append(rooted, call), append(modules, call)
		case strings.HasPrefix(when, "terminal"):
			bound = append(bound, call)
		case strings.HasPrefix(when, "no root"):
			unbound, bound, modules = append(unbound, call), append(bound, call), append(modules, call)
		case strings.HasPrefix(when, "root"):
			rooted = append(rooted, call)
		case strings.HasPrefix(when, "login uid"), strings.HasPrefix(when, "limits"):
			unbound, bound, rooted = append(unbound, call), append(bound, call), append(rooted, call)
		case slices.Contains([]string{"audit", "mounts", "context", "keyring", "capabilities"}, when):
			modules = append(modules, call)
		default:
			t.Errorf("%q: when?", when)
		}
	}
	if len(always) < 10 {
		t.Errorf("%q is always called: too few", always)
	}
	r := becomerecord.Record{UID: 2000, Groups: []uint32{2000}, LoginUID: true}
	got := steps(t, r, "nproc=1000:1000", "stack=8388608:8388608", "/", "/bin/true", "true")
	if !slices.Equal(got, unbound) {
		t.Errorf("unbound: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(unbound, "\n"))
	}
	r.Bound = shell("exit 0")
	r.Bound.Limits = map[int]becomerecord.Limit{unix.RLIMIT_NPROC: {Soft: 1000, Hard: 1000}}
	null := rootAt(t, os.DevNull) // stands for a terminal
	r.Bound.TTY = &becomerecord.TTY{Dev: null.Dev, Ino: null.Ino}
	if got := steps(t, r); !slices.Equal(got, bound) {
		t.Errorf("bound: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(bound, "\n"))
	}
	r.LoginUID, r.Bound.TTY, r.Bound.Limits, r.Bound.Dir = false, nil, nil, ""
	r.Bound.Process = becomerecord.Process{Context: "a:b:c", Keyring: "_ses.steps", Mounts: worker(t), Inheritable: 1 << unix.CAP_KILL, Ambient: 1 << unix.CAP_KILL, TTYAudit: 1}
	r.Bound.Mounts.Path = "/mnt" + strings.TrimPrefix(r.Bound.Mounts.Path, "/proc")
	if got := steps(t, r); !slices.Equal(got, modules) {
		t.Errorf("with what modules set: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(modules, "\n"))
	}
	r.LoginUID, r.Bound.Process, r.Bound.Dir = true, becomerecord.Process{}, "/"
	r.Bound.Limits = map[int]becomerecord.Limit{unix.RLIMIT_NPROC: {Soft: 1000, Hard: 1000}}
	dir, look := jail(t)
	r.Bound.Root, r.Bound.Path, r.Bound.TTY = rootAt(t, dir), look, nil
	r.Bound.Root.PTYs = 2
	if got := steps(t, r); !slices.Equal(got, rooted) {
		t.Errorf("with a root directory: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(rooted, "\n"))
	}
}

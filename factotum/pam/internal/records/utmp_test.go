package records

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func tool(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return string(out)
}

func file(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSizes(t *testing.T) {
	if n := binary.Size(onDisk{}); n != size {
		t.Errorf("struct utmp has %d bytes", n)
	}
	if n := binary.Size(lastlogOnDisk{}); n != lastlogSize {
		t.Errorf("struct lastlog has %d bytes", n)
	}
}

// What util-linux reads is what was written.
func TestLastAndWhoReadIt(t *testing.T) {
	path := file(t)
	at := time.Now().Add(-time.Hour)
	r := Record{Type: UserProcess, PID: os.Getpid(), Line: "pts/77", ID: "s/77", User: "alice", Host: "192.0.2.7", Time: at}
	if err := Append(path, r); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "who", path); !strings.HasPrefix(out, "alice") || !strings.Contains(out, "pts/77") || !strings.Contains(out, "(192.0.2.7)") {
		t.Errorf("who: %s", out)
	}
	if _, err := exec.LookPath("utmpdump"); err != nil {
		t.Skip("Debian 13 has no utmpdump, and a last that does not read wtmp")
	}
	dump := tool(t, "utmpdump", path)
	for _, want := range []string{"[7]", "[alice", "[pts/77", "[192.0.2.7", "[s/77]", "[192.0.2.7      ]"} {
		if !strings.Contains(dump, want) {
			t.Errorf("utmpdump has no %s: %s", want, dump)
		}
	}
	if err := Append(path, Record{Type: DeadProcess, PID: os.Getpid(), Line: "pts/77", ID: "s/77", Time: at.Add(10 * time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "last", "-w", "-f", path); !strings.Contains(out, "alice") || !strings.Contains(out, "(00:10)") {
		t.Errorf("last: %s", out)
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	r := Record{Type: UserProcess, PID: 1 << 22, Line: strings.Repeat("l", 32), ID: "abcd", User: strings.Repeat("u", 32),
		Host: strings.Repeat("h", 256), SID: 77, Time: time.Unix(1<<30, 999999000)}
	if got := decode(r.encode()); got != r {
		t.Errorf("%+v", got)
	}
}

// Terminals of SSH have one process, and come and go while it lasts.
func TestATerminalOfSSHTakesThePlaceOfOneThatIsOver(t *testing.T) {
	path := file(t)
	put := func(pid int, line string) {
		t.Helper()
		l := Login{SSH: true, TTY: line}
		r := Record{Type: UserProcess, PID: pid, Line: line, ID: l.recordID(), User: "alice", Time: time.Now()}
		if err := Put(path, r, false); err != nil {
			t.Fatal(err)
		}
	}
	put(10, "pts/1")
	put(10, "pts/2")
	if _, err := End(path, is(10), "pts/1", time.Now()); err != nil {
		t.Fatal(err)
	}
	put(12, "pts/1")
	all := Since(path, 0)
	if len(all) != 2 || all[0].PID != 12 || all[0].Type != UserProcess || all[1].PID != 10 || all[1].Type != UserProcess || all[1].Line != "pts/2" {
		t.Errorf("%+v", all)
	}
	put(13, "pts/11")
	if n := len(Since(path, 0)); n != 3 {
		t.Errorf("%d records of three that are logged in", n)
	}
}

// A console's login may have left its terminal, and its record not be ended yet.
func TestATerminalOfSSHEndsItsOwnRecordFirst(t *testing.T) {
	p := places(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	console := Login{Places: p, TTY: "/dev/pts/1", PID: ended.Process.Pid}
	console.enter(console.BeforeEnd(), time.Now())
	ssh := Login{Places: p, SSH: true, TTY: "/dev/pts/1", User: "alice"}
	ssh.BeginTerminal(time.Now())
	for _, c := range []struct {
		login Login
		left  []int
	}{{ssh, []int{console.PID}}, {console, nil}} {
		c.login.End(c.login.BeforeEnd(), time.Now())
		var left []int
		for _, r := range Since(p.Utmp, 0) {
			if r.Type == UserProcess {
				left = append(left, r.PID)
			}
		}
		if !slices.Equal(left, c.left) {
			t.Errorf("utmp has %v, not %v", left, c.left)
		}
	}
}

func TestPutReplacesAndEndMarks(t *testing.T) {
	path := file(t)
	for _, r := range []Record{
		{Type: LoginProcess, PID: 3, Line: "ttyS0", ID: "tyS0", User: "LOGIN"},
		{Type: UserProcess, PID: 2, Line: "tty1", ID: "1", User: "bob"},
		{Type: UserProcess, PID: 3, Line: "ttyS0", ID: "S0", User: "alice\x1b[2J"}, // its getty's
		{Type: UserProcess, PID: 9, Line: "pts/1", ID: "1", User: "carol"},         // not bob's
	} {
		r.Time = time.Now()
		if err := Put(path, r, true); err != nil {
			t.Fatal(err)
		}
	}
	all := Since(path, 0)
	if len(all) != 3 || all[0].User != "alice?[2J" || all[0].ID != "tyS0" || all[1].User != "bob" || all[2].User != "carol" || Size(path) != 3*size {
		t.Fatalf("%+v", all)
	}
	for _, o := range []struct {
		pid  int
		line string
	}{{99, "ttyS0"}, {2, "ttyS0"}, {3, "ttyS0"}, {3, "ttyS0"}} {
		if _, err := End(path, is(o.pid), o.line, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if all := Since(path, 0); all[0].Type != DeadProcess || all[0].User != "" || all[0].ID != "tyS0" || all[1].Type != UserProcess || all[2].Type != UserProcess {
		t.Errorf("%+v", all)
	}
}

func TestLastlog(t *testing.T) {
	path := file(t)
	if l, err := LastLogin(path, 1001); err != nil || !l.Time.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	want := Last{"pts/3", "host.example", time.Unix(1700000000, 0)}
	if err := SetLastLogin(path, 1001, want); err != nil {
		t.Fatal(err)
	}
	if l, err := LastLogin(path, 1001); err != nil || l != want {
		t.Errorf("%+v, %v", l, err)
	}
	if l, _ := LastLogin(path, 1000); !l.Time.IsZero() {
		t.Errorf("somebody else's: %+v", l)
	}
}

func TestAMissingFileIsNotMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if err := Append(path, Record{}); err != nil {
		t.Error(err)
	}
	if err := Put(path, Record{}, true); err != nil {
		t.Error(err)
	}
	if err := SetLastLogin(path, 1, Last{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made")
	}
}

// A user who holds a lock for ever holds up nothing for ever.
func TestALockIsNotWaitedForForEver(t *testing.T) {
	path := file(t)
	c := exec.Command("python3", "-c", "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)", path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	b := make([]byte, 4)
	if _, err := out.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, Record{}); err == nil || !strings.Contains(err.Error(), "another process holds a lock") {
		t.Errorf("%v", err)
	}
}

// Whatever is in the file, it is read without harm.
func FuzzDecode(f *testing.F) {
	f.Add(Record{Type: UserProcess, Line: "a", User: "b", Host: "::1", Time: time.Unix(1, 0)}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := decode(append(b, make([]byte, size)...)[:size])
		if len(r.Line) > 32 || len(r.User) > 32 || len(r.Host) > 256 || len(r.ID) > 4 {
			t.Errorf("%+v", r)
		}
	})
}

// Whatever a stranger is called and comes from, who(1) and last(1) print
// nothing that a terminal obeys.
func FuzzEncode(f *testing.F) {
	f.Add("pts/1", "alice", "::1")
	f.Add("pts/1", "\x1b]0;x\x07", "\u009b2J")
	f.Add("\x9b2J", "a\x00b", "192.0.2.1\n")
	f.Fuzz(func(t *testing.T, line, user, host string) {
		b := Record{Type: LoginProcess, Line: line, User: user, Host: host}.encode()
		if len(b) != size {
			t.Fatalf("%d bytes", len(b))
		}
		r := decode(b)
		for _, s := range []string{r.Line, r.User, r.Host} {
			for i, c := range s {
				// A letter that is cut in two at the end of a field is no control.
				if c < ' ' || c >= 0x7f && c < 0xa0 || c == utf8.RuneError && s[i] >= 0x80 && s[i] < 0xa0 {
					t.Errorf("%q", s)
				}
			}
		}
	})
}

func is(pid int) func(int) bool { return func(p int) bool { return p == pid } }

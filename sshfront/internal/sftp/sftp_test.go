package sftp

import (
	"bufio"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestArguments(t *testing.T) {
	o, err := Parse([]string{"-R", "-u", "027", "-d", "/srv/%u", "-f", "AUTH", "-l", "ERROR"})
	if err != nil || !o.readOnly || o.umask != 0o27 || o.dir != "/srv/%u" || o.level != failed {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = Parse([]string{"-eRlinfo", "-Premove,fsync", "-p", "open,read,remove", "-flocal7", "--"})
	if err != nil || !o.stderr || !o.readOnly || o.level != info {
		t.Errorf("%+v, %v", o, err)
	}
	for i := range requests {
		want := map[string]permission{"open": listed, "read": listed, "remove": readOnly}
		r := &requests[i]
		w, ok := want[r.name]
		if !ok && r.writes {
			w = readOnly
		} else if !ok {
			w = unlisted
		}
		if got := o.permission(r); got != w {
			t.Errorf("%s: %v, want %v", r.name, got, w)
		}
	}
	if o, err := Parse([]string{"-c", "anything -x"}); err != nil || o.readOnly {
		t.Errorf("-c: %+v, %v", o, err)
	}
	for _, bad := range [][]string{
		{"-u", "9"}, {"-u", "-1"}, {"-u", "1000"}, {"-u", ""}, {"-x"}, {"word"}, {"-"}, {"--", "word"}, {"-P", "nothing"}, {"-P", ""}, {"-P", "open,,read"}, {"-P", "open", "-P", "read"}, {"-l", "loud"}, {"-f", "KERN"}, {"-d"}, {"-d", "/%x"}, {"-h"}, {"-Q", "ciphers"},
	} {
		if err := Check(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := Check([]string{"-Q", "requests"}); err == nil {
		t.Error("-Q serves nothing, but is taken")
	}
	if n := len(RequestNames()); n != 29 {
		t.Errorf("%d names of requests", n)
	}
}

func TestLinesForSyslogAreOpenSSHs(t *testing.T) {
	devLog = filepath.Join(t.TempDir(), "log")
	defer func() { devLog = "/dev/log" }()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: devLog, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o, err := Parse([]string{"-l", "DEBUG3", "-f", "LOCAL1"})
	if err != nil {
		t.Fatal(err)
	}
	log := newLogger(&o, nil)
	log.printf(info, "open \"%s\"", "é\n")
	log.printf(failed, "no")
	log.printf(debug2, "more")
	log.printf(fatal, "%s", strings.Repeat("x", 600))
	for _, want := range []string{
		`<142>... .. ..:..:.. internal-sftp\[\d+\]: open "\\303\\251\\n"`, `<139>.{15} internal-sftp\[\d+\]: error: no`, `<143>.{15} internal-sftp\[\d+\]: debug2: more`, `<138>.{15} internal-sftp\[\d+\]: fatal: x{493}`,
	} {
		b := make([]byte, 1000)
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(b)
		if err != nil || !regexp.MustCompile("^"+want+"$").Match(b[:n]) {
			t.Errorf("%q, %v; want %s", b[:n], err, want)
		}
	}
}

// answering answers lookups.
type answering struct {
	asked   []string
	answers map[string]string
	r       *strings.Reader
}

func (a *answering) Write(b []byte) (int, error) {
	q := strings.TrimSuffix(string(b), "\n")
	a.asked = append(a.asked, q)
	a.r = strings.NewReader(a.answers[q] + "\n")
	return len(b), nil
}

func (a *answering) Read(b []byte) (int, error) {
	if a.r == nil {
		return 0, io.EOF
	}
	return a.r.Read(b)
}

func TestNamesThatAreNotInFilesAreAskedFor(t *testing.T) {
	a := &answering{answers: map[string]string{"passwd 4000": "carol:x:4000:4000::/home/carol:/bin/sh", "group 4000": "staff2:x:4000:", "passwd carol": "carol:x:4000:4000::/home/carol:/bin/sh", "passwd 4001": "mallory:x:0:0::/:", "passwd 77": "x:x:77:"}}
	n := names{ask: a, answers: bufio.NewReader(a)}
	for range 2 { // the second time from memory
		if u, g := n.user(4000), n.group(4000); u != "carol" || g != "staff2" {
			t.Errorf("%q, %q", u, g)
		}
		if u := n.user(4001); u != "4001" {
			t.Errorf("an answer about another uid is taken: %q", u)
		}
		if u := n.user(0); u != "root" {
			t.Errorf("root is %q", u)
		}
	}
	if h, ok := n.home("carol"); h != "/home/carol" || !ok {
		t.Errorf("%q, %v", h, ok)
	}
	for _, bad := range []string{"", "-s", "a b", "a\nb", "a:b", "nobody2"} {
		if h, ok := n.home(bad); ok {
			t.Errorf("%q has the home %q", bad, h)
		}
	}
	if got := strings.Join(a.asked, "; "); got != "passwd 4000; group 4000; passwd 4001; passwd carol; passwd nobody2" {
		t.Errorf("asked: %s", got)
	}
}

func TestSourcesOfNames(t *testing.T) {
	for conf, want := range map[string]bool{
		"passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\nshadow: files\nhosts: files dns\n": false, "passwd: files sss\n": true, "group:\tfiles ldap # x": true, "#passwd: ldap\n": false, "": false,
	} {
		if needNames(conf) != want {
			t.Errorf("%q: %v", conf, !want)
		}
	}
}

func TestDatesAsListed(t *testing.T) {
	time.Local = time.UTC
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC).Unix()
	for at, want := range map[int64]string{
		now: "Nov 28 12:00", now + 1: "Nov 28  2026", now - halfYear + 1: "May 30 00:00", now - halfYear: "May 30  2026", 0: "Jan  1  1970", -62135596800: "Jan  1  1",
		253402300799: "Dec 31  9999", 253402300800: "", -62167219201: "Dec 31  -1",
	} {
		if got := string(appendDate(nil, at, now)); got != want {
			t.Errorf("%d: %q, want %q", at, got, want)
		}
	}
}

// What a client asked for before its connection broke is done; what it was
// told is true.
func TestKilledClient(t *testing.T) {
	b := newBase(t)
	b.build(t)
	s := runPeer(t, ours(t), b.dir, 0)
	s.send(hello())
	s.receive()
	s.send(packet(typeOpen, 1, "new", openWrite|openCreate, attrs{}))
	s.receive()
	const n = 50
	for i := range uint64(n) {
		s.send(packet(typeWrite, int(i), h(0), i*1000, strings.Repeat("d", 1000)))
	}
	half := packet(typeWrite, 99, h(0), uint64(n*1000), strings.Repeat("d", 1000))
	s.send(half[:500])
	s.in.Close()
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the server goes on")
	}
	if data, err := os.ReadFile(filepath.Join(b.dir, "new")); err != nil || len(data) != n*1000 {
		t.Errorf("%d bytes are there, %v", len(data), err)
	}
	// One that does not read its replies any more, either.
	s = runPeer(t, ours(t), b.dir, 0)
	s.send(hello())
	s.receive()
	s.send(packet(typeOpen, 1, "/dev/zero", openRead, attrs{}))
	s.receive()
	for range 100 {
		s.send(packet(typeRead, 1, h(0), uint64(0), 200000))
	}
	s.out.Close()
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the server waits for a client that is gone")
	}
}

// A killed server has done what it acknowledged.
func TestKilledServer(t *testing.T) {
	b := newBase(t)
	b.build(t)
	s := runPeer(t, ours(t), b.dir, 0)
	s.send(hello())
	s.receive()
	s.send(packet(typeOpen, 1, "new", openWrite|openCreate, attrs{}))
	s.receive()
	go func() {
		for i := range uint64(1000) {
			s.send(packet(typeWrite, int(i), h(0), i*1000, strings.Repeat("d", 1000)))
		}
	}()
	acknowledged := 0
	for {
		r, err := s.receive()
		if err != nil {
			break
		}
		if string(r[5:9]) != "\x00\x00\x00\x00" {
			t.Fatalf("%q", r)
		}
		if acknowledged++; acknowledged == 300 {
			s.cmd.Process.Kill()
		}
	}
	if data, err := os.ReadFile(filepath.Join(b.dir, "new")); err != nil || len(data) < acknowledged*1000 || strings.Trim(string(data), "d") != "" {
		t.Errorf("%d writes were acknowledged, %d bytes are there, %v", acknowledged, len(data), err)
	}
}

// A client that writes all its requests before it reads a reply is served, up
// to a bound.
func TestRepliesWaitForAClientThatWritesFirst(t *testing.T) {
	b := newBase(t)
	b.build(t)
	s := runPeer(t, ours(t), b.dir, 0)
	const n = 20000 // of replies, half a megabyte
	// So that a server that waits is seen soon.
	s.in.SetWriteDeadline(time.Now().Add(30 * time.Second))
	s.send(hello())
	for i := range n {
		if i%5000 == 4999 {
			time.Sleep(50 * time.Millisecond) // it has read all, and may think that this is all
		}
		s.send(packet(typeStat, i, "missing"))
	}
	s.receive()
	for i := range n {
		r, err := s.receive()
		if err != nil || string(r[1:5]) != h(i) {
			t.Fatalf("reply %d: %q, %v", i, r, err)
		}
	}
}

// No request that reads or writes data allocates.
func TestDataIsNotCopied(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(Options{level: failed}, Account{Name: "x"}, "", logger{level: failed}, names{})
	s.serve(hello()[4:])
	s.serve(packet(typeOpen, 1, f.Name(), openRead|openWrite, attrs{})[4:])
	write, read := packet(typeWrite, 1, h(0), uint64(0), strings.Repeat("d", 32768))[4:], packet(typeRead, 1, h(0), uint64(0), 32768)[4:]
	if n := testing.AllocsPerRun(100, func() {
		s.out = s.out[:0]
		s.serve(write)
		s.serve(read)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if len(s.out) < 32768 {
		t.Errorf("%d bytes of replies", len(s.out))
	}
}

// FuzzPackets: whatever a client sends, there is one reply to each request that
// sftp-server answers, memory is bounded, and nothing panics.
func FuzzPackets(f *testing.F) {
	var all []byte
	for _, s := range requestsForTest() {
		f.Add(append(hello(), s.req...))
		all = append(all, s.req...)
	}
	f.Add(append(hello(), all...))
	for _, s := range randomSteps(newRand(1), 60) {
		all = append(all, s.req...)
	}
	f.Add(append(hello(), all...))
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	dir := f.TempDir()
	// Names that a fuzzer finds must not reach anything else.
	if w := flag.Lookup("test.fuzzworker"); w != nil && w.Value.String() == "true" {
		if err := unix.Chroot(dir); err != nil {
			f.Fatal("chroot (fuzzing needs root): ", err)
		}
		dir = "/"
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.Chdir(dir); err != nil {
			t.Fatal(err)
		}
		os.WriteFile("file", []byte("0123456789"), 0o666)
		s := newServer(Options{level: debug3}, Account{Name: "x", Home: "/"}, "", logger{level: debug3, stderr: io.Discard}, names{})
		defer func() {
			for i := range s.handles.all {
				if s.handles.all[i].kind != unused {
					s.handles.close(i)
				}
			}
		}()
		for len(b) > 0 {
			n := copy(s.in[s.fill:], b[:min(len(b), 1+len(b)/3)])
			b = b[n:]
			s.fill += n
			for {
				p, err := s.next()
				if err != nil {
					return
				}
				if p == nil {
					break
				}
				if !safe(p) {
					continue
				}
				before := len(s.out)
				id := fields{b: p[1:]}
				want := id.u32()
				answered := p[0] == typeInit || p[0] == typeExtended || byType[p[0]] != 0
				if err := s.serve(p); err != nil {
					if len(s.out) != before && p[0] != typeInit {
						t.Fatalf("a packet that ended the session was answered: %q", p)
					}
					return
				}
				out := fields{b: s.out[before:]}
				if !answered {
					if len(out.b) != 0 {
						t.Fatalf("type %d was answered", p[0])
					}
					continue
				}
				r := fields{b: out.bytes()}
				if out.err != nil || len(out.b) != 0 {
					t.Fatalf("%q: not one reply: %q", p, s.out[before:])
				}
				if r.take(1); p[0] != typeInit && r.u32() != want {
					t.Fatalf("%q: the reply has another id", p)
				}
				if len(s.out) > outMax {
					s.out = s.out[:0]
				}
			}
			s.start, s.fill = 0, copy(s.in, s.in[s.start:s.fill])
		}
	})
}

// safe keeps a fuzzer from waiting for the other end of a FIFO, of which there
// is none, and from filling the disk.
func safe(p []byte) bool {
	f := fields{b: p[1:]}
	f.u32()
	switch p[0] {
	case typeSetstat:
		f.text()
	case typeFsetstat:
		f.bytes()
	case typeWrite:
		f.bytes()
		return f.u64() < 1<<24
	case typeExtended:
		return string(f.bytes()) != "copy-data"
	default:
		return true
	}
	a := f.attrs()
	return a.size < 1<<24
}

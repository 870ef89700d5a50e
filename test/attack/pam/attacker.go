// Package pam attacks factotum's pam verbs as a front end that somebody has taken
// over. The attacker is a program: the test's own, which runs in the testbed as
// the user of a front end, on a terminal of its own, and speaks the rpc as it
// likes. It ends with a panic where factotum gives it what it must not have.
//
// Attacker is that program; Start, WantHarmless and Attack run it. They are
// exported for the tests of test/daemon, which need an attacker too.
package pam

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// attacks are what the attacker can be told to do.
var attacks = map[string]func(args []string){
	"out-of-turn":     outOfTurn,
	"read-waits":      readWaits,
	"malformed":       malformed,
	"descriptors":     descriptors,
	"no-terminal":     noTerminal,
	"preauth":         preauth,
	"late-preauth":    latePreauth,
	"loses-terminal":  losesTerminal,
	"leaves":          leaves,
	"hoards":          hoards,
	"knocks":          knocks,
	"stranger":        stranger,
	"hand-over":       handOver,
	"root-hands-over": rootHandsOver,
	"send-on-3":       sendOn3,
	"give-socket":     giveSocket,
	"take-socket":     takeSocket,
	"forged":          forged,
	"dies":            dies,
	"never-reads":     neverReads,
	"too-slow":        tooSlow,
	"too-many":        tooMany,
	"attempts":        attempts,
	"hundred-grand":   hundredGrand,
	"log-in":          logIn,
	"orphan":          orphan,
	"converse":        converse,
	"stalls":          stalls,
	"asks":            asks,
	"refused":         refused,
	"loses-late":      losesLate,
	"loses-open":      losesOpen,
	"hostile-file":    hostileFile,
	"hostile-passer":  hostilePasser,
	"reaches":         reaches,
	"bound":           bound,
	"environment":     environment,
	"elsewhere":       elsewhere,
	"taps":            taps,
}

// violations counts the protocol violations that factotum must have logged.
var violations int

// version is that of the rpc.
var version = strconv.Itoa(capproto.Version)

// Attacker carries out the attack that args[0] names, with the rest as its
// arguments. It prints how many violations of the protocol factotum must have
// logged.
func Attacker(args []string) {
	f, ok := attacks[args[0]]
	if !ok {
		panic("no such attack: " + args[0])
	}
	f(args[1:])
	fmt.Printf("violations=%d\nas it should be\n", violations)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A talk is a conversation.
type talk struct {
	*capproto.Conn
	in string // a state, or what else says where it is
}

func dial() *talk {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: testbed.RPC, Net: "unixpacket"})
	must(err)
	must(c.SetDeadline(time.Now().Add(60 * time.Second)))
	return &talk{capproto.NewConn(c, capproto.MaxReply), "idle"}
}

// hear receives a reply.
func (t *talk) hear() capproto.Msg {
	p, err := t.Recv()
	if err != nil {
		panic(fmt.Sprintf("in %s: %v", t.in, err))
	}
	if len(p.Files) != 0 {
		panic("a reply with a descriptor")
	}
	return p.Msg
}

// ask sends a request that factotum ought to grant.
func (t *talk) ask(verb string, nameValue ...string) capproto.Msg {
	must(t.Send(capproto.NewMsg(verb, nameValue...)))
	m := t.hear()
	if m.Verb == capproto.VerbError {
		panic(fmt.Sprintf("%s in %s: %s", verb, t.in, m.Get("text")))
	}
	return m
}

// wantEnd checks that factotum answers with an error of that code and then
// closes the conversation.
func (t *talk) wantEnd(what, code string) {
	m := t.hear()
	if m.Verb != capproto.VerbError || m.Get("code") != code || m.Get("text") == "" {
		panic(fmt.Sprintf("%s in %s: %s code=%s text=%q, not an error of code %s", what, t.in, m.Verb, m.Get("code"), m.Get("text"), code))
	}
	if p, err := t.Recv(); !errors.Is(err, io.EOF) {
		panic(fmt.Sprintf("after %s in %s: %s, %v; not the end", what, t.in, p.Verb, err))
	}
	t.Close()
}

// violate sends what factotum must take for a violation.
func (t *talk) violate(m capproto.Msg, files ...*os.File) {
	must(t.Send(m, files...))
	t.wantEnd(m.Verb, capproto.CodeProtocol)
	violations++
}

// to leads a conversation to a state, with the right password.
func to(state string) *talk {
	t := dial()
	step := func(name string, f func()) bool {
		f()
		t.in = name
		return name == state
	}
	_ = state == "idle" ||
		step("talking", func() { t.ask("start", "version", version, "proto", "pam", "user", "alice") }) ||
		step("asked", func() {
			if m := t.ask("read"); m.Get("style") != "echo-off" {
				panic("no question for the password")
			}
		}) ||
		step("answered", func() { t.ask("write", "data", testbed.Password) }) ||
		step("proven", func() {
			if m := t.ask("read"); m.Verb != capproto.VerbDone {
				panic("not proven: " + m.Get("text"))
			}
		}) ||
		step("opening", func() { t.ask("session") }) ||
		step("open", func() {
			if m := t.ask("read"); m.Verb != capproto.VerbDone {
				panic("not open: " + m.Get("text"))
			}
		})
	return t
}

// outOfTurn asks for everything in each state in which it may not be asked
// for.
func outOfTurn([]string) {
	pam := []string{"version", version, "proto", "pam", "user", "bob"}
	verbs := map[string][]string{
		"start": pam, "read": nil, "write": {"data", "x"}, "session": nil, "authinfo": nil, "ticket": nil,
		"sign": {"key", "AAAA", "alg", "ssh-ed25519", "hash", "sha256", "transcript", "AAAA"}, "nonce": nil,
		"auth":    {"user", "alice", "method", "none"},
		"environ": {"env", "TERM=x"}, "exec": nil, "ok": nil, "done": nil, "prompt": nil, "opened": {"user", "alice"}, "attach": {"ticket", "x"},
	}
	allowed := map[string]string{
		"idle": "start attach environ", "talking": "read", "asked": "write", "proven": "session", "opening": "read", "open": "authinfo",
	}
	for _, state := range []string{"idle", "talking", "asked", "proven", "opening", "open"} {
		for verb, attrs := range verbs {
			if strings.Contains(" "+allowed[state]+" ", " "+verb+" ") {
				continue
			}
			to(state).violate(capproto.NewMsg(verb, attrs...))
		}
	}
	// A ticket that was never given.
	t := dial()
	must(t.Send(capproto.NewMsg("attach", "ticket", strings.Repeat("A", 43))))
	if m := t.hear(); m.Verb != capproto.VerbError {
		panic("attached to nothing: " + m.Verb)
	} else if m.Get("code") == capproto.CodeProtocol {
		violations++
	}
}

// readWaits asks for more while factotum owes the answer to a read: it is
// answered in turn.
func readWaits([]string) {
	t := to("answered") // PAM is held there
	must(t.Send(capproto.NewMsg("read")))
	must(t.Send(capproto.NewMsg("attr")))
	fmt.Println("waiting")
	if m := t.hear(); m.Verb != capproto.VerbDone {
		panic("read: " + m.Verb)
	}
	if m := t.hear(); m.Get("state") != "proven" {
		panic("attr: " + m.Verb + m.Get("state"))
	}
	must(t.Send(capproto.NewMsg("attr")))
	must(t.Send(capproto.NewMsg("authinfo")))
	t.hear()
	t.wantEnd("authinfo", capproto.CodeProtocol)
	violations++
}

// malformed sends what is no packet, or a packet with what is not expected in
// it.
func malformed([]string) {
	start := "start version=" + version + " "
	long := strings.Repeat("a", 300)
	packets := []string{
		"\x00", " ", "START proto=pam", "start\x00proto=pam", "start  proto=pam", "start proto", "start proto=", "start =pam",
		start + "proto=pam proto=pam user=alice", start + "proto=pam user=alice user=bob", start + "proto=pam user='alice",
		start + "proto=pam user='alice'x", start + "proto=pam user=al'ice'", start + "proto=pam user=alice\n", start + "proto=pam\tuser=alice",
		start + "proto=pam user='alice\nroot'", start + "proto=pam user='al\rice'", start + "proto=pam user=" + long,
		start + "proto=pam user=alice service=su", start + "proto=pam user=alice uid=0", start + "proto=pam user=alice tty=tty1",
		start + "proto=pam user=alice preauth=no", start + "proto=pam user=alice preauth=", "start proto=", "start", "start user=alice",
		start + "proto=p9sk1 user=alice", start + "proto=PAM user=alice", "attr state=open", "attr a=b", "-", "9attr", "attr-", strings.Repeat("a", 33),
		"attr" + strings.Repeat(" a=", capproto.MaxAttrs+1),
		"attr " + strings.Repeat("a", capproto.MaxRequest),
		strings.Repeat("\xff", capproto.MaxRequest+1), strings.Repeat("'", capproto.MaxRequest),
	}
	for _, p := range packets {
		t := dial()
		t.in = strconv.Quote(p[:min(len(p), 60)])
		_, err := t.Socket().Write([]byte(p))
		must(err)
		t.wantEnd("it", capproto.CodeProtocol)
		violations++
	}
	for state, m := range map[string]capproto.Msg{
		"talking": capproto.NewMsg("read", "a", "b"), "asked": capproto.NewMsg("write", "data", "x", "data", "y"),
		"proven": capproto.NewMsg("session", "pid", "1"), "open": capproto.NewMsg("authinfo", "user", "root"),
	} {
		to(state).violate(m)
	}
	// The kernel itself keeps what is larger than a socket's buffer away.
	t := dial()
	_, err := t.Socket().Write(make([]byte, 1<<20))
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		panic(fmt.Sprintf("a packet of 1 MiB: %v", err))
	}
	t.ask("attr")
}

// descriptors sends descriptors where none are wanted, and too many.
func descriptors([]string) {
	null, err := os.Open("/dev/null")
	must(err)
	to("idle").violate(capproto.NewMsg("attr"), null)
	to("talking").violate(capproto.NewMsg("read"), null)
	to("asked").violate(capproto.NewMsg("write", "data", "x"), null)
	to("proven").violate(capproto.NewMsg("session"), null)
	to("open").violate(capproto.NewMsg("authinfo"), null)
	start := capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice")
	to("idle").violate(start, os.Stdin, os.Stdin)
	many := make([]*os.File, 100)
	for i := range many {
		many[i] = null
	}
	to("idle").violate(start, many...)
}

// noTerminal passes as a terminal what is none, or not its own.
func noTerminal([]string) {
	open := func(path string, flag int) *os.File {
		f, err := os.OpenFile(path, flag, 0)
		must(err)
		return f
	}
	master, slave, err := pty.Open()
	must(err)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	r, w, err := os.Pipe()
	must(err)
	mem, err := unix.MemfdCreate("tty", 0)
	must(err)
	for name, f := range map[string]*os.File{
		"the slave of another pty": slave, "its master": master, "a regular file": open("/etc/passwd", os.O_RDONLY),
		"a folder": open("/dev/pts", os.O_RDONLY), "a socket": os.NewFile(uintptr(fds[0]), ""), "a pipe": r, "a pipe's other end": w,
		"/dev/null": open("/dev/null", os.O_RDWR), "/dev/tty": open("/dev/tty", os.O_RDWR), "a memfd": os.NewFile(uintptr(mem), ""),
		"an O_PATH descriptor of its own": open("/proc/self/fd/0", unix.O_PATH), "another's terminal": os.NewFile(3, ""),
	} {
		t := dial()
		t.in = name
		t.violate(capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice"), f)
	}
	// Its own is accepted: what was refused above was refused for what it is.
	signal.Ignore(syscall.SIGHUP)
	dial().startHere()
}

// preauth wants to be let in without a password.
func preauth([]string) {
	t := dial()
	for _, user := range []string{"alice", "root", ""} {
		must(t.Send(capproto.NewMsg("start", "version", version, "proto", "pam", "user", user, "preauth", "yes")))
		if m := t.hear(); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			panic("preauth: " + m.Verb)
		}
	}
	if m := t.ask("attr"); m.Get("state") != "idle" || m.Get("user") != "" {
		panic("the state is " + m.Get("state"))
	}
	t.violate(capproto.NewMsg("session"))
}

// latePreauth is a login that root has started, and that somebody has taken
// over after it read something.
func latePreauth([]string) {
	made := []*talk{dial(), dial()}
	u, err := user.Lookup("_login")
	must(err)
	uid, err := strconv.Atoi(u.Uid)
	must(err)
	must(syscall.Setresuid(uid, uid, uid))
	made[0].ask("attr")
	made[1].ask("start", "version", version, "proto", "pam", "user", "alice")
	made[1].ask("read")
	made[1].ask("write", "data", "wrong")
	must(made[1].Send(capproto.NewMsg("read")))
	if m := made[1].hear(); m.Get("code") != capproto.CodeDenied {
		panic("a wrong password: " + m.Verb)
	}
	for _, t := range made {
		must(t.Send(capproto.NewMsg("start", "version", version, "proto", "pam", "user", "root", "preauth", "yes")))
		if m := t.hear(); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			panic("preauth: " + m.Verb)
		}
	}
}

// stranger is no front end at all.
func stranger([]string) {
	dial().wantEnd("the connection", capproto.CodeProtocol)
}

// handOver gives its conversation to a child, in each state.
func handOver(args []string) {
	for _, state := range []string{"idle", "asked", "proven", "opening", "open"} {
		t := to(state)
		t.ask("attr") // the conversation is this process's from here on
		f, err := t.File()
		must(err)
		verb := map[string]string{"idle": "start", "asked": "write", "proven": "session", "opening": "read", "open": "authinfo"}[state]
		self(f, "send-on-3", verb)
		violations++
	}
}

// self runs this program again with a descriptor 3.
func self(f *os.File, args ...string) {
	exe, err := os.Executable()
	must(err)
	cmd := exec.Command(exe, append([]string{"attacker"}, args...)...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	must(cmd.Run())
}

// rootHandsOver makes a connection as root and leaves it to a child that runs
// as another user.
func rootHandsOver(args []string) {
	t := dial()
	f, err := t.File()
	must(err)
	exe, err := os.Executable()
	must(err)
	argv := testbed.As(args[0], exe, "attacker", "send-on-3", "start")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	must(cmd.Run())
	violations++
}

// sendOn3 sends a request on a conversation that another process has begun.
func sendOn3(args []string) {
	c, err := capproto.FileConn(os.NewFile(3, "rpc"), capproto.MaxReply)
	must(err)
	m := capproto.NewMsg(args[0])
	switch args[0] {
	case "start":
		m.Add("version", version)
		m.Add("proto", "pam")
	case "write":
		m.Add("data", testbed.Password)
	}
	t := &talk{c, "another's hands"}
	t.violate(m)
}

// giveSocket gives a fresh connection, and then a proven conversation, to
// whoever asks for it at the socket beside this program.
func giveSocket([]string) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: "@" + meeting(), Net: "unixpacket"})
	must(err)
	fmt.Println("listening")
	for _, state := range []string{"idle", "proven", "open"} {
		t := to(state)
		f, err := t.File()
		must(err)
		c, err := ln.AcceptUnix()
		must(err)
		_, _, err = c.WriteMsgUnix([]byte(state), unix.UnixRights(int(f.Fd())), nil)
		must(err)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			must(err)
		}
	}
}

// takeSocket uses what giveSocket gives, as another uid.
func takeSocket([]string) {
	for _, verb := range []string{"start", "session", "authinfo"} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: "@" + meeting(), Net: "unixpacket"})
		must(err)
		p := make([]byte, 64)
		oob := make([]byte, 64)
		_, n, _, _, err := c.ReadMsgUnix(p, oob)
		must(err)
		cms, err := unix.ParseSocketControlMessage(oob[:n])
		must(err)
		fds, err := unix.ParseUnixRights(&cms[0])
		must(err)
		f := os.NewFile(uintptr(fds[0]), "rpc")
		rc, err := capproto.FileConn(f, capproto.MaxReply)
		must(err)
		m := capproto.NewMsg(verb)
		if verb == "start" {
			m = capproto.NewMsg(verb, "version", version, "proto", "pam", "user", "alice")
		}
		t := &talk{rc, "another user's hands"}
		t.violate(m)
		c.Close()
	}
}

// meeting is a name that the attackers of one testbed share.
func meeting() string {
	exe, err := os.Executable()
	must(err)
	return filepath.Dir(exe)
}

// forged says to be somebody else, in SCM_CREDENTIALS.
func forged([]string) {
	me := unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	for name, change := range map[string]func(*unix.Ucred){
		"root": func(c *unix.Ucred) { c.Uid = 0 }, "root's group": func(c *unix.Ucred) { c.Gid = 0 },
		"init": func(c *unix.Ucred) { c.Pid = 1 }, "the parent": func(c *unix.Ucred) { c.Pid = int32(os.Getppid()) },
	} {
		cred := me
		change(&cred)
		t := dial()
		_, _, err := t.Socket().(*net.UnixConn).WriteMsgUnix([]byte("attr"), unix.UnixCredentials(&cred), nil)
		if !errors.Is(err, unix.EPERM) {
			panic(fmt.Sprintf("to be %s: %v, not EPERM", name, err))
		}
		t.ask("attr") // nothing has arrived
	}
	t := dial()
	_, _, err := t.Socket().(*net.UnixConn).WriteMsgUnix([]byte("attr"), unix.UnixCredentials(&me), nil)
	must(err)
	if m := t.hear(); m.Verb != capproto.VerbOK {
		panic("itself: " + m.Get("text"))
	}
}

// dies asks for a session and ends at once, without a word.
func dies([]string) {
	t := to("proven")
	must(t.Send(capproto.NewMsg("session")))
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// neverReads fills factotum's answers up, and waits to be thrown out.
func neverReads([]string) {
	t := dial()
	raw, err := t.Socket().SyscallConn()
	must(err)
	n := 0
	for stuck := 0; stuck < 50; {
		var e error
		must(raw.Write(func(fd uintptr) bool {
			e = unix.Sendto(int(fd), []byte("attr"), unix.MSG_DONTWAIT, nil)
			return true
		}))
		switch e {
		case nil:
			n++
			stuck = 0
		case unix.EAGAIN:
			stuck++
			time.Sleep(10 * time.Millisecond)
		default:
			must(e)
		}
	}
	fmt.Printf("stuck after %d\n", n)
	// factotum hangs up: a socket that can be read has the answers first.
	for {
		p := []unix.PollFd{{Fd: int32(fdOf(raw)), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 60_000)
		if err == unix.EINTR {
			continue
		}
		must(err)
		if p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) == 0 {
			panic("factotum waits for ever for who never reads")
		}
		return
	}
}

func fdOf(raw syscall.RawConn) (fd uintptr) {
	raw.Control(func(f uintptr) { fd = f })
	return fd
}

// tooSlow stays in each state for as long as it may, some of them busily.
func tooSlow([]string) {
	var wg sync.WaitGroup
	failed := make(chan any, 64)
	for _, state := range []string{"idle", "talking", "asked", "proven", "opening"} {
		for _, busy := range []bool{false, true} {
			t := to(state)
			wg.Go(func() {
				defer func() {
					if e := recover(); e != nil {
						failed <- e
					}
				}()
				for busy {
					t.Send(capproto.NewMsg("attr")) // it may be over already; the answer says why
					m := t.hear()
					if m.Verb == capproto.VerbError {
						if m.Get("code") != capproto.CodeTimeout {
							panic("in " + state + ": " + m.Get("text"))
						}
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
				t.wantEnd("silence", capproto.CodeTimeout)
			})
		}
	}
	wg.Wait()
	select {
	case e := <-failed:
		panic(e)
	default:
	}
}

// tooMany begins more conversations than one uid may have.
func tooMany(args []string) {
	limit, err := strconv.Atoi(args[0])
	must(err)
	var keep []*talk
	for range limit {
		t := dial()
		t.ask("attr")
		keep = append(keep, t)
	}
	dial().wantEnd("one more", capproto.CodeLimit)
	fmt.Println("full")
	fmt.Scanln()
	runtime.KeepAlive(keep)
}

// attempts guesses until it may not guess any more.
func attempts(args []string) {
	limit, err := strconv.Atoi(args[0])
	must(err)
	t := dial()
	for range limit {
		t.ask("start", "version", version, "proto", "pam", "user", "alice")
		t.ask("read")
		t.ask("write", "data", "wrong")
		must(t.Send(capproto.NewMsg("read")))
		if m := t.hear(); m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			panic("a wrong password: " + m.Verb + m.Get("text"))
		}
	}
	must(t.Send(capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice")))
	t.wantEnd("one more", capproto.CodeLimit)
}

// startHere begins to log alice in at the attacker's own terminal. factotum hangs it
// up and returns a fresh descriptor, which takes the place of the others here.
// SIGHUP is to be ignored.
func (t *talk) startHere() {
	must(t.Send(capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice"), os.Stdin))
	p, err := t.Recv()
	must(err)
	if p.Verb != capproto.VerbOK || len(p.Files) != 1 {
		panic(fmt.Sprintf("its own terminal: %s %q, %d descriptors", p.Verb, p.Get("text"), len(p.Files)))
	}
	for fd := range 3 {
		must(unix.Dup3(int(p.Files[0].Fd()), fd, 0))
	}
	p.Close()
	must(unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
}

// losesTerminal logs in on its terminal and gives it up before the session.
func losesTerminal([]string) {
	signal.Ignore(syscall.SIGHUP) // the kernel's, to a session that loses it
	t := dial()
	t.startHere()
	t.ask("read")
	t.ask("write", "data", testbed.Password)
	t.ask("read")
	must(unix.IoctlSetInt(0, unix.TIOCNOTTY, 0))
	must(t.Send(capproto.NewMsg("session")))
	t.wantEnd("session", capproto.CodeAccount)
}

// leaves begins and leaves again while PAM is at work, as long as it may.
func leaves(args []string) {
	began := 0
	for range 20 {
		t := dial()
		m := capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice")
		if err := t.Send(m); err != nil && !errors.Is(err, syscall.EPIPE) {
			panic(err)
		}
		if m = t.hear(); m.Verb == capproto.VerbOK {
			began++
			t.ask("read")
			t.ask("write", "data", testbed.Password)
		} else if m.Get("code") != capproto.CodeLimit {
			panic(m.Get("text"))
		}
		t.Close()
	}
	fmt.Printf("began %d\n", began)
}

// hoards opens as many sessions as it can get.
func hoards(args []string) {
	limit, err := strconv.Atoi(args[0])
	must(err)
	var keep []*talk
	for range limit {
		keep = append(keep, to("open"))
	}
	t := to("proven")
	must(t.Send(capproto.NewMsg("session")))
	t.wantEnd("one more", capproto.CodeLimit)
	fmt.Println("full")
	fmt.Scanln()
	runtime.KeepAlive(keep)
}

// knocks connects very often, and is no front end.
func knocks([]string) {
	for range 5000 {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: testbed.RPC, Net: "unixpacket"})
		for errors.Is(err, syscall.EAGAIN) { // the backlog is full
			time.Sleep(time.Millisecond)
			c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: testbed.RPC, Net: "unixpacket"})
		}
		must(err)
		c.Close()
	}
}

// hundredGrand logs in and asks for very many capabilities.
func hundredGrand([]string) {
	t := to("open")
	got := 0
	for range 100_000 {
		must(t.Send(capproto.NewMsg("authinfo")))
		switch m := t.hear(); {
		case m.Verb == capproto.VerbOK:
			got++
		case m.Get("code") != capproto.CodeLimit:
			panic(m.Get("text"))
		}
	}
	fmt.Printf("got %d capabilities\n", got)
	fmt.Scanln()
}

// logIn gets as far as the state that it is told, says so, and stays.
func logIn(args []string) {
	t := to(args[0])
	fmt.Println("is " + args[0])
	fmt.Scanln()
	t.Close()
}

// orphan is proven, waits for its worker to be killed, and asks for a session.
func orphan([]string) {
	t := to("proven")
	fmt.Println("is proven")
	fmt.Scanln()
	must(t.Send(capproto.NewMsg("session")))
	m := t.hear()
	if m.Verb == capproto.VerbOK { // the news may come later
		must(t.Send(capproto.NewMsg("read")))
		m = t.hear()
	}
	if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeInternal {
		panic("a session without a worker: " + m.Verb)
	}
}

// converse logs in, answers each question with the password, and says how it
// ended and how often it was spoken to.
func converse([]string) {
	t := dial()
	t.ask("start", "version", version, "proto", "pam", "user", "alice")
	said := 0
	for {
		must(t.Send(capproto.NewMsg("read")))
		m := t.hear()
		switch {
		case m.Verb == capproto.VerbError:
			fmt.Printf("said %d, error %s: %s\n", said, m.Get("code"), m.Get("text"))
			return
		case m.Verb == capproto.VerbDone:
			fmt.Printf("said %d, done\n", said)
			return
		}
		said++
		if capproto.Style(m.Get("style")).Question() {
			t.ask("write", "data", testbed.Password)
		}
	}
}

// proves is alice, with the terminal that the attacker has.
func proves() *talk {
	signal.Ignore(syscall.SIGHUP) // the kernel's, to a session that loses its terminal
	t := dial()
	t.startHere()
	t.ask("read")
	t.ask("write", "data", testbed.Password)
	t.ask("read")
	t.ask("session")
	return t
}

// losesLate gives the terminal up while PAM opens the session.
func losesLate([]string) {
	t := proves()
	must(unix.IoctlSetInt(0, unix.TIOCNOTTY, 0))
	fmt.Println("lost")
	must(t.Send(capproto.NewMsg("read")))
	t.wantEnd("read", capproto.CodeAccount)
}

// losesOpen gives the terminal up when the session is open, and stays.
func losesOpen([]string) {
	t := proves()
	if m := t.ask("read"); m.Verb != capproto.VerbDone {
		panic(m.Verb)
	}
	must(unix.IoctlSetInt(0, unix.TIOCNOTTY, 0))
	fmt.Println("lost")
	select {}
}

// stalls passes descriptor 3, which it makes one that poll(2) would be asked
// about, in as many conversations as there may be, and waits.
func stalls([]string) {
	in := bufio.NewReader(os.Stdin)
	in.ReadByte()
	must(unix.SetNonblock(3, true))
	for range 3 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
		must(err)
		must(unix.Connect(fd, &unix.SockaddrUnix{Name: testbed.RPC}))
		must(unix.Sendmsg(fd, []byte("attr"), unix.UnixRights(3), nil, 0))
	}
	fmt.Println("sent")
	in.ReadByte()
}

// asks has many short conversations. factotum may take a moment to see that
// one has been closed, and refuse the next for their number.
func asks([]string) {
	for n := 0; n < 300; {
		t := dial()
		must(t.Send(capproto.NewMsg(capproto.VerbAttr)))
		switch m := t.hear(); {
		case m.Verb != capproto.VerbError:
			n++
		case m.Get("code") == capproto.CodeLimit:
			time.Sleep(time.Millisecond)
		default:
			panic(m.Get("text"))
		}
		t.Close()
	}
}

// refused wants to be refused for the number of its conversations.
func refused([]string) { dial().wantEnd("one more", capproto.CodeLimit) }

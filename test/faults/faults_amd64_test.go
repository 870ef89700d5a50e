package faults

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

var (
	tries = flag.Int("faults", 0, "try as many faults by each front end, at random; 0: those of few")
	each  = flag.Bool("each", false, "try one fault at each call of each kind of process, by one of the front ends, and kill each kind of process")
	only  = flag.String("fault", "", "try the faults that match this expression, such as 'login: read 3: EINTR'")
	ways  = flag.String("ways", "console ssh", "the front ends")
	show  = flag.Bool("show", false, "print each fault with what was seen and logged")
)

// few are the faults that every run of the tests tries: of each process and each error some.
var few = map[string][]string{
	"console": {
		"login: ioctl 2: EINTR", "login: read 20: killed", "login: write 8: EINTR", "become: setresuid 1: EAGAIN",
		"factotum: clone 1: EAGAIN", "factotum: recvmsg 3: killed", "worker: openat 20: EMFILE", "worker: prlimit64 2: ENOMEM", "worker: sendmsg 2: killed",
	},
	"ssh": {
		"listener: accept4 1: EMFILE", "listener: getsockname 1: ENOBUFS", "connection: getpeername 1: ENOTCONN", "listener: clone 1: EAGAIN", "listener: write 1: ENOSPC", "factotum: accept4 1: ENOMEM", "factotum: connect 1: EINTR", "listener: epoll_ctl 2: killed", "connection: seccomp 1: ENOMEM", "connection: read 20: killed",
		"connection: write 11: ENOSPC", "connection: write 20: ENOSPC", "connection: write 21: ENOSPC", "connection: read 33: EIO", "session: connect 1: EINTR", "session: write 5: EINTR", "become: keyctl 1: ENOMEM", "user: ioctl 1: EIO", "factotum: openat 5: EMFILE",
		"factotum: sendmsg 4: ENOMEM", "worker: openat 20: EIO",
	},
}

func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"faulty": faulty, "bind": testbed.Binder})
}

// A world is a bed with an injector, and how things are in it when nobody is logged in.
type world struct {
	*bed
	in   *injector
	self string
	idle state
	last fault // that was tried
}

// A state is what logins must leave as it was.
type state struct {
	processes map[string]int
	files     [2]int // descriptors of factotum and the listener
	links     [2]string
	mounts    string
	status    string // sessions, conversations, workers and capabilities
	utmp      string // who is logged in
}

func (w *world) state(t *testing.T) (s state) {
	s.processes = map[string]int{}
	for name, pids := range w.Processes() {
		s.processes[name] = len(pids)
	}
	for i, d := range []*testbed.Daemon{w.factotum, w.listener} {
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
		s.files[i], s.links[i] = len(fds), links(d.PID())
	}
	root := w.root()
	mounts, _ := os.ReadFile(filepath.Join(filepath.Dir(root), "mounts"))
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/run/") { // others on this machine take theirs away
			s.mounts += line
		}
	}
	utmp, _ := os.ReadFile(root + "/run/utmp")
	const size, user = 384, 44 // of struct utmp, see utmp(5)
	for ; len(utmp) >= size; utmp = utmp[size:] {
		if binary.LittleEndian.Uint16(utmp) == 7 { // USER_PROCESS
			name, _, _ := bytes.Cut(utmp[user:user+32], []byte{0})
			s.utmp += string(name) + " "
		}
	}
	if c, err := net.DialTimeout("unix", root+"/run/factotum/status", time.Second); err == nil {
		text, _ := io.ReadAll(c)
		c.Close()
		s.status = strings.Join(regexp.MustCompile(`(?m)^(conversations|sessions|workers|capabilities) +\d+`).FindAllString(string(text), -1), ", ")
	}
	return s
}

// diff says what is not as it was, or "".
func (s state) diff(was state) string {
	var out []string
	if !maps.Equal(s.processes, was.processes) {
		out = append(out, fmt.Sprintf("processes are %v and were %v", s.processes, was.processes))
	}
	for i, name := range []string{"factotum", "the listener"} {
		if s.files[i] > was.files[i] {
			out = append(out, fmt.Sprintf("%s has %d descriptors and had %d: %s", name, s.files[i], was.files[i], s.links[i]))
		}
	}
	if s.mounts != was.mounts {
		out = append(out, "the mounts are "+s.mounts)
	}
	if s.status != was.status {
		out = append(out, fmt.Sprintf("the status is %q", s.status))
	}
	if s.utmp != was.utmp {
		out = append(out, fmt.Sprintf("in utmp is %q", s.utmp))
	}
	return strings.Join(out, "; ")
}

// newWorld has factotum and the listener answer for their system calls to an injector.
func newWorld(t *testing.T) *world {
	w := &world{bed: up(t), in: newInjector()}
	w.self = w.Self(t)
	start := func(program, kind string) *testbed.Daemon {
		return w.Supervise(t, program, func(pid int) {
			go func() {
				if err := w.in.attach(pid, kind); err != nil {
					t.Error(err)
				}
			}()
		}, w.self, "faulty")
	}
	w.factotum = start("factotum", "factotum")
	w.factotum.Delay = 50 * time.Millisecond
	w.listener = start("sshfront", "listener")
	w.listener.Delay = 50 * time.Millisecond
	w.rest(t)
	return w
}

// login logs alice in, or somebody without a proof who says that she is alice.
func (w *world) login(t *testing.T, way string, proof bool) outcome {
	if way == "ssh" {
		if proof {
			return w.ssh("alice", "alice")
		}
		return w.ssh("alice", "bob")
	}
	password := testbed.Password
	if !proof {
		password = "wrong"
	}
	return w.console(t, "alice", password, func(pid int) {
		if err := w.in.attach(pid, "login"); err != nil {
			t.Error(err)
		}
	}, w.self, "faulty")
}

// rest has bob log in by both ways until that works, and takes the state after that for
// the one that each login must leave.
func (w *world) rest(t *testing.T) {
	t.Helper()
	if !testbed.Eventually(func() bool { return w.ssh("bob", "bob").who == "bob" }) {
		t.Fatalf("after %v: bob cannot log in by ssh: %s", w.last, w.ssh("bob", "bob"))
	}
	if o := w.console(t, "bob", testbed.Password, nil); o.who != "bob" {
		t.Fatalf("bob cannot log in at the console: %s", o)
	}
	var last string
	if !testbed.Eventually(func() bool {
		w.idle = w.state(t)
		now := fmt.Sprint(w.idle.processes, w.idle.files, w.idle.status)
		quiet := now == last && w.idle.processes["factotum-pam"] == 0 && w.idle.processes["sshfront"] == 1 && strings.Contains(w.idle.status, "conversations 0, sessions      0, workers       0")
		last = now
		time.Sleep(20 * time.Millisecond)
		return quiet
	}) {
		t.Fatalf("after %v: no rest: %v, %s, %v", w.last, w.idle.processes, w.idle.status, w.idle.links)
	}
}

// logs are what factotum and sshfront have logged.
type logs [2]string

func (w *world) logged() (l logs) {
	for i, program := range []string{"factotum", "sshfront"} {
		text, _ := os.ReadFile(filepath.Join(w.Dir, "log", program))
		l[i] = string(text)
	}
	return l
}

// since is what was logged after an earlier moment.
func (l logs) since(was logs) string { return l[0][len(was[0]):] + l[1][len(was[1]):] }

// crash matches what no log must have.
var crash = regexp.MustCompile(`panic|goroutine|fatal error|runtime error|SIG[A-Z]+:|nil pointer|a fault in factotum`)

// told says whether one to five lines of the log are of something that went wrong.
func told(said string) bool {
	n := 0
	for line := range strings.Lines(said) {
		if !strings.Contains(line, " level=INFO ") {
			n++
		}
	}
	return n >= 1 && n <= 5
}

// steps are those of a login, as counted while nothing failed.
func (w *world) steps(t *testing.T, way string) (list []step) {
	t.Helper()
	w.in.arm(nil)
	if o := w.login(t, way, true); o.who != "alice" {
		t.Fatalf("alice cannot log in: %s", o)
	}
	w.settle(t)
	_, counts := w.in.disarm()
	for s, n := range counts {
		for i := range n {
			list = append(list, step{s.kind, s.call, i + 1})
		}
	}
	slices.SortFunc(list, func(a, b step) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// stale is how long what a killed process has left may stay: factotum waits ten seconds
// for one that has redeemed to execute.
const stale = 13 * time.Second

// settle waits until all is as it was before the login, and says what is not.
func (w *world) settle(t *testing.T) string {
	var d string
	for end := time.Now().Add(stale); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if d = w.state(t).diff(w.idle); d == "" {
			return ""
		}
	}
	return d
}

// onAllThreads are the calls of syscall.AllThreadsSyscall in our programs.
var onAllThreads = map[string]bool{"landlock_restrict_self": true, "setresuid": true, "setresgid": true, "setgroups": true, "capset": true}

// faults are all that there are at those steps.
func faults(list []step) (all []fault) {
	for _, s := range list {
		all = append(all, fault{s, 0})
		if s.call == "epoll_ctl" && s.n == 1 {
			continue // the runtime's, at its start: see leftOut
		}
		if s.kind == "factotum" && s.call == "writev" {
			// An answer to the kernel's FUSE. It fails for want of nothing, and one that is
			// lost would leave the kernel waiting, until the service manager's watchdog.
			continue
		}
		if s.kind == "login" && s.call == "write" {
			all = append(all, fault{s, unix.EINTR})
			continue // else a question is lost, and login waits until LOGIN_TIMEOUT
		}
		if onAllThreads[s.call] && s.n > 1 && s.kind != "become" {
			continue // Go makes it in each thread, and ends the program if they differ
		}
		for _, e := range errnosOf(s.call) {
			// What is done between fork and exec is Go's or a PAM module's.
			if e != unix.EINTR || !strings.HasSuffix(s.kind, "child") {
				all = append(all, fault{s, e})
			}
		}
	}
	return all
}

// sample are n of the faults, as many in each kind of process as there can be.
func sample(all []fault, n int) (chosen []fault) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	rank, seen := map[fault]int{}, map[string]int{}
	for _, f := range all {
		rank[f] = seen[f.kind]
		seen[f.kind]++
	}
	slices.SortStableFunc(all, func(a, b fault) int { return rank[a] - rank[b] })
	return all[:min(n, len(all))]
}

// oneOfEach draws a fault for each call of each kind of process, and one for the end of each
// kind of process, but for those that were seen.
func oneOfEach(all []fault, seen map[step]bool) (chosen []fault) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, f := range all {
		of := step{kind: f.kind}
		if f.errno != 0 {
			of.call = f.call
		}
		if !seen[of] {
			seen[of] = true
			chosen = append(chosen, f)
		}
	}
	return chosen
}

// try has one fault happen to a login, and says what is not as it should be, or that the
// step did not come.
func (w *world) try(t *testing.T, way string, f fault, proof bool) (came bool, wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	before, starts := w.logged(), [2]int{w.factotum.Starts(), w.listener.Starts()}
	w.last = f
	w.in.arm(&f)
	o := w.login(t, way, proof)
	came, _ = w.in.disarm()
	killed := f.errno == 0 && (f.kind == "factotum" || f.kind == "listener")
	restarted := w.factotum.Starts() != starts[0] || w.listener.Starts() != starts[1]
	switch {
	case !proof && o.who != "":
		bad("somebody without a proof is in as %s", o.who)
	case o.who != "" && o.who != "alice":
		bad("alice is %s", o.who)
	case proof && o.who == "" && f.errno == unix.EINTR && f.kind != "worker" && came:
		bad("a call that was interrupted ends the login: %s", o)
	case proof && o.who == "" && !came:
		bad("alice is not in, and nothing failed: %s", o)
	}
	if o.took >= *slow-time.Second {
		bad("the login hangs: %s", o)
	}
	if restarted && !killed {
		bad("a daemon has ended")
	}
	// Another user, and what is left.
	var other outcome
	if way == "ssh" {
		other = w.ssh("bob", "bob")
	} else {
		other = w.console(t, "bob", testbed.Password, nil)
	}
	if other.who != "bob" {
		bad("another user cannot log in after that: %s", other)
	}
	var left string
	if restarted || killed {
		w.rest(t)
	} else if left = w.settle(t); left != "" {
		bad("%s", left)
		w.rest(t)
	}
	said := w.logged().since(before)
	switch {
	case !proof || o.who != "" || !came || killed || f.kind == "login", f.kind == "user's child": // the person's own
	case f.kind == "user" && strings.Contains(o.said, ": "): // the person is told, by their own process
	case way == "console" && f.kind == "become":
		// It is the person's process, which may not write to the log. It tells the
		// person, and the service manager by its status.
		if f.errno != 0 && !strings.Contains(o.said, "become: ") {
			bad("become ends without a word: %s", o)
		}
	case !told(said):
		bad("the login fails, and the log does not say why: %s", o)
	}
	if m := crash.FindString(said); m != "" {
		bad("the log has %q", m)
	}
	if *show {
		fmt.Printf("== %s %s at %q, proof %v, came %v: %s\n%s", way, f, w.in.at, proof, came, o, said)
	}
	if len(wrong) > 0 {
		wrong = append(wrong, fmt.Sprintf("at %q, the log:\n%.3000s", w.in.at, said))
	}
	return came, wrong
}

// TestAFaultAtAnyStepOfALoginHarmsThatLoginAtMost tries a few faults or those that -fault
// names; of these or of all as many as -faults says, or by -each one of each kind. One in
// four logins has no proof.
func TestAFaultAtAnyStepOfALoginHarmsThatLoginAtMost(t *testing.T) {
	w := newWorld(t)
	seen := map[step]bool{}
	for _, way := range strings.Fields(*ways) {
		all := faults(w.steps(t, way))
		kinds, total := map[string]int{}, len(all)
		for _, f := range all {
			kinds[f.kind]++
		}
		expr := regexp.MustCompile(*only)
		chosen := slices.DeleteFunc(all, func(f fault) bool { return !expr.MatchString(f.String()) })
		switch {
		case *each:
			chosen = oneOfEach(chosen, seen)
		case *tries > 0:
			chosen = sample(chosen, *tries)
		case *only == "":
			chosen = slices.DeleteFunc(chosen, func(f fault) bool { return !slices.Contains(few[way], f.String()) })
		}
		tried, good := 0, 0
		for i, f := range chosen {
			came, wrong := w.try(t, way, f, i%4 != 3)
			if !came && len(wrong) == 0 {
				continue // the runtime makes some calls more or less often
			}
			tried++
			if len(wrong) == 0 {
				good++
			} else {
				t.Errorf("%s, %s (proof: %v):\n  %s", way, f, i%4 != 3, strings.Join(wrong, "\n  "))
			}
		}
		t.Logf("%s: faults: %d tried, %d as they should be; of %d at the steps of a login: %v", way, tried, good, total, kinds)
	}
}

package faults

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

var (
	soak   = flag.Int("soak", 30, "how many logins")
	people = flag.Int("people", 4, "how many people log in at a time")
)

// A hit is a process that was killed or ended, and when. A daemon's end takes some time.
type hit struct {
	what     string
	from, to time.Time
	many     bool // more than one login may have been lost by it
}

// A visit is one login.
type visit struct {
	way, user string
	outcome
	from, to time.Time
}

// A soaking is what goes on in a soak.
type soaking struct {
	*bed
	t *testing.T

	mu     sync.Mutex
	hits   []hit
	visits []visit
}

// size is what a daemon takes: kilobytes, descriptors and threads.
type size struct{ kib, files, threads int }

func (s size) String() string {
	return fmt.Sprintf("%d KiB, %d descriptors, %d threads", s.kib, s.files, s.threads)
}

// links are what a process has open.
func links(pid int) string {
	var all []string
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		l, _ := os.Readlink(fd)
		all = append(all, l)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func sizeOf(pid int) (s size) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "VmRSS: %d", &s.kib)
		fmt.Sscanf(line, "Threads: %d", &s.threads)
	}
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	s.files = len(fds)
	return s
}

// spare is how many threads Go's runtime may make or not.
const spare = 3

// TestNoLoginIsLostThatAKillDidNotHit has people log in, again and again, by both front
// ends: first while nothing happens, then while workers, factotum and the listener are
// killed and the programs are replaced, as dpkg(1) does it.
func TestNoLoginIsLostThatAKillDidNotHit(t *testing.T) {
	b := up(t)
	b.Programs = filepath.Join(b.Dir, "bin")
	s := &soaking{bed: b, t: t}
	s.install()
	b.Write(t, "/etc/p9auth/sshd_config", "PerSourcePenalties no\nMaxStartups 1000\nPrintMotd no\nPrintLastLog no\nLoginGraceTime 30\n")
	for i := range *people {
		u := s.person(i)
		b.Sh(t, fmt.Sprintf("useradd -m -s /bin/bash %[1]s; echo %[1]s:%[2]s | chpasswd -c SHA512 -s 1000; install -d -o %[1]s -m 700 /home/%[1]s/.ssh; install -o %[1]s -m 600 %[3]s/keys/alice.pub /home/%[1]s/.ssh/authorized_keys; touch /home/%[1]s/.hushlogin", u, testbed.Password, b.Dir))
		b.signers[u] = b.signers["alice"]
	}
	b.factotum = b.Supervise(t, "factotum", nil)
	b.listener = b.Supervise(t, "sshfront", nil)
	sizes := func() [2]size { return [2]size{sizeOf(b.factotum.PID()), sizeOf(b.listener.PID())} }

	calm := max(*soak/2, 1)
	s.logIn(calm / 5) // to warm up
	s.quiet()
	before := sizes()
	s.logIn(calm - calm/5)
	s.quiet()
	after := sizes()
	testbed.Eventually(func() bool { // what the last of them leaves goes at once
		after = sizes()
		return after[0].files <= before[0].files && after[1].files <= before[1].files
	})
	for i, name := range []string{"factotum", "the listener"} {
		t.Logf("%s after %d logins: %s; after %d: %s", name, calm/5, before[i], calm, after[i])
		if after[i].files > before[i].files || after[i].threads > before[i].threads+spare || after[i].kib > before[i].kib+before[i].kib/4+2048 {
			t.Errorf("%s grows: %s, then %s: %s", name, before[i], after[i], links([]int{b.factotum.PID(), b.listener.PID()}[i]))
		}
	}

	stop := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() { s.kill(stop, *soak-calm) })
	s.logIn(*soak - calm)
	close(stop)
	killer.Wait()
	s.quiet()
	end := sizes()
	testbed.Eventually(func() bool {
		end = sizes()
		return end[0].files <= before[0].files && end[1].files <= before[1].files
	})
	t.Logf("at the end: factotum %s; the listener %s", end[0], end[1])
	for i, name := range []string{"factotum", "the listener"} {
		if end[i].files > before[i].files || end[i].threads > before[i].threads+spare {
			t.Errorf("%s after the kills has %s, and had %s", name, end[i], before[i])
		}
	}
	s.judge()
	s.records()
}

func (s *soaking) person(i int) string { return fmt.Sprintf("person%d", i) }

// install puts the programs in place as dpkg does: each is written beside the old one and
// then renamed.
func (s *soaking) install() {
	s.t.Helper()
	if err := os.MkdirAll(s.Programs, 0o755); err != nil {
		s.t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(s.Top, "bin", "*"))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("no programs: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		to := filepath.Join(s.Programs, filepath.Base(name))
		st, err := os.Stat(name)
		if err == nil {
			err = os.WriteFile(to+".dpkg-new", text, st.Mode())
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.Rename(to+".dpkg-new", to); err != nil {
			s.t.Fatal(err)
		}
	}
}

// logIn has the people log in n times, together.
func (s *soaking) logIn(n int) {
	var all sync.WaitGroup
	turns := make(chan int)
	for i := range *people {
		user := s.person(i)
		all.Go(func() {
			for n := range turns {
				v := visit{user: user, way: "ssh", from: time.Now()}
				if n%2 == 0 {
					v.way = "console"
					v.outcome = s.console(s.t, user, testbed.Password, nil)
				} else {
					v.outcome = s.ssh(user, user)
				}
				v.to = time.Now()
				s.mu.Lock()
				s.visits = append(s.visits, v)
				s.mu.Unlock()
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	all.Wait()
}

// quiet waits until nobody is logged in.
func (s *soaking) quiet() {
	s.t.Helper()
	if !testbed.Eventually(func() bool {
		p := s.Processes()
		return len(p["factotum-pam"]) == 0 && len(p["sshfront"]) == 1 && len(p["factotum"]) == 1 && len(p["login"]) == 0
	}) {
		s.t.Errorf("processes are left: %v", s.Processes())
	}
}

func (s *soaking) hit(h hit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits = append(s.hits, h)
}

// kill kills programs, and replaces all once, while about n logins happen.
func (s *soaking) kill(stop <-chan struct{}, n int) {
	began := len(s.snapshot())
	replaced := false
	half := func() bool { return !replaced && len(s.snapshot())-began > n/2 }
	for next := time.Now(); ; {
		select {
		case <-stop:
			if !replaced {
				s.t.Error("the programs were not replaced")
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		if !half() && time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(time.Duration(200+rand.IntN(800)) * time.Millisecond)
		h := hit{from: time.Now()}
		switch k := rand.IntN(10); {
		case half():
			replaced = true
			s.install()
			// As the package's postinst: each is told to end, and started again.
			h.what, h.many = "the upgrade", true
			h.from = time.Now()
			s.end(s.factotum, syscall.SIGTERM)
			s.end(s.listener, syscall.SIGTERM)
		case k == 0:
			h.what, h.many = "factotum", true
			s.end(s.factotum, syscall.SIGKILL)
		case k == 1:
			h.what, h.many = "the listener", true
			s.end(s.listener, syscall.SIGKILL)
		default:
			workers := s.Pids("factotum-pam")
			if len(workers) == 0 {
				continue
			}
			h.what = "a worker"
			if syscall.Kill(workers[rand.IntN(len(workers))], syscall.SIGKILL) != nil {
				continue
			}
		}
		h.to = time.Now()
		s.hit(h)
	}
}

// end has a daemon end, and waits until another runs.
func (s *soaking) end(d *testbed.Daemon, sig syscall.Signal) {
	starts := d.Starts()
	p, err := proc.Open(d.PID())
	if err != nil {
		return
	}
	syscall.Kill(p.PID, sig)
	if !testbed.Eventually(func() bool { return !p.Alive() }) {
		s.t.Errorf("process %d does not end", p.PID)
	}
	p.Close()
	testbed.Eventually(func() bool { return d.Starts() > starts })
}

func (s *soaking) snapshot() []visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.visits)
}

// judge says which logins were lost, and whether something hit each.
func (s *soaking) judge() {
	counts := map[string]int{}
	for _, h := range s.hits {
		counts[h.what]++
	}
	lost, unexplained := 0, 0
	spent := map[int]bool{}
	for _, v := range s.visits {
		counts[v.way]++
		if v.who == v.user {
			continue
		}
		lost++
		if v.who != "" {
			s.t.Errorf("%s is %s", v.user, v.who)
		}
		explained := slices.ContainsFunc(s.hits, func(h hit) bool { return h.many && v.overlaps(h) })
		for i, h := range s.hits {
			if !explained && !h.many && !spent[i] && v.overlaps(h) {
				explained, spent[i] = true, true
			}
		}
		if !explained {
			unexplained++
			s.t.Errorf("%s by %s is lost, and nothing hit it: %s", v.user, v.way, v.outcome)
		}
	}
	s.t.Logf("soak: %d logins (%d by console, %d by ssh); killed: %d workers, factotum %d times, the listener %d times; programs replaced %d times; %d logins hit, %d lost that nothing hit",
		len(s.visits), counts["console"], counts["ssh"], counts["a worker"], counts["factotum"], counts["the listener"], counts["the upgrade"], lost-unexplained, unexplained)
}

func (v visit) overlaps(h hit) bool {
	return v.from.Before(h.to) && v.to.Add(100*time.Millisecond).After(h.from)
}

// records compares utmp, wtmp and the log with the logins that there were.
func (s *soaking) records() {
	root := s.root()
	in := 0
	for _, v := range s.visits {
		if v.who == v.user {
			in++
		}
	}
	lost := len(s.visits) - in
	began, ended := 0, 0
	for _, e := range entries(root + "/var/log/wtmp") {
		switch e {
		case 7:
			began++
		case 8:
			ended++
		}
	}
	// A kill of a worker can cost a logout, that of a daemon the records of those who were
	// coming or going.
	excuse := 0
	for _, h := range s.hits {
		if excuse++; h.many {
			excuse += *people
		}
	}
	if began < in-excuse || began > in+lost || ended < began-excuse || ended > began {
		s.t.Errorf("wtmp has %d logins and %d logouts; there were %d logins, %d lost, and kills that may cost %d", began, ended, in, lost, excuse)
	}
	// The record of a worker that was killed stays until its terminal is used again, as that
	// of a killed sshd(8) does: who(1) leaves it out, since its process has ended.
	open, stale := inUtmp(root + "/run/utmp")
	if open > 0 || stale > excuse {
		s.t.Errorf("utmp has %d who are logged in, and %d whose process has ended, and there were kills that may cost %d", open, stale, excuse)
	}
	opened := len(regexp.MustCompile(`msg="session opened"`).FindAllString(s.Log(), -1))
	closed := len(regexp.MustCompile(`msg="session closed"`).FindAllString(s.Log(), -1))
	if opened < in || opened > in+lost {
		s.t.Errorf("the log has %d sessions opened; there were %d logins, and %d lost", opened, in, lost)
	}
	if closed < opened-excuse || closed > opened+excuse { // a killed factotum may not have said that it opened one
		s.t.Errorf("the log has %d sessions opened and %d closed, and there were kills that may cost %d", opened, closed, excuse)
	}
	pam := strings.Fields(s.Sh(s.t, "grep -c open_session /run/sessions; grep -c close_session /run/sessions"))
	s.t.Logf("records: wtmp %d logins, %d logouts; the log: %d sessions opened, %d closed; PAM: %v", began, ended, opened, closed, pam)
	if m := regexp.MustCompile(`panic|goroutine|fatal error`).FindString(s.Log()); m != "" {
		s.t.Errorf("the log has %q", m)
	}
}

// entries are the types of the records of utmp or wtmp, see utmp(5).
func entries(path string) (types []uint16) {
	text, _ := os.ReadFile(path)
	const size = 384
	for ; len(text) >= size; text = text[size:] {
		types = append(types, binary.LittleEndian.Uint16(text))
	}
	return types
}

// inUtmp is how many are logged in by a utmp file, and of how many the process has ended.
func inUtmp(path string) (open, stale int) {
	text, _ := os.ReadFile(path)
	const size, pid = 384, 4 // of struct utmp, see utmp(5)
	for ; len(text) >= size; text = text[size:] {
		switch {
		case binary.LittleEndian.Uint16(text) != 7: // USER_PROCESS
		case syscall.Kill(int(binary.LittleEndian.Uint32(text[pid:])), 0) == syscall.ESRCH:
			stale++
		default:
			open++
		}
	}
	return open, stale
}

// root is the testbed's root directory as seen from outside.
func (b *bed) root() string {
	pid, _ := os.ReadFile(filepath.Join(b.Dir, "pid"))
	return "/proc/" + strings.TrimSpace(string(pid)) + "/root"
}

package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// whole says that a test is to try all, and not a sample: make test-limits.
func whole() bool { return os.Getenv("P9AUTH_LIMITS") != "" }

// A memoryGroup bounds how many bytes of memory its processes have.
type memoryGroup struct {
	cgroup
	most, now string // files
	unbounded string // what most says where there is no bound
}

func newMemoryGroup(t *testing.T) memoryGroup {
	t.Helper()
	g := newCgroup(t, "memory")
	if _, err := os.Stat(filepath.Join(string(g), "memory.max")); err == nil {
		return memoryGroup{g, "memory.max", "memory.current", "max"}
	}
	return memoryGroup{g, "memory.limit_in_bytes", "memory.usage_in_bytes", "-1"}
}

// TestTheLackOfMemoryCostsNoMoreThanTheLoginsOfTheMoment bounds the memory of the daemons
// and of all that they start, while three people log in. The kernel kills whom it likes;
// what ends is started again, as a service manager does it. Whoever was logged in before
// stays so, nothing stray is left, and everything works once there is room again.
func TestTheLackOfMemoryCostsNoMoreThanTheLoginsOfTheMoment(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	b.Bed.Configure(t, "PerSourcePenalties no\n")
	stays := b.In(t, "bob")
	stayed := b.Pids("factotum-pam")
	g := newMemoryGroup(t)
	t.Cleanup(g.out)
	in := func(pid int) { g.write(t, "cgroup.procs", strconv.Itoa(pid)) }
	daemons := []*testbed.Daemon{b.Supervise(t, "factotum", in), b.Supervise(t, "sshfront", in)}
	for _, d := range daemons {
		d.Delay = 100 * time.Millisecond
	}
	works := func() bool { return b.tryAll(t) == [3]bool{true, true, true} }
	if !testbed.Eventually(works) {
		t.Fatal("nobody can log in")
	}
	rest := func() bool {
		return len(b.Pids("factotum-pam")) == len(stayed) && len(b.Pids("sshfront")) == 1 && len(b.Pids("factotum")) == 1
	}
	testbed.Eventually(rest)
	idle := g.number(t, g.now)
	limits := []int{idle + 1<<20, idle + 3<<20, idle + 6<<20}
	if whole() {
		limits = nil
		for n := idle; n < idle+40<<20; n += 1 << 20 {
			limits = append(limits, n)
		}
	}
	tried, worked, failed := 0, 0, 0
	for _, n := range limits {
		// What is there already may not fit: then version 1 refuses, and nothing is tried.
		if os.WriteFile(filepath.Join(string(g.cgroup), g.most), []byte(strconv.Itoa(n)), 0) != nil {
			continue
		}
		tried++
		for _, ok := range b.tryAll(t) {
			if ok {
				worked++
			} else {
				failed++
			}
		}
		g.write(t, g.most, g.unbounded)
		if !testbed.Eventually(rest) {
			t.Fatalf("at %d KiB: left is %v", n>>10, b.Processes())
		}
		if !testbed.Eventually(works) {
			t.Fatalf("at %d KiB: nobody can log in when there is room", n>>10)
		}
		testbed.Eventually(rest)
	}
	t.Logf("memory: %d limits around %d KiB: %d logins worked, %d failed; factotum was started %d times, the listener %d times", tried, idle>>10, worked, failed, daemons[0].Starts(), daemons[1].Starts())
	if failed == 0 {
		t.Error("the limits are not those that matter")
	}
	if got := stays.Run("id -un"); got != "bob" {
		t.Errorf("bob's session says %q", got)
	}
	stays.Send("exit\n")
	stays.Wait()
	b.WantNoWorker(t)
}

// room leaves a running daemon n descriptors beyond those that it has open.
func room(t *testing.T, pid, n int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("descriptors of %d: %v", pid, err)
	}
	limit := n
	used := map[int]bool{}
	for _, fd := range fds {
		i, _ := strconv.Atoi(filepath.Base(fd))
		used[i] = true
	}
	for fd := 0; fd < limit; fd++ { // one above the n-th free number
		if used[fd] {
			limit++
		}
	}
	setLimit(t, pid, uint64(limit))
}

// limitOf is how many descriptors a process may have.
func limitOf(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "Max open files %d", &n)
	}
	return n
}

// setLimit sets that, as the process could itself. Its uid need not be ours, and where
// CAP_SYS_RESOURCE is missing prlimit(2) changes no other's limit.
func setLimit(t *testing.T, pid int, n uint64) {
	t.Helper()
	var uid, gid uint32
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Uid: %d", &uid)
		fmt.Sscanf(line, "Gid: %d", &gid)
	}
	c := exec.Command("prlimit", "--pid", strconv.Itoa(pid), fmt.Sprintf("--nofile=%d:", n))
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("prlimit: %v: %s", err, out)
	}
}

// TestTheDaemonsOutliveTheLackOfDescriptors leaves factotum or the listener as many more
// as it says for a second, while three people log in. Logins may fail; the daemons live, say why, use no
// processor meanwhile, and everything works once there is room again.
func TestTheDaemonsOutliveTheLackOfDescriptors(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	b.Bed.Configure(t, "PerSourcePenalties no\n")
	b.tryAll(t) // what they open once is open
	b.WantNoWorker(t)
	const lack = "too many open files"
	for _, program := range []string{"factotum", "sshfront"} {
		pid := b.Pids(program)[0]
		before := limitOf(t, pid)
		limits := []int{0, 3}
		if whole() {
			limits = nil
			for n := range 60 {
				limits = append(limits, n)
			}
		}
		worked, failed := 0, 0
		for _, n := range limits {
			said := strings.Count(b.logs(), lack)
			ticks := processor(t, pid)
			began := time.Now()
			room(t, pid, n)
			enough := time.AfterFunc(time.Second, func() { setLimit(t, pid, before) })
			bad := 0
			for _, ok := range b.tryAll(t) {
				if ok {
					worked++
				} else {
					bad++
				}
			}
			failed += bad
			spent, took := processor(t, pid)-ticks, time.Since(began)
			enough.Stop()
			setLimit(t, pid, before)
			if spent > time.Second+took/4 {
				t.Errorf("%s with room for %d descriptors uses %v of the processor in %v", program, n, spent, took)
			}
			if lines := strings.Count(b.logs(), lack) - said; (bad > 0 || n == 0) && lines == 0 || lines > 50 {
				t.Errorf("%s with room for %d descriptors: %d logins fail, and the log has %d lines of that", program, n, bad, lines)
			}
			if !testbed.Eventually(func() bool { return b.tryAll(t) == [3]bool{true, true, true} }) {
				t.Fatalf("after %s had room for %d descriptors nobody can log in", program, n)
			}
			if p := b.Pids(program); len(p) != 1 || p[0] != pid {
				t.Fatalf("%s with room for %d descriptors has ended", program, n)
			}
			b.WantNoWorker(t)
		}
		t.Logf("descriptors: %d limits of %s: %d logins worked, %d failed", len(limits), program, worked, failed)
		if failed == 0 {
			t.Errorf("the limits of %s are not those that matter", program)
		}
	}
}

// logs are what factotum and the listener have logged.
func (b *bed) logs() string {
	listener, _ := os.ReadFile(filepath.Join(b.Dir, "log", "sshfront"))
	return b.Log() + string(listener)
}

// processor is the time that a process has spent running.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11]) // utime and stime, in 1/100 s, see proc_pid_stat(5)
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// wtmpFull matches the line about a record that could not be made.
var wtmpFull = regexp.MustCompile(`level=(ERROR|WARN).*wtmp.*no space left on device`)

// TestAFullDiskKeepsNobodyOut fills the file system of /run, /var, /etc and the homes. As with
// login(1) and sshd(8), what cannot be recorded is not; factotum says so, and people get in.
func TestAFullDiskKeepsNobodyOut(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	b.Bed.Configure(t, "PerSourcePenalties no\n")
	b.tryAll(t)
	b.WantNoWorker(t)
	pid, before := b.Factotum(t), b.Log()
	disk := filepath.Join(b.Dir, "overlay")
	// Another record of wtmp needs another page: 32 are three.
	b.Sh(t, "head -c 12288 /dev/zero >/var/log/wtmp; mount -o remount,size=$(df -k --output=used "+disk+" | tail -1 | tr -d ' ')k "+disk+`
		for d in /run /var/log /var/lib /home/alice; do dd if=/dev/zero of=$d/filler bs=4k 2>/dev/null || true; done
		! echo x >/run/probe 2>/dev/null && ! echo x >/var/log/probe 2>/dev/null && ! echo x >/home/alice/probe 2>/dev/null`)
	got := b.tryAll(t)
	said := b.Log()[len(before):]
	b.Sh(t, "mount -o remount,size=50% "+disk+"; rm /run/filler /var/log/filler")
	if got != [3]bool{true, true, true} || !wtmpFull.MatchString(said) {
		t.Errorf("full: logins %v; factotum says:\n%s", got, said)
	}
	b.WantNoWorker(t)
	if got := b.tryAll(t); got != [3]bool{true, true, true} || b.Factotum(t) != pid {
		t.Errorf("afterwards: logins %v; factotum was %d and is %d", got, pid, b.Factotum(t))
	}
}

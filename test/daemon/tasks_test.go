package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// A cgroup bounds what its processes may have together, see cgroups(7).
type cgroup string

// newCgroup makes one by a controller, such as "pids".
func newCgroup(t *testing.T, controller string) cgroup {
	t.Helper()
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(top, controller)); err == nil { // version 1
		top = filepath.Join(top, controller)
	} else if err := os.WriteFile(top+"/cgroup.subtree_control", []byte("+"+controller), 0); err != nil {
		t.Fatal(err)
	}
	g := cgroup(filepath.Join(top, fmt.Sprintf("p9auth-test-%d", os.Getpid())))
	if err := os.Mkdir(string(g), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !testbed.Eventually(func() bool { return os.Remove(string(g)) == nil }) {
			t.Errorf("%s stays: there are processes in it", g)
		}
	})
	return g
}

func (g cgroup) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(g), file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

func (g cgroup) tasks(t *testing.T) int { return g.number(t, "pids.current") }

func (g cgroup) number(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(g), file))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// out moves the processes of the group out of it.
func (g cgroup) out() {
	b, _ := os.ReadFile(filepath.Join(string(g), "cgroup.procs"))
	for _, pid := range strings.Fields(string(b)) {
		os.WriteFile(filepath.Join(filepath.Dir(string(g)), "cgroup.procs"), []byte(pid), 0)
	}
}

// limits are those that a test tries: P9AUTH_LIMITS=10-400 has each from 10 to 400.
func limits(tasks int) (list []int) {
	if whole() {
		from, to := 0, -1
		fmt.Sscanf(os.Getenv("P9AUTH_LIMITS"), "%d-%d", &from, &to)
		for n := from; n <= to; n++ {
			list = append(list, n)
		}
		return list
	}
	// One that is below what there is, some at which a login ends halfway, one with
	// room for one login and not for three.
	for _, more := range []int{-10, 2, 6, 12, 20, 30, 40, 60} {
		list = append(list, tasks+more)
	}
	return list
}

// TestTheDaemonsOutliveTheLackOfTasks bounds how many processes and threads factotum,
// the listener and all that they start may have, while three people log in. Logins may
// fail; factotum and the listener live, have no more threads than they began with, and
// everything works once there is room again.
func TestTheDaemonsOutliveTheLackOfTasks(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}} // PAM as Debian has it
	factotum, listener := b.Factotum(t), b.Pids("sshfront")[0]
	b.Bed.Configure(t, "PerSourcePenalties no\n")
	stays := b.In(t, "bob")
	g := newCgroup(t, "pids")
	t.Cleanup(g.out)
	for _, pid := range []int{factotum, listener} {
		g.write(t, "cgroup.procs", strconv.Itoa(pid))
	}
	b.tryAll(t) // whatever they make once is made
	testbed.Eventually(func() bool { return len(b.Pids("sshfront"))+len(b.Pids("factotum-pam")) == 2 })
	idle := g.tasks(t)
	in, failed, tried := 0, 0, limits(idle)
	for i, most := range tried {
		if i%30 == 29 { // where to go on if the rest is not tried
			t.Logf("below %d tasks: %d logins worked, %d failed", most, in, failed)
		}
		g.write(t, "pids.max", strconv.Itoa(most))
		for _, ok := range b.tryAll(t) {
			if ok {
				in++
			} else {
				failed++
			}
		}
		g.write(t, "pids.max", "max")
		if !testbed.Eventually(func() bool { return g.tasks(t) <= idle }) {
			t.Fatalf("at %d: there are %d tasks, and were %d: %v", most, g.tasks(t), idle, b.Processes())
		}
		if p := b.Pids("sshfront"); b.Factotum(t) != factotum || len(p) != 1 || p[0] != listener {
			t.Fatalf("at %d: factotum was %d, the listener %d: %v", most, factotum, listener, b.Processes())
		}
	}
	t.Logf("%d limits around %d tasks: %d logins worked, %d failed", len(tried), idle, in, failed)
	if failed == 0 && tried[0] < idle || in == 0 && tried[len(tried)-1] > idle+50 {
		t.Error("the limits are not those that matter")
	}
	for i, ok := range b.tryAll(t) {
		if !ok {
			t.Errorf("login %d fails when there is room", i)
		}
	}
	if got := stays.Run("id -un"); got != "bob" {
		t.Errorf("bob's session says %q", got)
	}
	stays.Send("exit\n")
	stays.Wait()
	b.WantNoWorker(t)
}

// tryAll logs in twice by ssh and once at a console, at once, and says what worked.
func (b *bed) tryAll(t *testing.T) (worked [3]bool) {
	t.Helper()
	var all sync.WaitGroup
	for i, user := range []string{"alice", "bob"} {
		all.Go(func() {
			c := exec.Command("timeout", "20", "ssh", "-F", "none", "-p", strings.TrimSpace(b.Sh(t, "cat "+b.Dir+"/ssh_port")), "-i", filepath.Join(b.Dir, "keys", user),
				"-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
				user+"@127.0.0.1", "id -un")
			out, _ := c.Output()
			worked[i] = string(out) == user+"\n"
		})
	}
	term := b.Start(t, b.Bin("login"), "--", "alice")
	ended := make(chan error, 1)
	go func() { ended <- term.Cmd.Wait() }()
	// Where the worker is killed between hanging the terminal up and opening it anew, login
	// can say nothing.
	if testbed.Eventually(func() bool {
		return strings.ContainsAny(term.Screen(), ":\n") || len(ended) > 0
	}) && strings.Contains(term.Screen(), "Password: ") {
		term.Type(testbed.Password + "\n")
	}
	term.Type("id -un >/dev/null; exit\n")
	select {
	case err := <-ended:
		worked[2] = err == nil
	case <-time.After(testbed.Patience):
		t.Errorf("login does not end: %s", term.Screen())
		term.Cmd.Process.Kill()
	}
	all.Wait()
	return worked
}

// TestADaemonWithoutRoomForItsThreadsSaysSo in one line at its start, and names the file.
func TestADaemonWithoutRoomForItsThreadsSaysSo(t *testing.T) {
	b := up(t)
	testbed.Kill(t, b.Factotum(t))
	g := newCgroup(t, "pids")
	t.Cleanup(g.out)
	g.write(t, "pids.max", "20")
	for _, program := range []string{"factotum", "sshfront"} {
		c := b.Command("sh", "-c", "echo $$ >"+string(g)+"/cgroup.procs; exec "+b.Bin(program)+map[string]string{"sshfront": " -D -e -p " + testbed.FreePort(t)}[program])
		out, err := c.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		last := lines[len(lines)-1]
		if err == nil || !strings.HasPrefix(last, program) || !strings.Contains(last, string(g)+"/pids.max") || strings.Contains(string(out), "goroutine") {
			t.Errorf("%s with room for 20 threads: %v: %s", program, err, out)
		}
	}
}

// TestEndedSessionsLeaveNoDescriptor in factotum and the listener, at once: the garbage
// collector, which closes what is forgotten, may take minutes to come.
func TestEndedSessionsLeaveNoDescriptor(t *testing.T) {
	b := &bed{&testbed.Logins{Bed: testbed.Up(t)}}
	pids := []int{b.Factotum(t), b.Pids("sshfront")[0]}
	open := func() (n [2]int) {
		for i, pid := range pids {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			n[i] = len(fds)
		}
		return n
	}
	b.tryAll(t) // whatever is opened once is open
	b.WantNoWorker(t)
	before := open()
	for range 5 {
		if got := b.tryAll(t); got != [3]bool{true, true, true} {
			t.Fatalf("logins: %v", got)
		}
	}
	b.WantNoWorker(t)
	var after [2]int
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if after = open(); after[0] <= before[0] && after[1] <= before[1] {
			return
		}
	}
	t.Errorf("descriptors of factotum and the listener: %v, and %v before 15 logins", after, before)
}

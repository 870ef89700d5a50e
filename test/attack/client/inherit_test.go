package client

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// state prints what a program has of those that started it. The shell is asked for, as
// what is inherited is its, and the descriptors that it has open.
const state = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig(Blk|Ign)|Umask|CoreDumping|Speculation)' /proc/$$/status
cat /proc/$$/limits /proc/$$/oom_score_adj /proc/$$/coredump_filter /proc/$$/uid_map
for d in cwd root ns/mnt ns/net ns/pid ns/user ns/ipc ns/uts ns/cgroup; do readlink /proc/$$/$d; done
for d in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ ! -e /proc/$$/fd/$d ] || echo "descriptor $d"; done
cut -d ' ' -f 18,19,41,42 /proc/$$/stat
`

func (p *pair) says(t *testing.T, port, script string) string {
	t.Helper()
	c, err := login(port, "alice", ssh.PublicKeys(p.key(t, "alice")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.CombinedOutput(script)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestAUsersProgramInheritsWhatItDoesFromSSHD compares a program that sshfront has
// started with one that sshd has.
func TestAUsersProgramInheritsWhatItDoesFromSSHD(t *testing.T) {
	p := up(t)
	theirs, ours := p.says(t, p.theirs, state), p.says(t, p.ours, state)
	// The 32nd signal is the C library's own. sshd leaves it as the process has it
	// that started sshd, which may ignore it.
	theirs = strings.Replace(theirs, "SigIgn:\t00000000800", "SigIgn:\t00000000000", 1)
	if !strings.Contains(ours, "descriptor 2\n") || strings.Contains(ours, "descriptor 3\n") || !strings.Contains(ours, "CapEff:\t0000000000000000\n") {
		t.Errorf("a program has\n%s", ours)
	}
	a, b := strings.Split(theirs, "\n"), strings.Split(ours, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Errorf("line %d differs:\n%q\n%q", i+1, slices.Concat(a, make([]string, len(b)))[i], slices.Concat(b, make([]string, len(a)))[i])
		}
	}
}

// TestFilesOfTheUsersSetNoVariables has variables in each file that some configuration
// reads them from, and none that ours does.
func TestFilesOfTheUsersSetNoVariables(t *testing.T) {
	p := up(t)
	p.Sh(t, `mkdir -p ~alice/.ssh
echo EVIL=ssh >~alice/.ssh/environment
echo 'EVIL DEFAULT=pam' >~alice/.pam_environment
echo 'EVIL=login' >~alice/.login_conf
chown -R alice: ~alice`)
	p.both(t, func(t *testing.T, port string) {
		if out := p.says(t, port, "env; cat /proc/self/environ | tr '\\0' '\\n'"); strings.Contains(out, "EVIL") {
			t.Errorf("the environment is %s", out)
		}
	})
}

package manual

import (
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// installed makes a command of a page one of the testbed, where the programs
// are elsewhere.
func installed(b *testbed.Bed, command string) string {
	return strings.ReplaceAll(command, "/usr/lib/p9auth", b.Top+"/bin")
}

func TestTheExampleInP9login1LogsIn(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, "bash", "--norc")
	term.Expect(`# `)
	term.Send(installed(b, Displays(t, "p9login.1", "EXAMPLES")[0]))
	term.Expect("login: ")
	term.Send("alice\n")
	term.Expect("Password: ")
	term.Send("open-sesame\n")
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("this is %s", got)
	}
	term.Send("exit\n")
	b.WantLog(t, "session closed")
	term.Expect(`# `)
}

func TestTheExampleInFactotum8ReadsTheConfiguration(t *testing.T) {
	b := testbed.Up(t)
	_, after, _ := strings.Cut(Section(t, "factotum.8", "EXAMPLES"), ".Dl ")
	command, _, _ := strings.Cut(after, "\n")
	// The testbeds of others have factotums too: take ours.
	pids := b.Pids("factotum")
	if len(pids) != 1 {
		t.Fatalf("factotums: %v", pids)
	}
	command = strings.ReplaceAll(command, "$(pidof factotum)", strconv.Itoa(pids[0]))
	b.Sh(t, "PATH="+b.Top+"/bin:$PATH\n"+command)
	b.WantLog(t, "configuration read again")
}

func TestTheExamplesInSshfront8(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "[ -e /etc/p9auth/sshd_config ] || echo AllowTcpForwarding local >/etc/p9auth/sshd_config")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	examples := regexp.MustCompile(`(?m)^\.Dl # (sshfront .*)`).FindAllStringSubmatch(Section(t, "sshfront.8", "EXAMPLES"), -1)
	if len(examples) != 3 {
		t.Fatalf("examples: %q", examples)
	}
	command := func(n int) string { return "PATH=" + b.Top + "/bin:$PATH; " + examples[n][1] }
	if out := b.Sh(t, command(0)); out != "" {
		t.Errorf("printed %s", out)
	}
	if out := b.Sh(t, command(1)); !regexp.MustCompile(`(?m)^allowtcpforwarding \w+$`).MatchString(out) {
		t.Errorf("printed %s", out)
	}
	term := b.Start(t, "sh", "-c", strings.ReplaceAll(command(2), "2222", port))
	term.Expect("Server listening on 0.0.0.0 port " + port)
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	term.Expect("Connection from 127.0.0.1 port")
	c.Close()
	if err := term.Wait(); err != nil {
		t.Error(err)
	}
}

// TestWhatToCheckInP9auth7 runs the commands of the page while alice is logged
// in by console.
func TestWhatToCheckInP9auth7(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, b.Bin("login"), "-p", "--", "alice")
	term.Expect("Password: ")
	term.Send("open-sesame\n")
	term.Expect(`\$ `)
	// As a person's shell, which goes on when a process ends before awk reads of it.
	check := func(n int) string {
		return b.Sh(t, "set +e\n"+installed(b, Displays(t, "p9auth.7", "WHAT TO CHECK")[n]))
	}

	// The machine's other processes are seen too: those of other testbeds, whose
	// become has rights for a moment.
	var rights string
	frontEnd := regexp.MustCompile(`(?m)^(login|sshfront|become) uid=[1-9]`)
	ours := func(name string) bool {
		return regexp.MustCompile(`(?m)^` + name + ` uid=0 [0-9a-f]+$`).MatchString(rights)
	}
	testbed.Eventually(func() bool {
		rights = check(0)
		return !frontEnd.MatchString(rights) && ours("factotum") && ours("factotum-pam")
	})
	for _, name := range []string{"factotum", "factotum-pam"} {
		if !ours(name) {
			t.Errorf("%s has no rights:\n%s", name, rights)
		}
	}
	if frontEnd.MatchString(rights) {
		t.Errorf("a front end has rights:\n%s", rights)
	}
	for _, n := range []int{1, 2} {
		if got := check(n); got != "" {
			t.Errorf("check %d prints %s", n, got)
		}
	}
	if got := check(3); !strings.HasPrefix(got, "fuse.p9auth ") || !strings.Contains(got, "nodev") || strings.Contains(got, "nosuid") {
		t.Errorf("the mount is %s", got)
	}
	if got := check(4); !strings.Contains(got, "FrontEnd _login login") {
		t.Errorf("front ends: %s", got)
	}
}

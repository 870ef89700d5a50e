package manual

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// TestTheQuickTasksInP9auth7 does what the first screen of the page says, but
// for what needs systemd or apt: of those lines it checks the names.
func TestTheQuickTasksInP9auth7(t *testing.T) {
	b := testbed.Up(t)
	var tasks []string
	for _, d := range Displays(t, "p9auth.7", "QUICK TASKS") {
		d = strings.ReplaceAll(d, "\\\n", " ")
		tasks = append(tasks, strings.Split(strings.TrimSpace(installed(b, d)), "\n")...)
	}
	// line is the one task that begins so.
	line := func(prefix string) string {
		t.Helper()
		i := slices.IndexFunc(tasks, func(s string) bool { return strings.HasPrefix(s, prefix) })
		if i < 0 {
			t.Fatalf("no line begins with %q:\n%s", prefix, strings.Join(tasks, "\n"))
		}
		return tasks[i]
	}
	port := strings.TrimSpace(b.Sh(t, "cat "+filepath.Join(b.Dir, "ssh_port")))
	// ssh logs a user in by key, and says whether that went well.
	ssh := func(user, port string) bool {
		return exec.Command("ssh", "-F", "none", "-n", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "IdentitiesOnly=yes", "-i", filepath.Join(b.Dir, "keys", user), "-p", port, user+"@127.0.0.1", "true").Run() == nil
	}
	reload := func() { (&testbed.Logins{Bed: b}).HUP(t, "configuration read again") }

	t.Run("status", func(t *testing.T) {
		if out := b.Sh(t, line(b.Bin("factotum")+" status")); !strings.Contains(out, "conversations") {
			t.Errorf("it prints %s", out)
		}
	})
	t.Run("check", func(t *testing.T) {
		if out := b.Sh(t, line(b.Bin("factotum")+" -t")); out != "" {
			t.Errorf("it prints %s", out)
		}
	})
	t.Run("another port", func(t *testing.T) {
		command := line("systemd-run ")
		_, args, ok := strings.Cut(command, " -p User=_sshfront "+b.Bin("sshfront")+" ")
		if !ok {
			t.Fatalf("not as _sshfront: %s", command)
		}
		trial := testbed.FreePort(t)
		args = strings.Replace(args, "-p 2222", "-p "+trial, 1)
		cmd := b.Command(testbed.As("_sshfront", append([]string{b.Bin("sshfront")}, strings.Fields(args)...)...)...)
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !testbed.Eventually(func() bool { return ssh("alice", trial) }) {
			t.Error("alice cannot log in there")
		}
		cmd.Process.Signal(syscall.SIGTERM) // as systemctl stop
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, log.String())
		}
	})
	t.Run("a group alone", func(t *testing.T) {
		saved := b.Sh(t, "cat /etc/p9auth/sshd_config")
		defer b.Sh(t, "cat >/etc/p9auth/sshd_config <<'END'\n"+saved+"END\n")
		b.Sh(t, strings.Replace(line("sed -i '1i AllowGroups "), "staff", "wizards", 1))
		reload()
		if !ssh("alice", port) {
			t.Error("alice, who is of the group, cannot log in")
		}
		if ssh("bob", port) {
			t.Error("bob, who is not of the group, logs in")
		}
		b.WantLog(t, "User bob from .* not allowed because none of user's groups are listed in AllowGroups")
	})
	t.Run("a second factor", func(t *testing.T) {
		b.Sh(t, line("sed -i '1i AuthenticationMethods "))
		reload()
		if ssh("alice", port) {
			t.Error("alice logs in by her key alone")
		}
		b.WantLog(t, "Partial publickey for alice from .* ssh2: ED25519 SHA256:")
	})
	t.Run("names", func(t *testing.T) {
		read := func(name string) string {
			s, err := os.ReadFile(filepath.Join(Top(), name))
			if err != nil {
				t.Fatal(err)
			}
			return string(s)
		}
		for _, s := range tasks {
			f := strings.Fields(s)
			switch f[0] {
			case "p9auth-switch":
				label := strings.Join(f[1:], " ")
				if c := read("dist/p9auth-switch"); !strings.Contains(c, "\n"+label+") ") && !strings.Contains(c, "\n\""+label+"\") ") {
					t.Errorf("p9auth-switch does not know %q", label)
				}
			case "systemctl":
				if f[1] == "stop" { // what systemd-run has started
					continue
				}
				for _, unit := range f[2:] {
					if !regexp.MustCompile(`\nExecReload=`).MatchString(read("dist/systemd/" + unit + ".service")) {
						t.Errorf("%s.service cannot be reloaded", unit)
					}
				}
			}
		}
	})
}

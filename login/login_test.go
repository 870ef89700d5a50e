package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

const password = "open-sesame"

// in logs a user in at a login that asks for the password, and waits for the
// shell.
func in(t *testing.T, term *testbed.Term) {
	t.Helper()
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect(`\$ `)
	term.Send("PS1='$ '\n")
	term.Expect(`\$ `)
}

func TestAgettyWithoutPrivilegesLogsIn(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, testbed.As("_login", "/sbin/agetty", "--login-program", b.Bin("login"), "-", "linux")...)
	term.Expect("login: ")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", term.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(string(status), set+":\t0000000000000000") {
			t.Errorf("agetty has rights: %s", status)
		}
	}
	term.Send("alice\n")
	in(t, term)
	shellOfAlice(t, b, term)
}

func TestAgettyAsRootLogsIn(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, "/sbin/agetty", "--login-program", b.Bin("login"), "-", "linux")
	term.Expect("login: ")
	term.Send("alice\n")
	term.Expect("Password: ")
	noRights(t, term.PID())
	term.Send(password + "\n")
	term.Expect(`\$ `)
	// Not even the connection is root's: it would be good for login -f.
	b.WantLog(t, "user authenticated\" conversation=[0-9]+ uid="+b.Sh(t, "id -u _login")+" .*user=alice")
	shellOfAlice(t, b, term)
}

// noRights checks every thread of a process.
func noRights(t *testing.T, pid int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%v", err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil {
			continue // it has ended
		}
		s := string(b)
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if !strings.Contains(s, set+":\t0000000000000000\n") {
				t.Errorf("pid %d has rights:\n%s", pid, s)
			}
		}
		if strings.Contains(s, "Uid:\t0") || !strings.Contains(s, "Groups:\t \n") {
			t.Errorf("pid %d has an id of root's or a group:\n%s", pid, s)
		}
	}
}

// shellOfAlice checks that the terminal has alice's shell, as login promises,
// and logs out.
func shellOfAlice(t *testing.T, b *testbed.Bed, term *testbed.Term) {
	t.Helper()
	id := b.Sh(t, "id alice")
	if got := term.Run("id"); got != id {
		t.Errorf("id is %s, not %s", got, id)
	}
	tty := term.Run("tty")
	if tty != term.TTY() {
		t.Errorf("tty is %s, not %s", tty, term.TTY())
	}
	if got := term.Run("echo $$"); got != fmt.Sprint(term.PID()) {
		t.Errorf("the shell is process %s, login was %d", got, term.PID())
	}
	if got := term.Run("echo $0 $HOME $SHELL $USER $LOGNAME $TERM $PWD $MAIL"); got != "-bash /home/alice /bin/bash alice alice linux /home/alice /var/mail/alice" {
		t.Errorf("environment: %s", got)
	}
	if got := term.Run("stat -c '%U %G %a' $(tty)"); got != "alice tty 600" {
		t.Errorf("the terminal is %s", got)
	}
	if got := term.Run("grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs' /proc/$$/status | tr -d '\\n\\t'"); got !=
		"CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000CapAmb:0000000000000000NoNewPrivs:0" {
		t.Errorf("the shell has %s", got)
	}
	if got := term.Run("cat /proc/self/loginuid"); got != b.Sh(t, "id -u alice") {
		t.Errorf("login uid %s", got)
	}
	// Job control: a job in the background, brought back, interrupted.
	if got := term.Run("sleep 100 & jobs | grep -c Running; kill %1; wait 2>/dev/null"); !strings.HasSuffix(got, "1") && !strings.Contains(got, "\n1\n") {
		t.Errorf("jobs: %s", got)
	}
	term.Send("sleep 100\n")
	if !testbed.Eventually(func() bool {
		return b.Sh(t, fmt.Sprintf("ps --ppid %d -o args= || true", term.PID())) == "sleep 100"
	}) {
		t.Error("no sleep")
	}
	term.Send("\x03")
	term.Send("echo status=$?\n")
	term.Expect("status=130")
	fds := term.Run("command ls -1 /proc/$$/fd")
	if strings.Join(strings.Fields(fds), " ") != "0 1 2 255" { // 255 is bash's
		t.Errorf("descriptors %s", fds)
	}
	term.Send("exit\n")
	term.Wait()
	b.WantLog(t, "session closed")
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Error("a PAM worker is left")
	}
}

func TestWhileAliceIsInOnlyFactotumAndItsWorkersHaveRights(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, b.Bin("login"), "-p", "--", "alice")
	in(t, term)
	rights := map[string]int{}
	for name, pids := range b.Processes() {
		for _, pid := range pids {
			st, err := proc.ReadStatus(pid)
			if err == nil && (st.UID == 0 || st.EUID == 0 || st.Permitted != 0) {
				rights[name]++
			}
		}
	}
	// sleep holds the testbed's namespace.
	if want := map[string]int{"factotum": 1, "factotum-pam": 1, "sleep": 1}; !maps.Equal(rights, want) {
		t.Errorf("processes with rights: %v, want %v", rights, want)
	}
}

func TestInstalledProgramsHaveNoRightsOfTheirOwn(t *testing.T) {
	b := testbed.Up(t)
	if out := b.Sh(t, "find "+b.Top+"/bin -perm /7000; getcap -r "+b.Top+"/bin"); out != "" {
		t.Errorf("setuid, setgid or file capabilities: %s", out)
	}
	for _, name := range []string{"factotum", "login", "become", "sshfront"} {
		if out := b.Sh(t, "ldd "+b.Bin(name)+" 2>&1 || true"); !strings.Contains(out, "not a dynamic executable") {
			t.Errorf("%s is not static: %s", name, out)
		}
	}
}

func TestWrongPasswordsAndUnknownUsersGetTheSame(t *testing.T) {
	b := testbed.Up(t)
	for _, name := range []string{"alice", "nobody-of-that-name"} {
		b.Sh(t, "sed -i 's/^LOGIN_RETRIES.*/LOGIN_RETRIES 3/' /etc/login.defs")
		term := b.Start(t, b.Bin("login"), "--", name)
		for try := range 3 {
			if try > 0 {
				term.Expect("login: ")
				term.Send(name + "\n")
			}
			term.Expect("Password: ")
			term.Send("wrong\n")
			term.Expect("Login incorrect")
		}
		term.Expect("maximum number of tries exceeded")
		term.Wait()
	}
	b.WantLog(t, `login refused.*user=alice.*Login incorrect`)
	b.WantLog(t, `login refused.*user=UNKNOWN.*Login incorrect`)
	// What nobody is called may be a password that was typed too early.
	if strings.Contains(b.Log(), "nobody-of-that-name") {
		t.Errorf("the log has an unknown name:\n%s", b.Log())
	}
	b.Sh(t, "echo LOG_UNKFAIL_ENAB yes >>/etc/login.defs; sed -i '/^LOG_UNKFAIL_ENAB.*no/d' /etc/login.defs")
	term := b.Start(t, b.Bin("login"), "--", "nobody-of-that-name")
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("Login incorrect")
	b.WantLog(t, `login refused.*user=nobody-of-that-name.*Login incorrect`)
}

func TestASecondTryMayBeRight(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, b.Bin("login"))
	term.Expect("login: ")
	term.Send("alice\n")
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("Login incorrect")
	term.Expect("login: ")
	term.Send("bob\n")
	in(t, term)
	if got := term.Run("id -un"); got != "bob" {
		t.Errorf("this is %s", got)
	}
}

func TestAnExpiredAccountIsRefused(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "chage -E 1 alice")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect("account has expired")
	term.Wait()
}

func TestALockedAccountIsRefused(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "passwd -l alice")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect("Login incorrect")
}

func TestAnExpiredPasswordIsChangedDuringLogin(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "chage -d 0 alice")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect("Current password: ")
	term.Send(password + "\n")
	term.Expect("New password: ")
	term.Send("Tr0ub4dor&3-horse\n")
	term.Expect("Retype new password: ")
	term.Send("Tr0ub4dor&3-horse\n")
	term.Expect(`\$ `)
	term = b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send("Tr0ub4dor&3-horse\n")
	term.Expect(`\$ `)
}

func TestNologinIsHonoured(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "echo back at noon >/etc/nologin")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("back at noon")
	term.Expect("Login incorrect")
}

func TestAMissingHomeIsSlash(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "mv /home/alice /home/gone")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect(`No directory /home/alice`)
	term.Expect(`\$ `)
	if got := term.Run("pwd; echo $HOME"); got != "/\n/" {
		t.Errorf("got %s", got)
	}
}

func TestHushloginSilencesPAM(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "touch /home/alice/.hushlogin")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	in(t, term)
	if s := term.Screen(); strings.Contains(s, "GNU/Linux") {
		t.Errorf("there is a motd: %s", s)
	}
}

func TestHushloginMayBeAListOfUsersAndShells(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "sed -i '/^HUSHLOGIN_FILE/d' /etc/login.defs; echo HUSHLOGIN_FILE /etc/hushlogins >>/etc/login.defs; chsh -s /bin/sh bob")
	for list, hushed := range map[string]map[string]bool{
		`bob\n`:           {"alice": false, "bob": true},
		`root\n/bin/bash`: {"alice": true, "bob": false},
		"":                {"alice": true, "bob": true},
	} {
		b.Sh(t, "printf '"+list+"' >/etc/hushlogins")
		for user, want := range hushed {
			term := b.Start(t, b.Bin("login"), "-f", user)
			term.Expect(`\$ `)
			if got := !strings.Contains(term.Screen(), "GNU/Linux"); got != want {
				t.Errorf("list %q: %s is hushed: %v", list, user, got)
			}
			term.Send("exit\n")
			term.Wait()
		}
	}
}

func TestThePromptAndTheNameThatIsKept(t *testing.T) {
	b := testbed.Up(t)
	host := b.Sh(t, "uname -n")
	term := b.Start(t, b.Bin("login"))
	term.Expect("^" + regexp.QuoteMeta(host) + " login: ")
	term = b.Start(t, b.Bin("login"), "-H")
	term.Expect("^login: ")
	b.Sh(t, "printf 'LOGIN_PLAIN_PROMPT yes\\nLOGIN_KEEP_USERNAME yes\\n' >>/etc/login.defs")
	term = b.Start(t, b.Bin("login"))
	term.Expect("^login: ")
	term.Send("alice\n")
	term.Expect("Password: ")
	term.Send("wrong\n")
	term.Expect("Login incorrect\r\nPassword: ")
	term.Send(password + "\n")
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("this is %s", got)
	}
}

func TestATerminalIsRootsUntilItIsTheUsers(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, append([]string{"sh", "-c", "chown _login $(tty); chmod 620 $(tty); exec \"$@\"", "sh"}, testbed.As("_login", b.Bin("login"), "alice")...)...)
	stat := func() string { return b.Sh(t, "stat -c '%U %a' "+term.TTY()) }
	for range 2 {
		term.Expect("Password: ")
		if got := stat(); got != "root 600" {
			t.Errorf("while the password is asked for it is %s", got)
		}
		term.Send("wrong\n")
		term.Expect("Login incorrect")
		term.Expect("login: ")
		if got := stat(); got != "_login 620" {
			t.Errorf("after a wrong password it is %s", got)
		}
		term.Send("alice\n")
	}
	term.Expect("Password: ")
	tty := term.TTY()
	term.Cmd.Process.Kill()
	if !testbed.Eventually(func() bool { return b.Sh(t, "stat -c '%U %a' "+tty) == "_login 620" }) {
		t.Errorf("after a login that was killed it is %s", b.Sh(t, "stat -c '%U %a' "+tty))
	}
}

func TestALineThatIsHungUpEndsLogin(t *testing.T) {
	b := testbed.Up(t)
	for _, argv := range [][]string{{b.Bin("login")}, {b.Bin("login"), "alice"}, {"sh", "-c", "trap '' HUP; exec " + b.Bin("login") + " alice"}} {
		term := b.Start(t, argv...)
		term.Expect(`(login|Password): $`)
		term.Hangup()
		if err := term.Wait(); err == nil {
			t.Errorf("%q: exit status 0", argv)
		}
	}
	b.WantLog(t, "factotum is ready")
}

func TestByHandLoginLeavesRootsShellItsTerminal(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, "/bin/bash", "--norc")
	term.Expect(`# $`)
	term.Send(b.Bin("login") + " alice\n")
	in(t, term)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("this is %s", got)
	}
	term.Send("exit\n")
	term.Expect(`# $`)
	if got := term.Run("id -un; stat -c %U $(tty)"); got != "root\nroot" {
		t.Errorf("root's shell says %q", got)
	}
}

func TestPreauthIsForRootOnly(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, b.Bin("login"), "-f", "alice")
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("this is %s", got)
	}
	term = b.Start(t, testbed.As("_login", b.Bin("login"), "-f", "alice")...)
	term.Expect("only root may")
	if err := term.Wait(); err == nil {
		t.Error("login succeeded")
	}
}

func TestAutologinIsForRootsAgetty(t *testing.T) {
	b := testbed.Up(t)
	agetty := []string{"/sbin/agetty", "--autologin", "alice", "--login-program", b.Bin("login"), "-", "linux"}
	term := b.Start(t, agetty...)
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("this is %s", got)
	}
	term = b.Start(t, testbed.As("_login", agetty...)...)
	term.Expect("only root may log in a user without a password")
	if err := term.Wait(); err == nil {
		t.Error("login succeeded")
	}
}

func TestTheHostIsRootsToSay(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, b.Bin("login"), "-h", "192.0.2.7", "--", "alice")
	in(t, term)
	b.WantLog(t, `user authenticated.*user=alice rhost=192\.0\.2\.7 `)
	term = b.Start(t, testbed.As("_login", b.Bin("login"), "-h", "192.0.2.8", "--", "bob")...)
	in(t, term)
	b.WantLog(t, `user authenticated.*user=bob rhost="" `)
}

func TestKeptEnvironment(t *testing.T) {
	b := testbed.Up(t)
	env := []string{"env", "-i", "KEEP=it's me", "TERM=vt100", "LC_TIME=C.UTF-8", "LC_BAD=/tmp", "PATH=/usr/bin:/mine", "HOME=/tmp", "EMPTY="}
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{b.Bin("login"), "-p", "-f", "alice"}, "it's me vt100 C.UTF-8 /tmp yes /home/alice"},
		{[]string{b.Bin("login"), "-p", "-h", "192.0.2.7", "--", "alice"}, "it's me vt100 C.UTF-8 /tmp yes /home/alice"},
		{[]string{b.Bin("login"), "-p"}, "it's me vt100 C.UTF-8 /tmp yes /home/alice"},
		{[]string{b.Bin("login"), "-H", "-f", "alice"}, "vt100 /home/alice"},
		{testbed.As("_login", b.Bin("login"), "-p", "--", "alice"), "vt100 C.UTF-8 /home/alice"},
		{testbed.As("_login", b.Bin("login"), "--", "alice"), "vt100 /home/alice"},
	} {
		term := b.Start(t, append(env[:len(env):len(env)], c.argv...)...)
		asked := term.Expect(`login: $|Password: $|\$ $`)
		if asked == "login: " {
			term.Send("alice\n")
			asked = term.Expect("Password: ")
		}
		if asked == "Password: " {
			term.Send(password + "\n")
			term.Expect(`\$ $`)
		}
		if got := term.Run("echo $KEEP $TERM $LC_TIME $LC_BAD ${EMPTY+yes} $HOME; echo $PATH"); !strings.HasPrefix(got, c.want+"\n") || strings.HasSuffix(got, "/mine") {
			t.Errorf("%q: %s", c.argv, got)
		}
		term.Send("exit\n")
		term.Wait()
	}
}

func TestWithoutAHomeThereMayBeNoLogin(t *testing.T) {
	b := testbed.Up(t)
	b.Sh(t, "rmdir /home/alice 2>/dev/null || mv /home/alice /home/gone; sed -i '/^DEFAULT_HOME/d' /etc/login.defs; echo DEFAULT_HOME no >>/etc/login.defs")
	term := b.Start(t, b.Bin("login"), "--", "alice")
	term.Expect("Password: ")
	term.Send(password + "\n")
	term.Expect("login: no home directory /home/alice: no such file or directory")
	if err := term.Wait(); err == nil {
		t.Error("login succeeded")
	}
	b.WantLog(t, "session closed|login refused.*no home directory")
}

// The kernel lowers the limit of the stack when it starts become, as that is a
// program with capabilities.
func TestTheStacksLimitIsAsItWasBefore(t *testing.T) {
	b := testbed.Up(t)
	term := b.Start(t, "/bin/sh", "-c", `ulimit -Hs 20000; ulimit -Ss 9000; exec "$0" -- alice`, b.Bin("login"))
	term.Expect("Password: ")
	term.Send("open-sesame\n")
	term.Expect(`\$ `)
	if got := term.Run("ulimit -Ss; ulimit -Hs"); got != "9000\n20000" {
		t.Errorf("the shell has %q", got)
	}
	term.Send("exit\n")
	term.Wait()
}

//go:build containers

package container

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// want is an error unless a text has each line, of which each is a regular expression.
func want(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !regexp.MustCompile("(?m)^" + l + "$").MatchString(got) {
			t.Errorf("no line %s in\n%s", l, got)
		}
	}
}

// prompt waits until agetty of a unit asks for a name.
func prompt(t *testing.T, m *Machine, c *testbed.Term, unit string) {
	t.Helper()
	prompts := func() int { return strings.Count(c.Screen(), " login: ") }
	asks := testbed.Eventually(func() bool {
		if m.Sh(t, "cat /proc/$(systemctl show -p MainPID --value "+unit+")/comm") != "agetty" {
			return false
		}
		n := prompts()
		c.Send("\n") // which an agetty that has just started drops
		time.Sleep(300 * time.Millisecond)
		return prompts() > n
	})
	if !asks {
		t.Fatalf("%s does not ask for a name; its screen:\n%s\n%s", unit, c.Screen(), m.Sh(t, "systemctl status --no-pager "+unit))
	}
}

// logIn logs a person in at a console, by their password.
func logIn(t *testing.T, m *Machine, c *testbed.Term, unit, user string) {
	t.Helper()
	prompt(t, m, c, unit)
	c.Send(user + "\n")
	c.Expect(`Password: $`)
	c.Send("open-sesame\n")
	c.Expect(`\$ $`)
	want(t, c.Run("id -un"), user)
}

// seen is what a user's session at a console is, without what differs between any two.
func seen(c *testbed.Term) string {
	return c.Run(`tty; who | awk '{ print $1, $2 }'; w -h >~/w; awk '{ print $1, $2, $3, /factotum[-]pam/ ? "factotum" : "theirs" }' ~/w; loginctl --no-pager show-session "$XDG_SESSION_ID" -p Name -p TTY -p Type -p Class -p Service -p Remote; cat /proc/self/cgroup | sed 's/.*0::.*session-.*scope/a scope/'; env | grep -E '^(TERM|LANG|HOME|SHELL|XDG_RUNTIME_DIR)='`)
}

// The consoles of a container, /dev/console and /dev/pts/N, are as by Debian's login,
// with w and loginctl and the terminal that PAM is told.
func TestConsolesOfAContainer(t *testing.T) {
	m := Boot(t, `sed -i '1i session optional pam_exec.so /usr/local/bin/told' /etc/pam.d/login
printf '#!/bin/sh\necho "$PAM_TYPE $PAM_TTY" >>/run/told\n' >/usr/local/bin/told
chmod 755 /usr/local/bin/told`)
	master, n := m.PTY(t)
	pts := testbed.AtTerminal(t, master)
	unit := fmt.Sprintf("container-getty@%d.service", n)
	m.Sh(t, "systemctl start "+unit)
	consoles := map[string]*testbed.Term{"console-getty.service": m.Console, unit: pts}
	visit := func() map[string]string {
		saw := map[string]string{}
		for unit, c := range consoles {
			logIn(t, m, c, unit, "bob")
			saw[unit] = seen(c)
			c.Send("exit\n")
			told := ""
			testbed.Eventually(func() bool {
				told = m.Sh(t, "cat /run/told")
				return strings.Contains(told, "close_session")
			})
			saw[unit] += "\nPAM is told " + told
			m.Sh(t, "rm /run/told")
		}
		return saw
	}
	debian := visit()
	want(t, m.Sh(t, "p9auth-switch status"), "console: off", "console-getty.service: the system's", unit+": the system's")
	m.Sh(t, "p9auth-switch console on")
	want(t, m.Sh(t, "p9auth-switch status"), "console: on", "console-getty.service: p9auth's", unit+": p9auth's")
	for u := range consoles {
		prompt(t, m, consoles[u], u)
		want(t, m.Sh(t, "stat -c %U /proc/$(systemctl show -p MainPID --value "+u+")"), "_login")
	}
	ours := visit()
	for u := range consoles {
		if ours[u] != debian[u] {
			t.Errorf("%s: by Debian's login\n%s\nby ours\n%s", u, debian[u], ours[u])
		}
		t.Log(ours[u])
	}
	m.Sh(t, "p9auth-switch console off")
	want(t, m.Sh(t, "p9auth-switch status"), "console: off", "console-getty.service: the system's")
	logIn(t, m, m.Console, "console-getty.service", "bob")
}

// What an administrator has made of consoles is so after the switch, and after the way
// back. Those where it could not be are left alone.
func TestTheSwitchOfConsolesWithDropIns(t *testing.T) {
	const asPassword, asAlice, none = "asks for a password", "lets alice in", "is left alone"
	type console struct {
		tty, file, text string
		unit            string // of getty@, if empty
		how             string
		owner           string // of agetty after the switch
		check           string // a command at the shell
		want            string // what it prints
	}
	service := func(lines string) string { return "[Service]\n" + lines + "\n" }
	exec := func(command string) string { return service("ExecStart=\nExecStart=-/sbin/agetty " + command) }
	consoles := []console{
		{tty: "tty1", how: asPassword, owner: "_login", check: "echo $TERM", want: "linux"},
		{tty: "tty2", file: "autologin.conf", text: exec(`--autologin alice --noclear %I $TERM`), how: asAlice},
		{tty: "tty3", file: "zzz-autologin.conf", text: exec(`--autologin alice --noclear %I $TERM`), how: asAlice},
		{tty: "tty4", file: "a.conf", text: exec(`-o '-p -f -- \\u' -a alice --noclear - vt220`), how: asAlice, check: "echo $TERM", want: "vt220"},
		{tty: "tty5", file: "override.conf", text: exec(`-8 --nohints -t 200 %I xterm`), how: asPassword, owner: "_login", check: "echo $TERM", want: "xterm"},
		{tty: "tty6", file: "term.conf", text: service("Environment=TERM=vt100"), how: asPassword, owner: "_login", check: "echo $TERM", want: "vt100"},
		{tty: "tty7", file: "before.conf", text: service("ExecStartPre=/bin/touch /root/before"), how: asPassword, owner: "root"},
		{tty: "tty8", file: "hard.conf", text: service("NoNewPrivileges=yes"), how: none},
		{tty: "tty9", file: "filter.conf", text: service("LockPersonality=yes"), how: none},
		{tty: "tty10", file: "zzz.conf", text: exec(`-o '-p -- \\u' %I linux`), how: none},
		{tty: "ttyS0", unit: "serial-getty@", file: "speed.conf", text: exec(`9600 %I vt102`), how: asPassword, owner: "_login", check: "echo $TERM; stty speed", want: "vt102\n9600"},
		{tty: "ttyS1", unit: "serial-getty@", how: asPassword, owner: "_login"},
	}
	// There are no device units in a container, which serial-getty@ waits for.
	m := Boot(t, `sed '/^BindsTo=/d; s/dev-%i.device//' /usr/lib/systemd/system/serial-getty@.service >/etc/systemd/system/serial-getty@.service`)
	m.Sh(t, "touch /dev/tty0")
	terms := map[string]*testbed.Term{}
	for i := range consoles {
		c := &consoles[i]
		if c.unit == "" {
			c.unit = "getty@"
		}
		c.unit += c.tty + ".service"
		terms[c.tty] = m.Terminal(t, c.tty)
		if c.file != "" {
			m.Sh(t, fmt.Sprintf("mkdir -p /etc/systemd/system/%s.d; cat >/etc/systemd/system/%[1]s.d/%s <<'END'\n%sEND", c.unit, c.file, c.text))
		}
	}
	units := ""
	for _, c := range consoles {
		units += " " + c.unit
	}
	use := func(c console, switched bool) {
		term := terms[c.tty]
		switch {
		case c.how == asAlice:
			term.Expect(`\$ $`)
			want(t, term.Run("id -un"), "alice")
			if switched {
				// Debian's login stays, as the parent of the shell; ours is the shell.
				parent := m.Sh(t, "cat /proc/$(systemctl show -p MainPID --value "+c.unit+")/comm")
				if theirs := c.file == "zzz-autologin.conf"; theirs != (parent == "login") {
					t.Errorf("%s: the service is %s", c.unit, parent)
				}
			}
		default:
			logIn(t, m, term, c.unit, "bob")
		}
		if c.check != "" {
			if got := term.Run(c.check); got != c.want {
				t.Errorf("%s: %s prints %q, not %q", c.unit, c.check, got, c.want)
			}
		}
		term.Send("exit\n")
	}
	m.Sh(t, "systemctl daemon-reload; systemctl start --no-block"+units)
	for _, c := range consoles {
		use(c, false)
	}
	dry := m.Sh(t, "p9auth-switch -n console on | tee /root/dry")
	said := m.Sh(t, "p9auth-switch console on")
	files := "cd /etc/systemd/system; grep -r . --include=zz-p9auth.conf . | sort"
	made := m.Sh(t, files)
	for _, c := range consoles {
		switch {
		case c.how == none || c.file == "zzz-autologin.conf":
			want(t, dry, "# p9auth-switch: "+c.unit+" stays as it is: .*")
			want(t, said, "p9auth-switch: "+c.unit+" stays as it is: .*")
			want(t, m.Sh(t, "p9auth-switch status"), c.unit+": the system's")
		default:
			want(t, m.Sh(t, "p9auth-switch status"), c.unit+": p9auth's")
		}
	}
	m.Sh(t, "systemctl restart --no-block"+units)
	for _, c := range consoles {
		if c.owner != "" {
			prompt(t, m, terms[c.tty], c.unit)
			want(t, m.Sh(t, "stat -c %U /proc/$(systemctl show -p MainPID --value "+c.unit+")"), c.owner)
		}
		use(c, true)
	}
	if again := m.Sh(t, "p9auth-switch console on >/dev/null; "+files); again != made {
		t.Errorf("the switch, said again, makes\n%s\nnot\n%s", again, made)
	}
	m.Sh(t, "p9auth-switch console off")
	if left := m.Sh(t, files); left != "" {
		t.Errorf("left: %s", left)
	}
	// What -n prints can be pasted.
	m.Sh(t, "sh /root/dry")
	if pasted := m.Sh(t, files); pasted != made {
		t.Errorf("what -n prints makes\n%s\nnot\n%s", pasted, made)
	}
	m.Sh(t, "p9auth-switch console off; systemctl restart --no-block"+units)
	for _, c := range consoles {
		use(c, false)
	}
}

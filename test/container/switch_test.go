//go:build containers

package container

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// accepted are the keywords whose defaults Debian's OpenSSH has other algorithms for.
const accepted = "-a hostkeyalgorithms,ciphers,kexalgorithms"

// What sshd's own configuration forbids, by its file, a drop-in, a Match or the options of
// its unit, ours forbids as well after the switch; it listens where sshd did.
func TestSSHDsOwnConfigurationHoldsAfterTheSwitch(t *testing.T) {
	m := Boot(t, `printf '%s\n' 'PasswordAuthentication no' 'PermitRootLogin no' 'AllowGroups alice wizards' 'Port 22' 'ListenAddress 127.0.0.1' 'ListenAddress 127.0.0.1:2222' >/etc/ssh/sshd_config.d/ours.conf
echo 'SSHD_OPTS="-o MaxAuthTries=3 -o ClientAliveInterval=77"' >/etc/default/ssh
mkdir -m 700 /home/bob/.ssh && cp /home/alice/.ssh/authorized_keys /home/bob/.ssh && chown -R bob: /home/bob/.ssh`)
	// factotum has started before this is written.
	m.Sh(t, `systemctl start factotum; printf '%s\n' 'Match User alice Address 127.0.0.1' ' PermitTTY no' >>/etc/ssh/sshd_config; systemctl try-restart ssh.service`)
	in := func() string {
		var all strings.Builder
		for _, args := range []string{"alice@127.0.0.1", "-p 2222 alice@127.0.0.1", "-tt alice@127.0.0.1", "bob@127.0.0.1", "root@127.0.0.1", "-o PubkeyAuthentication=no alice@127.0.0.1", "-p 22 alice@127.0.0.2"} {
			out, err := m.SSH(append(strings.Fields("-o BatchMode=yes -o IdentitiesOnly=yes "+args), "id -un; tty")...).CombinedOutput()
			fmt.Fprintf(&all, "%s: %v %s\n", args, err, strings.ReplaceAll(string(out), "\r", ""))
		}
		all.WriteString(m.Sh(t, "ss -ltnH | awk '{ print $4 }' | sort"))
		return all.String()
	}
	sshd := in()
	said := m.Sh(t, "p9auth-switch ssh on; echo status $?")
	// The options of the unit are sshd's alone.
	want(t, said, `maxauthtries +3 +6 +weaker +.*`, `status 1`)
	want(t, m.Sh(t, "p9auth-switch status"), "ssh: off")
	want(t, m.Sh(t, "printf '%s\\n' 'MaxAuthTries 3' 'ClientAliveInterval 77' >/etc/ssh/sshd_config.d/unit.conf; p9auth-switch "+accepted+" ssh on; echo status $?"), "status 0")
	if ours := in(); ours != sshd {
		t.Errorf("by sshd\n%s\nby ours\n%s", sshd, ours)
	}
	// Factotum, which says who may log in, is reloaded with sshfront.
	m.Sh(t, "echo DenyUsers alice >/etc/ssh/sshd_config.d/late.conf; systemctl reload p9auth-ssh")
	if !testbed.Eventually(func() bool {
		out, err := m.SSH("-o", "BatchMode=yes", "alice@127.0.0.1", "true").CombinedOutput()
		return err != nil && strings.Contains(string(out), "Permission denied")
	}) {
		t.Error("alice still gets in")
	}
	t.Log(said, "\n", sshd)
}

// With a configuration of its own, p9auth would let in whom sshd keeps out, or keep out
// whom it lets in. The table says so, for whom, and nothing is changed until each is named.
func TestNothingIsSwitchedWhileAnythingWouldBeWeaker(t *testing.T) {
	m := Boot(t, `printf '%s\n' 'PasswordAuthentication no' 'Match User bob' ' PasswordAuthentication yes' 'Match Group wizards' ' AllowTcpForwarding no' 'Match Address 198.51.100.0/24' ' PermitRootLogin no' >>/etc/ssh/sshd_config
printf '%s\n' 'PasswordAuthentication yes' 'DenyUsers bob' >/etc/p9auth/sshd_config`)
	before := state(t, m)
	said := m.Sh(t, "p9auth-switch "+accepted+" ssh on; echo status $?")
	want(t, said, `passwordauthentication +no +yes +weaker +.*`, `allowtcpforwarding +no +yes +weaker +user=alice,.*`, `permitrootlogin +no +\S+ +weaker +.*198\.51\.100\..*`, `denyusers +\S* +bob +shuts out +.*`, "p9auth-switch: sshfront would not do what sshd does, see above; nothing was changed", "status 1")
	if after := state(t, m); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	some := m.Sh(t, "p9auth-switch "+accepted+",passwordauthentication,allowtcpforwarding ssh on; echo status $?")
	want(t, some, "status 1")
	keywords := map[string]bool{}
	for l := range strings.Lines(said) {
		if f := strings.Fields(l); len(f) > 3 && (strings.Contains(l, " weaker ") || strings.Contains(l, " shuts out ")) {
			keywords[f[0]] = true
		}
	}
	names := ""
	for k := range keywords {
		names += "," + k
	}
	const longer = "CapabilityLifetime 60"
	refused := m.Sh(t, "systemctl start factotum; echo "+longer+" >>/etc/p9auth/factotum.conf; p9auth-switch "+accepted+names+" ssh on 2>&1; echo status $?; sed -i '/^"+longer+"/d' /etc/p9auth/factotum.conf")
	want(t, refused, `p9auth-switch: factotum: reloads 1 \(the last was refused: a change of .* needs a restart\)`, `.*; nothing was changed\..*`, "status 1")
	if after := state(t, m); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	want(t, m.Sh(t, "p9auth-switch "+accepted+names+" ssh on; echo status $?; p9auth-switch status"), "status 0", "ssh: on")
	t.Log(said, refused)
}

// What -n prints, pasted into a shell, makes of the machine what the switch makes.
func TestWhatTheSwitchPrintsCanBePasted(t *testing.T) {
	m := Boot(t, "chmod u+s /usr/bin/su /usr/bin/passwd; chmod g+s /usr/sbin/unix_chkpwd\n"+otherPorts)
	for _, part := range []string{"ssh", "console", "local"} {
		for _, way := range []string{"on", "off"} {
			other := map[string]string{"on": "off", "off": "on"}[way]
			args := accepted + " " + part + " "
			said := m.Sh(t, "p9auth-switch "+args+way+" 2>&1; echo status $?")
			want(t, said, "status 0")
			switched := state(t, m)
			want(t, m.Sh(t, "p9auth-switch "+args+other+"; echo status $?"), "status 0")
			before := state(t, m)
			printed := m.Sh(t, "p9auth-switch -n "+args+way+" >/root/dry; cat /root/dry")
			if after := state(t, m); after != before {
				t.Errorf("-n %s %s changes\n%s\nto\n%s", part, way, before, after)
			}
			// Nobody else switches six times in a minute.
			m.Sh(t, "systemctl reset-failed")
			want(t, m.Sh(t, "sh -e /root/dry >/root/out 2>&1; echo status $?; cat /root/out"), "status 0")
			if pasted := state(t, m); pasted != switched {
				t.Errorf("what -n %s %s prints makes\n%s\nnot\n%s\nit is\n%s", part, way, pasted, switched, printed)
			}
		}
		want(t, m.Sh(t, "p9auth-switch "+accepted+" "+part+" off; p9auth-switch "+accepted+" "+part+" on; echo status $?"), "status 0")
	}
}

// factotum and sshfront are found by the names of their manual pages, and shells complete
// their options and those of the switch.
func TestProgramsAreFoundAndCompleted(t *testing.T) {
	m := Boot(t, "")
	want(t, m.Sh(t, "for p in factotum sshfront p9auth-switch p9su p9doas p9passwd p9login; do command -v $p; done; factotum -V; sshfront -V"),
		"/usr/sbin/factotum\n/usr/sbin/sshfront\n/usr/sbin/p9auth-switch\n/usr/bin/p9su\n/usr/bin/p9doas\n/usr/bin/p9passwd\n/usr/bin/p9login", "factotum .*", "sshfront .*")
	complete := func(program, word, before string) string {
		return m.Sh(t, fmt.Sprintf(`bash -c '. /usr/share/bash-completion/completions/%[1]s; f=$(complete -p %[1]s | sed "s/.*-F \([^ ]*\).*/\1/"); $f %[1]s "%[2]s" %[3]s; echo "${COMPREPLY[@]}"'`, program, word, before))
	}
	want(t, complete("p9auth-switch", "", "p9auth-switch"), "status ssh console all local")
	want(t, complete("p9auth-switch", "", "ssh"), "on off")
	want(t, complete("sshfront", "-", "sshfront"), ".* -T .*")
	want(t, complete("factotum", "-", "factotum"), ".* -t .*")
	want(t, m.Sh(t, "ls -L /usr/share/zsh/vendor-completions/_p9auth"), "/usr/share/zsh/vendor-completions/_p9auth")
}

// A fleet of three machines, by dist/fleet and real ssh.
func TestAFleetOfMachinesIsRolledOver(t *testing.T) {
	dir := t.TempDir()
	machines := map[string]*Machine{}
	config := "Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n User root\n IdentitiesOnly yes\n"
	names := []string{"web1", "web2", "web3"}
	for _, name := range names {
		m := Boot(t, "mkdir -p -m 700 /root/.ssh && cp /home/alice/.ssh/authorized_keys /root/.ssh")
		machines[name] = m
		config += fmt.Sprintf("Host %s\n IdentityFile %s/alice\n ProxyCommand nsenter --target %d --net socat - TCP:127.0.0.1:22\n", name, m.dir, m.leader)
	}
	if err := os.WriteFile(dir+"/config", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	fleet := func(args ...string) (string, error) {
		cmd := exec.Command("../../dist/fleet", append(args, names...)...)
		cmd.Env = append(os.Environ(), "FLEET_SSH=ssh -F "+filepath.Join(dir, "config"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	on := func() string {
		s := ""
		for _, name := range names {
			got := machines[name].Sh(t, "p9auth-switch status | grep -x 'ssh: on'; systemctl is-active p9auth-fleet-back.timer | grep -x active")
			s += name + ":" + got + " "
		}
		return strings.TrimSpace(s)
	}
	accept := strings.TrimPrefix(accepted, "-a ")
	check := fmt.Sprintf("ssh -F %s/config -o ConnectTimeout=10 -l alice $HOST id -un | grep -qx alice", dir)
	// The second machine fails its check: it goes back, and the third is not touched.
	out, err := fleet("-a", accept, "-c", check+` && test "$HOST" != web2`, "ssh", "on")
	t.Log(out)
	want(t, out, "fleet: web1: done", "fleet: STOPPED at web2: its check failed: .*; it is as it was before. Done: web1. Not begun: web3.")
	if got := on(); err == nil || got != "web1:ssh: on web2: web3:" {
		t.Errorf("after a machine that fails: %v, %s", err, got)
	}
	// The second answers nobody after the switch: it goes back by the connection of before.
	machines["web2"].Sh(t, `mkdir -p /etc/systemd/system/p9auth-ssh.service.d; printf '[Service]\nExecStartPost=/bin/sh -c "(sleep 8; kill -STOP $MAINPID) &"\n' >/etc/systemd/system/p9auth-ssh.service.d/hang.conf; systemctl daemon-reload`)
	out, err = fleet("-a", accept, "-c", "sleep 10; "+check, "ssh", "on")
	t.Log(out)
	want(t, out, "fleet: STOPPED at web2: .*; it is as it was before. Done: web1. Not begun: web3.")
	if got := on(); err == nil || got != "web1:ssh: on web2: web3:" {
		t.Errorf("after a machine that hangs: %v, %s", err, got)
	}
	machines["web2"].Sh(t, "rm -r /etc/systemd/system/p9auth-ssh.service.d; systemctl daemon-reload")
	out, err = fleet("-a", accept, "-c", check, "ssh", "on")
	want(t, out, "fleet: all are done: web1 web2 web3")
	if got := on(); err != nil || got != "web1:ssh: on web2:ssh: on web3:ssh: on" {
		t.Errorf("all: %v, %s\n%s", err, got, out)
	}
	out, err = fleet("-c", check, "ssh", "off")
	want(t, out, "fleet: all are done: web1 web2 web3")
	if got := on(); err != nil || got != "web1: web2: web3:" {
		t.Errorf("the way back: %v, %s\n%s", err, got, out)
	}
}

// The journal has each event of a login once, with the fields that journalctl and others
// look for, and finds its words.
func TestTheJournalHasFieldsOfALogin(t *testing.T) {
	m := Boot(t, "")
	want(t, m.Sh(t, "p9auth-switch "+accepted+" ssh on; echo status $?"), "status 0")
	out, err := m.SSH("-tt", "alice@127.0.0.1", "echo session $XDG_SESSION_ID").CombinedOutput()
	if err != nil {
		t.Fatalf("ssh: %v: %s", err, out)
	}
	want(t, m.Sh(t, "p9auth-switch console on; echo status $?"), "status 0")
	logIn(t, m, m.Console, "console-getty.service", "alice")
	m.Console.Send("exit\n")
	found := m.Sh(t, "for i in 1 2 3 4 5; do journalctl --sync; journalctl --no-pager -b -q -o json USER=alice | grep -q 'session closed' && break; sleep 1; done; journalctl --no-pager -b -q -o json -g '^Accepted publickey for alice'")
	if n := strings.Count(found, "\n") + 1; n != 1 {
		t.Errorf("Accepted is there %d times", n)
	}
	for _, field := range []string{`"USER":"alice"`, `"RHOST":"127.0.0.1"`, `"MESSAGE_ID":"[0-9a-f]{32}"`, `"SYSLOG_IDENTIFIER":"sshd"`} {
		want(t, found, ".*"+field+".*")
	}
	all := m.Sh(t, "journalctl --no-pager -b -q -o json USER=alice")
	for _, field := range []string{`"SESSION":"[^"]+"`, `"TTY":"[^"]+"`} {
		want(t, all, ".*"+field+".*")
	}
	t.Log(all)
}

package ssh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// program writes a program into the testbed.
func (b *bed) program(t *testing.T, path, script string) {
	t.Helper()
	b.Write(t, path, "#!/bin/sh\n"+script)
	b.Sh(t, "chmod 755 "+path)
}

const keysCommand = "AuthorizedKeysCommandUser nobody\nAuthorizedKeysCommand "

func TestProgramsThatLookUpKeys(t *testing.T) {
	b := up(t)
	ed, other := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	ca := newKey(t, "ecdsa-256", 0)
	cert := func(names ...string) key {
		return certify(t, ca, ed, func(c *ssh.Certificate) { c.ValidPrincipals, c.KeyId = names, `a key's "id"; $(id)` })
	}
	b.Sh(t, "mkdir -p /etc/p9/link /run/said; chmod 1777 /run/said")
	b.Write(t, "/etc/p9/line", ed.line(""))
	b.Write(t, "/etc/ssh/cas", ca.line(""))
	b.Write(t, "/etc/ssh/principals", "ops\n")
	b.program(t, "/etc/p9/keys", "cat /etc/p9/line\n")
	b.program(t, "/etc/p9/for-alice", `test "$1" = alice && cat /etc/p9/line`+"\n")
	b.program(t, "/etc/p9/fails", "cat /etc/p9/line; echo out of order >&2; exit 3\n")
	b.program(t, "/etc/p9/killed", "cat /etc/p9/line; kill -TERM $$\n")
	b.program(t, "/etc/p9/endless", "cat /etc/p9/line; exec yes 'no key'\n")
	b.program(t, "/etc/p9/silent", "exit 0\n")
	b.program(t, "/etc/p9/background", "cat /etc/p9/line; sleep 985 &\n")
	b.program(t, "/etc/p9/principals", "echo night; echo 'command=\"date\" ops'\n")
	b.program(t, "/etc/p9/counted", "echo >>/run/said/count; cat /etc/p9/line\n")
	b.Sh(t, `cd /etc/p9
		cp -p keys loose; chmod g+w loose
		cp -p keys another; chown nobody another
		mkdir -m 777 open; cp -p keys open/keys
		mkdir loose-above; mkdir loose-above/d; cp -p keys loose-above/d/keys; chmod o+w loose-above
		mkdir -m 700 shut; cp -p keys shut/keys
		cp -p keys no-x; chmod a-x no-x
		printf x >not; chmod 755 not
		ln -s /etc/p9/keys link/good; ln -s /etc/p9/open/keys link/bad
		ln -s /etc/p9/keys open/good
		mkfifo pipe`)

	const trust = "TrustedUserCAKeys /etc/ssh/cas\n"
	principals := func(more string) string {
		return trust + "AuthorizedPrincipalsCommandUser nobody\nAuthorizedPrincipalsCommand " + more + "\n"
	}
	for _, c := range []struct {
		conf string
		trial
	}{
		{"", trial{"no program", "", ed, "", "denied", "Failed publickey"}},
		{keysCommand + "/etc/p9/keys", trial{"the key", "", ed, "", "done", ""}},
		{keysCommand + "/etc/p9/keys", trial{"another key", "", other, "", "denied", "Failed publickey"}},
		{keysCommand + "/etc/p9/keys", trial{"a key of the user's file", other.line(""), other, "", "done", ""}},
		{keysCommand + "/etc/p9/for-alice", trial{"the name is the argument", "", ed, "", "done", ""}},
		{keysCommand + "/etc/p9/for-alice bob", trial{"an argument", "", ed, "", "denied", "AuthorizedKeysCommand /etc/p9/for-alice: it failed: exit status 1"}},
		{keysCommand + "/etc/p9/silent", trial{"nothing is printed", "", ed, "", "denied", "Failed publickey"}},
		{keysCommand + "/etc/p9/link/good", trial{"a link", "", ed, "", "done", ""}},
		{keysCommand + "/etc/p9/open/good", trial{"a link that others can change, to what they cannot", "", ed, "", "done", ""}},
		// Options count as in a file.
		{keysCommand + "/bin/echo " + strings.TrimSpace(ed.line(`from=\"10.0.0.1\"`)), trial{"from=", "", ed, "", "denied", "AuthorizedKeysCommand:1: "}},
		{keysCommand + "/bin/echo " + strings.TrimSpace(ed.line(`from=\"127.0.0.1\"`)), trial{"from= here", "", ed, "", "done", ""}},
		// What does not count.
		{keysCommand + "/etc/p9/fails", trial{"it fails", "", ed, "", "denied", `/etc/p9/fails: it failed: exit status 3: \"out of order\"`}},
		{keysCommand + "/etc/p9/killed", trial{"a signal kills it", "", ed, "", "denied", "it failed: signal: terminated"}},
		{keysCommand + "/etc/p9/endless", trial{"it never stops printing", "", ed, "", "denied", "it printed more than 16777216 bytes"}},
		{keysCommand + "/etc/p9/background", trial{"it leaves its output open", "", ed, "", "denied", "it ended, but left its output open to another process"}},
		{keysCommand + "/etc/p9/fails", trial{"it fails, but the file has the key", other.line(""), other, "", "done", ""}},
		{keysCommand + "/etc/p9/loose", trial{"its group can write it", "", ed, "", "denied", "/etc/p9/loose: unsafe: bad ownership or modes for file /etc/p9/loose"}},
		{keysCommand + "/etc/p9/another", trial{"it is another's", "", ed, "", "denied", "unsafe: bad ownership or modes for file /etc/p9/another"}},
		{keysCommand + "/etc/p9/open/keys", trial{"others can replace it", "", ed, "", "denied", "unsafe: bad ownership or modes for directory /etc/p9/open"}},
		{keysCommand + "/etc/p9/loose-above/d/keys", trial{"others can replace its directory", "", ed, "", "denied", "unsafe: bad ownership or modes for directory /etc/p9/loose-above"}},
		{keysCommand + "/etc/p9/link/bad", trial{"a link to it", "", ed, "", "denied", "unsafe: bad ownership or modes for directory /etc/p9/open"}},
		{keysCommand + "/etc/p9/shut/keys", trial{"its user cannot reach it", "", ed, "", "denied", "unsafe: lstat /etc/p9/shut/keys: permission denied"}},
		{keysCommand + "/etc/p9/no-x", trial{"it cannot be executed", "", ed, "", "denied", "/etc/p9/no-x: permission denied"}},
		{keysCommand + "/etc/p9/not", trial{"it is no program", "", ed, "", "denied", "/etc/p9/not: exec format error"}},
		{keysCommand + "/etc/p9/missing", trial{"it is missing", "", ed, "", "denied", "no such file"}},
		{keysCommand + "/etc/p9", trial{"a directory", "", ed, "", "denied", "unsafe: /etc/p9 is not a regular file"}},
		{keysCommand + "/etc/p9/pipe", trial{"a pipe", "", ed, "", "denied", "unsafe: /etc/p9/pipe is not a regular file"}},
		// As whom it runs.
		{"AuthorizedKeysCommand /etc/p9/keys\nAuthorizedKeysCommandUser %u", trial{"the user", "", ed, "", "done", ""}},
		{"AuthorizedKeysCommand /etc/p9/keys\nAuthorizedKeysCommandUser nosuch", trial{"nobody of that name", "", ed, "", "denied", `user \"nosuch\": no such user`}},
		{"Match User alice\nAuthorizedKeysCommand /etc/p9/keys", trial{"no user, in a Match block", "", ed, "", "denied", "no user is configured to run it"}},
		{"Match User alice\n" + keysCommand + "/etc/p9/keys", trial{"a Match block", "", ed, "", "done", ""}},
		{"Match User bob\n" + keysCommand + "/etc/p9/keys", trial{"a Match block of another", "", ed, "", "denied", "Failed publickey"}},
		// Certificates.
		{principals("/etc/p9/principals"), trial{"a principal", "", cert("night"), "", "done", ""}},
		{principals("/etc/p9/principals"), trial{"another principal", "", cert("day", "alice"), "", "denied", "Certificate does not contain an authorized principal"}},
		{principals("/etc/p9/fails"), trial{"it fails for principals", "", cert("alice"), "", "denied", "AuthorizedPrincipalsCommand /etc/p9/fails: it failed"}},
		{principals("/etc/p9/loose"), trial{"its group can write it, for principals", "", cert("alice"), "", "denied", "AuthorizedPrincipalsCommand /etc/p9/loose: unsafe"}},
		{principals("/etc/p9/principals\nAuthorizedPrincipalsFile /etc/ssh/principals"), trial{"the file has another", "", cert("night"), "", "done", ""}},
		{principals("/bin/false\nAuthorizedPrincipalsFile /etc/ssh/principals"), trial{"the file has it", "", cert("ops"), "", "done", ""}},
		{principals(`/bin/echo %i`), trial{"a key id is no command", "", cert("night"), "", "denied", "authorized principal"}},
		{trust + keysCommand + "/etc/p9/keys", trial{"a certificate of a trusted authority", "", cert("alice"), "", "done", ""}},
		{keysCommand + "/bin/echo cert-authority " + strings.TrimSpace(ca.line("")), trial{"an authority is printed", "", cert("alice"), "", "done", ""}},
		{keysCommand + "/bin/echo cert-authority " + strings.TrimSpace(ca.line("")), trial{"an authority is printed, for another", "", cert("bob"), "", "denied", "listed principal"}},
	} {
		b.configure(t, c.conf)
		b.install(t, "alice", c.keys)
		c.what = c.conf + ": " + c.what
		b.try(t, c.trial)
	}

	// A user who does not exist, or may not log in, has no program run.
	b.configure(t, "DenyUsers bob\n"+keysCommand+"/etc/p9/counted")
	for user, want := range map[string]int{"mallory": 0, "bob": 0, "alice": 1} {
		b.Sh(t, "rm -f /run/said/count; touch /run/said/count; chmod 666 /run/said/count")
		k := b.sshfront.connect(t)
		k.query(user, ed)
		k.login(user, ed)
		k.close()
		if got := b.Sh(t, "wc -l </run/said/count"); got != fmt.Sprint(want) {
			t.Errorf("%s: the program ran %s times, not %d", user, got, want)
		}
	}

	// root runs none, not even where it is root who logs in.
	b.configure(t, "PermitRootLogin yes\nAuthorizedKeysCommand /etc/p9/counted\nAuthorizedKeysCommandUser %u")
	b.wantLogged(t, `user \"root\" is root, and no program is run as root`, 1, func() {
		b.climb(t, "root", "root", step{byKey("root", ed), "denied"})
	})

	// One that hangs is killed with its children, and the login goes on.
	b.program(t, "/etc/p9/hangs", "cat /etc/p9/line; sleep 987 & sleep 986\n")
	b.configure(t, keysCommand+"/etc/p9/hangs")
	k := b.sshfront.connect(t)
	began := time.Now()
	b.wantLogged(t, "/etc/p9/hangs: it did not end within 10s and was killed", 1, func() {
		k.wantReply("it hangs", k.login("alice", ed), "denied")
	})
	if d := time.Since(began); d < 9*time.Second || d > 15*time.Second {
		t.Errorf("it was waited for for %v", d)
	}
	k.wantReply("afterwards", k.password("alice", password), "done")
	b.finish(t, k, "alice")
	k.close()
	gone := func() bool { return b.Sh(t, "pgrep -fc '^sleep 98[5-7]' || true") == "0" }
	if !testbed.Eventually(gone) {
		t.Error("what hung is not gone")
	}

	// A front end that leaves does not leave one behind.
	k = b.sshfront.connect(t)
	if err := k.c.Send(capproto.NewMsg("auth", "user", "alice", "method", "publickey", "alg", ed.alg, "key", capproto.B64(ed.blob()))); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return b.Sh(t, "pgrep -fc '^sleep 98[5-7]' || true") == "2" }) {
		t.Fatal("the program does not run")
	}
	k.close()
	for range 15 { // as long as a program may take
		if gone() {
			break
		}
		time.Sleep(time.Second)
	}
	if !gone() {
		t.Error("what was left behind is not gone")
	}
}

// TestProgramsRunAsThoseOfTheRealSshd logs in with OpenSSH's client to sshfront
// and to Debian's sshd, with the same programs, and compares what these see.
func TestProgramsRunAsThoseOfTheRealSshd(t *testing.T) {
	for _, p := range []string{"/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen"} {
		if _, err := os.Stat(p); err != nil {
			t.Skip(err)
		}
	}
	b := up(t)
	b.Sh(t, `mkdir -p /etc/p9 /run/sshd; mkdir -m 1777 /run/said
		useradd --system --create-home lookup; usermod -a -G wizards lookup
		ssh-keygen -q -t ed25519 -N '' -f /etc/p9/user; ssh-keygen -q -t ed25519 -N '' -f /etc/p9/ca
		cp /etc/p9/user /etc/p9/certified; ssh-keygen -q -s /etc/p9/ca -I 'an "id" * $HOME' -n night -z 17 -V +1h /etc/p9/user.pub
		mv /etc/p9/user-cert.pub /etc/p9/certified-cert.pub`)
	dir := t.TempDir()
	for _, f := range []string{"user", "certified", "certified-cert.pub"} {
		key := b.Sh(t, "cat /etc/p9/"+f)
		if err := os.WriteFile(filepath.Join(dir, f), []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.program(t, "/etc/p9/report", `ls /proc/$$/fd >/run/said/fds # a substitution's pipe would be one of them, or not yet
in=$(readlink /proc/$$/fd/0) out=$(readlink /proc/$$/fd/1)
{
	printf '<%s>\n' "$0" "$@"
	id
	env | sort
	pwd
	umask
	ulimit -Sn
	grep -E '^(Cap(Inh|Prm|Eff|Amb)|Sig(Blk|Ign)|Groups)' /proc/self/status
	cat /run/said/fds
	echo "$in" "${out%%[*}"
} >/run/said/report 2>/run/said/errors
case "$1" in
keys) cat /etc/p9/user.pub;;
principals) echo day; echo night;;
esac
`)
	const conf = `AuthorizedKeysFile none
AuthorizedKeysCommand /etc/p9/report keys %u "a  b" 'c d' e\ f %U %h %t %f %k x%%y #z
AuthorizedKeysCommandUser lookup
`
	const certs = `AuthorizedKeysFile none
TrustedUserCAKeys /etc/p9/ca.pub
AuthorizedPrincipalsCommand /etc/p9/report principals %u %U %h %t %T %f %F %i %s %k %K
AuthorizedPrincipalsCommandUser lookup
`
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	login := func(port, key string) string {
		b.Sh(t, "rm -f /run/said/*")
		cmd := exec.Command("ssh", "-n", "-F", "none", "-p", port, "-i", filepath.Join(dir, key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
			"alice@127.0.0.1", "id -un")
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "alice\n" {
			t.Fatalf("ssh to port %s: %v: %s", port, err, out)
		}
		return b.Sh(t, "cat /run/said/errors /run/said/report")
	}
	for _, c := range []struct{ name, conf, key string }{{"keys", conf, "user"}, {"principals", certs, "certified"}} {
		t.Run(c.name, func(t *testing.T) {
			theirs := testbed.FreePort(t)
			b.Write(t, "/etc/p9/sshd_config", fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nUsePAM yes\nPidFile none\n%s", theirs, c.conf))
			sshd := b.Command("env", "-i", "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/p9/sshd_config")
			if err := sshd.Start(); err != nil {
				t.Fatal(err)
			}
			defer sshd.Wait()
			defer sshd.Process.Kill()
			if !testbed.Eventually(func() bool { return exec.Command("bash", "-c", "</dev/tcp/127.0.0.1/"+theirs).Run() == nil }) {
				t.Fatal("sshd does not listen")
			}
			want := login(theirs, c.key)
			b.configure(t, c.conf)
			// sshfront was not told to read the file again: it needs nothing of it.
			got := login(strings.TrimSpace(string(port)), c.key)
			if !strings.Contains(want, "<alice>") || !strings.Contains(want, "lookup") {
				t.Errorf("sshd's program reports %s", want)
			}
			if got != want {
				t.Errorf("ours reports\n%s\n\nsshd's\n%s", got, want)
			}
		})
	}
}

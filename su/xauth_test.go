package main

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"p9auth/test/testbed"
)

// withXauth starts a testbed where alice has a cookie for the display :7 and pam_xauth is
// in the services of su, with these arguments of the module.
func withXauth(t *testing.T, args string) *testbed.Bed {
	t.Helper()
	b := up(t)
	b.Sh(t, `echo 'session optional pam_xauth.so `+args+`' >>/etc/pam.d/su
cookie() { xauth -q -f $1 add ${4-:7} . 0123456789abcdef0123456789abcdef 2>/dev/null; chown $2 $1; chmod $3 $1; }
cookie /home/alice/.Xauthority alice: 600
cookie /home/alice/x alice: 600
cookie /home/alice/roots root: 600
cookie /home/alice/groups root: 640
mkfifo -m 666 /home/alice/fifo`)
	return b
}

// TestPamXauthHandsACookieOnAsWithSu beside util-linux's su, with the real module and the
// real xauth(1): the same cookies, the same environment, and none is left at the end. Files
// lie where alice can write: elsewhere xauth waits for its lock, for 20 s.
func TestPamXauthHandsACookieOnAsWithSu(t *testing.T) {
	t.Parallel()
	b := withXauth(t, "")
	su := real(t, b)
	const show = `xauth -i list 2>&1 | grep MIT; case $XAUTHORITY in "$HOME"/*) echo "$DISPLAY, $XAUTHORITY"; stat -c "%U %G %a" "$XAUTHORITY" ;; esac`
	at := func(authority string) []string {
		return []string{"DISPLAY=:7", "XAUTHORITY=" + authority, "SHOW=" + show}
	}
	pw := testbed.Password + "\n"
	cookies := 0
	for name, r := range map[string]row{
		"a display":                     {who: "alice", args: []string{"-c", show, "bob"}, typed: pw, env: at("/home/alice/x")},
		"as a login":                    {who: "alice", args: []string{"-l", "-c", show, "bob"}, typed: pw, env: at("/home/alice/x")},
		"the file that xauth looks for": {who: "alice", args: []string{"-c", show, "bob"}, typed: pw, env: []string{"DISPLAY=:7"}},
		"a path that is not absolute":   {who: "alice", sh: `cd /home/alice && $SU -c "$SHOW" bob`, typed: pw, env: at("x")},
		"alice exports to others only":  {who: "alice", sh: `mkdir -p ~/.xauth; echo carol >~/.xauth/export; $SU -c "$SHOW" bob; s=$?; rm ~/.xauth/export; exit $s`, typed: pw, env: at("/home/alice/x")},
	} {
		// The name of the new file is drawn at random.
		file := regexp.MustCompile(`\.xauth\w{6}\b`)
		want, got := file.ReplaceAllString(r.play(t, b, su), "FILE"), file.ReplaceAllString(r.play(t, b, b.Bin("su")), "FILE")
		if want != got {
			t.Errorf("%s:\n%s", name, testbed.Diff("util-linux", want, got))
		}
		cookies += strings.Count(got, "MIT-MAGIC-COOKIE-1  0123456789abcdef")
	}
	if cookies != 4 {
		t.Errorf("%d times the target had the cookie", cookies)
	}
	if !testbed.Eventually(func() bool { return b.Sh(t, "find /home /root -name '.xauth??????'") == "" }) {
		t.Errorf("left: %s", b.Sh(t, "ls -la /home/*/.xauth??????"))
	}
}

// TestPamXauthReadsNoFileThatTheCallerCannotRead for them, be it root's or of root's group.
func TestPamXauthReadsNoFileThatTheCallerCannotRead(t *testing.T) {
	t.Parallel()
	b := withXauth(t, "")
	var all sync.WaitGroup
	for _, file := range []string{"roots", "groups"} {
		all.Go(func() {
			r := row{who: "alice", args: []string{"-c", "echo I am $(id -un); ls -a ~", "bob"}, typed: testbed.Password + "\n", env: []string{"DISPLAY=:7", "XAUTHORITY=/home/alice/" + file}}
			if out := r.play(t, b, b.Bin("su")); !strings.Contains(out, "I am bob") || strings.Contains(out, ".xauth") {
				t.Errorf("%s: %s", file, out)
			}
		})
	}
	all.Wait()
}

// TestTheProgramOfPamXauthIsTheCallers in all that counts: the module runs it with the ids
// and the limit of processes that it has below a setuid su, and with no descriptor of the
// worker's. The environment has nothing of the caller's but the display.
func TestTheProgramOfPamXauthIsTheCallers(t *testing.T) {
	t.Parallel()
	b := withXauth(t, "xauthpath=/usr/local/bin/spy")
	b.Sh(t, `cat >/usr/local/bin/spy <<'END'
#!/bin/sh
[ -e /tmp/seen ] || {
	grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapAmb)' /proc/self/status
	grep processes /proc/self/limits
	echo descriptors:; ls /proc/$$/fd
	echo "$* $DISPLAY $XAUTHORITY $EVIL"
} >/tmp/seen
END
chmod 755 /usr/local/bin/spy`)
	seen := func(su string) string {
		b.Sh(t, "rm -f /tmp/seen")
		row{who: "alice", sh: "prlimit --nproc=1111:2222 $SU -c true bob", typed: testbed.Password + "\n",
			env: []string{"DISPLAY=:7", "XAUTHORITY=/home/alice/x"}}.play(t, b, su)
		return b.Sh(t, "cat /tmp/seen")
	}
	want, got := seen(real(t, b)), seen(b.Bin("su"))
	if want != got || !regexp.MustCompile(`1111 +2222`).MatchString(got) {
		t.Error(testbed.Diff("util-linux", want, got))
	}
}

// TestACallerWhoStopsTheProgramOfPamXauthStopsNobodyElse but their own su: it is theirs, and
// reads what they name, such as a pipe that nobody writes to.
func TestACallerWhoStopsTheProgramOfPamXauthStopsNobodyElse(t *testing.T) {
	t.Parallel()
	b := withXauth(t, "")
	cmd := b.Command(testbed.AsPerson("alice", "env", "DISPLAY=:7", "XAUTHORITY=/home/alice/fifo", b.Bin("su"), "-c", "true", "bob")...)
	cmd.Stdin = strings.NewReader(testbed.Password + "\n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("xauth")) == 1 }) {
		t.Fatal("no xauth")
	}
	r := row{who: "alice", args: []string{"-c", "echo I am bob", "bob"}, typed: testbed.Password + "\n"}
	if out := r.play(t, b, b.Bin("su")); !strings.Contains(out, "I am bob") {
		t.Error(out)
	}
	b.Sh(t, fmt.Sprintf("runuser -u alice -- kill %d", b.Pids("xauth")[0]))
	if err := cmd.Wait(); err != nil {
		t.Errorf("without a cookie: %v", err)
	}
}

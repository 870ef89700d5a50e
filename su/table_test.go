package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// A probe prints what a program gets from su: ids, environment, limits, directory,
// session, signals, descriptors.
const probe = `#!/bin/sh
echo "args: $0 $*"
id
echo "groups: $(id -G | tr ' ' '\n' | sort -n | tr '\n' ' ')"
grep -E '^(Uid|Gid|Cap|NoNewPrivs|SigBlk|SigCgt)' /proc/self/status
cat /proc/self/limits
umask
pwd
echo "loginuid: $(cat /proc/self/loginuid)"
echo "nice: $(nice)"
tty
for fd in 3 4 5 6 7 8; do [ -e /proc/$$/fd/$fd ] && echo "$fd $(readlink /proc/$$/fd/$fd)"; done
set -- $(sed 's/.*) //' /proc/$$/stat)
[ "$3" = "$(sed 's/.*) //' /proc/$PPID/stat | cut -d' ' -f3)" ] && echo 'process group: of su' || echo 'process group: its own'
[ "$4" = "$(sed 's/.*) //' /proc/$PPID/stat | cut -d' ' -f4)" ] && echo 'session: of su' || echo 'session: its own'
echo "terminal's process group: $([ "$6" = -1 ] && echo none || echo one)"
unset _ OLDPWD SHLVL
env | sort
echo 'to standard error' >&2
exit 37
`

// real is util-linux's su, setuid as Debian has it, in the testbed.
func real(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	path := filepath.Join(b.Dir, "real", "su")
	b.Sh(t, "mkdir -p "+filepath.Dir(path)+"; cp /usr/bin/su "+path+"; chown root:root "+path+"; chmod 4755 "+path)
	return path
}

// A row is one use of su: by whom, with which arguments, what is typed, and what is
// in the environment besides.
type row struct {
	who   string // alice or root
	args  []string
	typed string
	env   []string
	sh    string // with $SU for the program: in place of args
}

// play plays a row with a su, and returns what came of it.
func (r row) play(t *testing.T, b *testbed.Bed, su string) string {
	t.Helper()
	argv := append([]string{su}, r.args...)
	if r.sh != "" {
		argv = []string{"/bin/sh", "-c", r.sh}
	}
	prefix := testbed.AsPerson(r.who)
	if r.who == "root" {
		prefix = nil
	}
	cmd := b.Command(append(prefix, argv...)...)
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/" + r.who, "SHELL=/bin/bash", "USER=" + r.who, "LOGNAME=" + r.who, "TERM=vt100",
		"LANG=C.UTF-8", "KEPT=yes", "LD_PRELOAD=", "LD_LIBRARY_PATH=/nowhere", "TMPDIR=/nowhere", "SU=" + su}, r.env...)
	cmd.Stdin = strings.NewReader(r.typed)
	cmd.Dir = "/usr"
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	status := fmt.Sprint(err)
	if cmd.ProcessState != nil {
		status = cmd.ProcessState.String()
	}
	text := "status: " + status + "\nout:\n" + out.String() + "err:\n" + errs.String()
	text = strings.ReplaceAll(text, su, "SU")
	// The words differ where the program cannot be executed, and our page has another name.
	text = strings.NewReplacer("become: cannot execute ", "su: failed to execute ", "no such file", "No such file", "permission denied", "Permission denied", "exec format", "Exec format", "p9su(1)", "su(1)").Replace(text)
	return regexp.MustCompile(`(/proc/|/dev/pts/|pid |pipe:\[|\[)\d+`).ReplaceAllString(text, "${1}N")
}

func TestEachOptionDoesWhatUtilLinuxDoes(t *testing.T) {
	t.Parallel()
	b := up(t)
	su := real(t, b)
	probePath := filepath.Join(b.Dir, "probe")
	if err := os.WriteFile(probePath, []byte(probe), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Sh(t, `printf '#!/bin/sh\nexec /bin/sh "$@"\n' >`+b.Dir+`/limited; chmod 755 `+b.Dir+`/limited
useradd -m -s `+b.Dir+`/limited carol; echo carol:open-sesame | chpasswd -c SHA512 -s 1000
useradd -m -s /bin/sh -d /nowhere dora; echo dora:open-sesame | chpasswd -c SHA512 -s 1000
useradd -m -s '' erik; echo erik:open-sesame | chpasswd -c SHA512 -s 1000
useradd -m -s /bin/nosuch finn
useradd -m -s /usr/sbin/nologin gwen
echo 'session optional pam_echo.so What is new' >>/etc/pam.d/su
echo 'carol - priority 19' >>/etc/security/limits.conf`)
	pw := testbed.Password + "\n"
	for _, r := range []row{
		{who: "alice", args: []string{"-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"-c", probePath + " a b", "bob", "x", "-y", "z"}, typed: pw},
		{who: "alice", args: []string{"-", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-l", "-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"--login", "--command=" + probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"-m", "-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"-p", "bob", "-c", probePath}, typed: pw, env: []string{"SHELL=/bin/sh"}},
		{who: "alice", args: []string{"-p", "-l", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-s", "/bin/dash", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-s", "/bin/dash", "-l", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-s", "/bin/nosuch", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-w", "KEPT,LANG,HOME,PATH", "-l", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-w", "KEPT", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"--session-command", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"--session-command=" + probePath, "-", "bob"}, typed: pw},
		{who: "alice", args: []string{"-f", "-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"--fast", "--shell=/bin/dash", "--preserve-environment", "bob", "--command", probePath}, typed: pw},
		{who: "alice", args: []string{"--whitelist-environment", "KEPT", "--log", "bob", "-c", probePath}, typed: pw},
		{who: "alice", args: []string{"-c", "false", "--session-command", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"bob"}, typed: pw + probePath + "\n"},
		{who: "alice", args: []string{"bob", probePath}, typed: pw},
		{who: "alice", args: []string{"bob", "--", probePath}, typed: pw},
		{who: "alice", args: []string{"bob", "-c", probePath}, typed: "wrong\n"},
		{who: "alice", args: []string{"bob", "-c", probePath}, typed: "\n"},
		{who: "alice", args: []string{"nosuchuser"}, typed: pw},
		{who: "alice", args: []string{"bob", "-c", "kill -TERM $$"}, typed: pw},
		{who: "alice", args: []string{"bob", "-c", "kill -SEGV $$"}, typed: pw},
		{who: "alice", args: []string{"bob", "-c", "exit 200"}, typed: pw},
		{who: "alice", args: []string{"-c", probePath, "carol"}, typed: pw},
		{who: "alice", args: []string{"-s", "/bin/bash", "-c", probePath, "carol"}, typed: pw},
		{who: "alice", args: []string{"-m", "-c", probePath, "carol"}, typed: pw},
		{who: "alice", args: []string{"-m", "-c", probePath, "carol"}, typed: pw, env: []string{"SHELL=" + b.Dir + "/limited"}},
		{who: "alice", args: []string{"-", "-c", probePath, "dora"}, typed: pw},
		{who: "alice", args: []string{"-c", probePath, "erik"}, typed: pw},
		{who: "alice", args: []string{"-g", "wizards", "-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"-G", "wizards", "-c", probePath, "bob"}, typed: pw},
		{who: "alice", args: []string{"--nosuch"}},
		{who: "alice", args: []string{"-c"}},
		{who: "alice", args: []string{"--help"}},
		{who: "root", args: []string{"-c", probePath, "bob"}},
		{who: "root", args: []string{"-", "bob", "-c", probePath}},
		{who: "root", args: []string{"-c", probePath}},
		{who: "root", args: []string{"-", "-c", probePath}},
		{who: "root", args: []string{"-s", "/bin/bash", "-c", probePath, "carol"}},
		{who: "root", args: []string{"-s", "/bin/sh", "-c", probePath, "finn"}},
		{who: "root", args: []string{"-c", probePath, "finn"}},
		{who: "root", args: []string{"-c", probePath, "gwen"}},
		{who: "root", args: []string{"-m", "-c", probePath, "bob"}},
		{who: "root", args: []string{"-g", "wizards", "-c", probePath, "bob"}},
		{who: "root", args: []string{"-G", "wizards", "-G", "tty", "-c", probePath, "bob"}},
		{who: "root", args: []string{"-g", "tty", "-G", "wizards", "-c", probePath, "bob"}},
		{who: "root", args: []string{"-g", "nosuchgroup", "-c", probePath, "bob"}},
		{who: "root", args: []string{"-g", "5", "-c", probePath, "bob"}},
		{who: "root", sh: `ulimit -Sf 5; ulimit -Sv 5000000; ulimit -Sn 20; $SU -c ` + probePath + ` bob`},
		{who: "root", args: []string{"-P", "-c", probePath, "bob"}},
		{who: "root", args: []string{"--pty", "--group=wizards", "--supp-group=tty", "-c", probePath, "bob"}},
		{who: "root", args: []string{"nosuchuser"}},
		{who: "root", sh: `umask 027; ulimit -n 77; ulimit -c 0; nice -n 5 $SU -c ` + probePath + ` bob`},
		{who: "root", sh: `exec 5</etc/hosts 7>/dev/null; $SU -c ` + probePath + ` bob`},
		{who: "root", sh: `$SU -c ` + probePath + ` bob <&- `},
		{who: "root", sh: `cd /home/alice && $SU -c 'cat <&0; pwd' bob <<END
some text
END
`},
		{who: "root", sh: `POSIXLY_CORRECT=1 $SU bob -c ` + probePath},
		{who: "root", sh: `$SU bob -c 'ulimit -n 20; echo "$BIG" | wc -c'`, env: []string{"BIG=" + strings.Repeat("0123456789", 9000)}},
		{who: "root", sh: `$SU bob -c "$LONG"`, env: []string{"LONG=: '" + strings.Repeat("''", 30000) + "'; echo done"}},
	} {
		name := r.who + ": " + strings.ReplaceAll(strings.Join(r.args, " ")+r.sh, probePath, "probe")
		want, got := r.play(t, b, su), r.play(t, b, b.Bin("su"))
		if want != got {
			t.Errorf("%.200s:\n%s", name, testbed.Diff("util-linux", want, got))
		}
	}
}

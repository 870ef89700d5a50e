package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// A probe prints what a program gets from doas: ids, environment, limits, directory,
// session, signals, descriptors.
const probe = `#!/bin/sh
echo "args: $0 $*"
id
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|SigBlk|SigIgn|SigCgt)' /proc/self/status
cat /proc/self/limits
umask
pwd
echo "loginuid: $(cat /proc/self/loginuid)"
echo "nice: $(nice)"
tty
for fd in 3 4 5 6 7 8; do [ -e /proc/$$/fd/$fd ] && echo "$fd $(readlink /proc/$$/fd/$fd)"; done
set -- $(sed 's/.*) //' /proc/$$/stat)
[ "$3" = "$WANTPGRP" ] && echo 'process group: of the shell'
unset _ OLDPWD SHLVL WANTPGRP
env | sort
echo 'to standard error' >&2
exit 37
`

// real is opendoas, setuid as Debian has it, in the testbed.
func real(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	if _, err := os.Stat("/usr/bin/doas"); err != nil {
		t.Skip("opendoas is not installed: scripts/deps lists it")
	}
	path := filepath.Join(b.Dir, "real", "doas")
	b.Sh(t, "mkdir -p "+filepath.Dir(path)+"; cp /usr/bin/doas "+path+"; chown root:root "+path+"; chmod 4755 "+path)
	return path
}

// A row is one use of doas: by whom, with which arguments, what is in the environment
// besides, and what is typed at the terminal if there is one.
type row struct {
	rules string
	who   string // alice if empty
	args  []string
	env   []string
	sh    string // with $DOAS for the program: in place of args
	typed string
}

// play plays a row with a doas, and returns what came of it.
func (r row) play(t *testing.T, b *testbed.Bed, doas string) string {
	t.Helper()
	who := r.who
	if who == "" {
		who = "alice"
	}
	argv := append([]string{doas}, r.args...)
	if r.sh != "" {
		argv = []string{"/bin/sh", "-c", r.sh}
	}
	if who != "root" {
		argv = testbed.AsPerson(who, argv...)
	}
	env := append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/" + who, "SHELL=/bin/bash", "USER=" + who, "LOGNAME=" + who, "TERM=vt100", "DISPLAY=:7",
		"LANG=C.UTF-8", "KEPT=yes", "LD_LIBRARY_PATH=/nowhere", "TMPDIR=/nowhere", "GCONV_PATH=/nowhere", "DOAS=" + doas}, r.env...)
	var text, status string
	if r.typed != "" {
		term := b.Start(t, append([]string{"env", "-i"}, append(env, argv...)...)...)
		term.Expect("password: ")
		term.Send(r.typed)
		// The end of a terminal's leader takes from it what is not read yet.
		term.Expect(`it ended with \d+`)
		text = strings.TrimSpace(term.Screen())
		term.Send("\n")
		status = fmt.Sprint(term.Wait())
		text = regexp.MustCompile(`pts/\d+`).ReplaceAllString(text, "pts/N")
	} else {
		cmd := b.Command(argv...)
		cmd.Env = env
		cmd.Dir = "/usr"
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		status = fmt.Sprint(cmd.Run())
		text = "out:\n" + out.String() + "err:\n" + errs.String()
	}
	// What this test's own caller ignores reaches opendoas's command, but not ours.
	text = ignored.ReplaceAllStringFunc(text, func(line string) string {
		mask, err := strconv.ParseUint(strings.TrimPrefix(line, "SigIgn:\t"), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("SigIgn:\t%016x", mask&^ownIgnored(t))
	})
	text = "status: " + status + "\n" + strings.ReplaceAll(text, doas, "DOAS")
	// The words differ where the program cannot be executed.
	text = regexp.MustCompile(`become: cannot execute (\S+): `).ReplaceAllString(text, "doas: $1: ")
	return regexp.MustCompile(`(/proc/|pid |pipe:\[|\[)\d+`).ReplaceAllString(text, "${1}N")
}

var ignored = regexp.MustCompile(`SigIgn:\t[0-9a-f]+`)

// ownIgnored are the signals that this process ignores, as in proc(5).
func ownIgnored(t *testing.T) uint64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	mask, err := strconv.ParseUint(strings.TrimPrefix(ignored.FindString(string(status)), "SigIgn:\t"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask
}

func TestEachUseDoesWhatOpendoasDoes(t *testing.T) {
	b := up(t, "")
	doas := real(t, b)
	p := filepath.Join(b.Dir, "probe")
	if err := os.WriteFile(p, []byte(probe), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Sh(t, `cp `+p+` /usr/local/bin/probe; chmod 755 /usr/local/bin/probe
printf 'bob hard nofile 300\nbob soft core 0\nbob hard nproc 500\n' >/etc/security/limits.conf
printf '#!/bin/sh\necho "PAM has $PAM_TTY"\n' >/usr/local/bin/told; chmod 755 /usr/local/bin/told
echo 'session optional pam_exec.so log=/run/told /usr/local/bin/told' >>/etc/pam.d/doas
printf '#!/bin/sh\necho hostile\n' >/tmp/id; chmod 755 /tmp/id; printf 'x' >/tmp/plain; chmod 644 /tmp/plain`)
	t.Cleanup(func() { b.Sh(t, "rm -f /tmp/id /tmp/plain") })
	pw := testbed.Password + "\n"
	all := "permit nopass alice\n"
	rows := []row{
		{rules: all, args: []string{p}},
		{rules: all, args: []string{p, "a", "", "-b c"}},
		{rules: all, args: []string{"-u", "bob", p}},
		{rules: all, args: []string{"-u", "1", "-n", p}},
		{rules: all, args: []string{"--", "probe"}},
		{rules: all, args: []string{"-s", "probe"}},
		{rules: all, args: []string{"-s"}, env: []string{"SHELL=" + p}},
		{rules: all, args: []string{"-s"}, env: []string{"SHELL="}},
		{rules: all, args: []string{"nosuch"}},
		{rules: all, args: []string{"/nosuch/x"}},
		{rules: all, args: []string{""}},
		{rules: all, args: []string{"/tmp/plain"}},
		{rules: all, args: []string{"/tmp"}},
		{rules: all, args: []string{"plain"}, env: []string{"PATH=/tmp"}},
		{rules: all, args: []string{"id"}, env: []string{"PATH=/tmp:/usr/bin"}},
		{rules: all, args: []string{"id"}, env: []string{"PATH="}},
		{rules: all, sh: "cd /tmp; exec $DOAS ./id"},
		{rules: all, sh: "cd /tmp; PATH=:/bin exec $DOAS id"},
		{rules: all, sh: "cd /; PATH=tmp exec $DOAS id"},
		{rules: all, sh: "cd /usr; exec $DOAS bin/id"},
		{rules: all, sh: "unset PATH; exec $DOAS id"},
		{rules: all, sh: "unset TERM DISPLAY; exec $DOAS probe"},
		{rules: all, sh: "umask 027; ulimit -n 77; ulimit -c 0; exec nice -n 5 $DOAS probe"},
		{rules: all, sh: "exec 5</etc/hosts 7>/dev/null; exec $DOAS probe"},
		{rules: all, sh: "WANTPGRP=$$; export WANTPGRP; $DOAS env WANTPGRP=$$ probe"},
		{rules: all, sh: "$DOAS sh -c 'kill -TERM $$'; echo $?"},
		{rules: all, sh: "$DOAS sh -c 'exit 200'; echo $?"},
		{rules: all, sh: "$DOAS cat <<END\nsome text\nEND"},
		{rules: all, args: []string{"-u", "nosuchuser", "id"}},
		{rules: all, args: []string{"-u", "4711", "id"}},
		{rules: all, args: []string{"-u", "4294967295", "id"}},
		{rules: all, args: []string{"-L"}},
		{rules: all, args: []string{"-C", "/etc/doas.conf"}},
		{rules: all, args: []string{"-C", "/etc/doas.conf", "id"}},
		{rules: all, args: []string{"-C", "/etc/doas.conf", "-u", "bob", "id", "-u"}},
		{rules: "permit alice as bob\ndeny alice as bob cmd id\n", args: []string{"-C", "/etc/doas.conf", "-u", "bob", "id"}},
		{rules: "permit alice as bob\ndeny alice as bob cmd id\n", args: []string{"-C", "/etc/doas.conf", "-u", "bob", "ls"}},
		{rules: "permit persist :wizards\n", args: []string{"-C", "/etc/doas.conf", "id"}},
		{rules: "permit nopass alice\nfoo\n", args: []string{"-C", "/etc/doas.conf", "id"}},
		{rules: all, args: []string{"-C", "/nosuch", "id"}},
		{rules: all, args: []string{"-C", "/etc/doas.conf", "-s"}},
		{rules: all, args: []string{"-n", "-u", "bob", "id", "-n", "-u"}},
		{rules: all, args: []string{"-nu", "bob", "id"}},
		{rules: all, args: []string{"-s", "-u", "bob"}, env: []string{"SHELL=/bin/nosuch"}},
		{rules: all, args: []string{"-X"}},
		{rules: all, args: []string{"-u"}},
		{rules: all, args: nil},
		{rules: "permit nopass keepenv alice\n", args: []string{"probe"}},
		{rules: "permit nopass keepenv alice\n", args: []string{"-u", "bob", "probe"}, env: []string{"KEPT=again", "PS1=x", "BASH_ENV=/x", "ENV=/x"}},
		{rules: "permit nopass keepenv setenv { -TERM -KEPT A=1 B=$LANG C=$NOSUCH PATH LANG } alice cmd probe\n", args: []string{"probe"}},
		{rules: "permit nopass setenv { KEPT DISPLAY=x HOME=/x TERM= PATH=$MINE } alice\n", env: []string{"MINE=/bin"}, args: []string{"/usr/local/bin/probe"}},
		{rules: "permit nopass alice cmd probe\n", args: []string{"probe"}},
		{rules: "permit nopass alice cmd id\n", args: []string{"id"}, env: []string{"PATH=/tmp"}},
		{rules: "permit nopass alice cmd id args -u\n", args: []string{"id", "-u"}},
		{rules: "permit nopass alice cmd id args -u\n", args: []string{"id", "-u", "-n"}},
		{rules: "permit nopass alice cmd id args\n", args: []string{"id"}},
		{rules: "permit nopass alice cmd id\n", args: []string{"/usr/bin/id"}},
		{rules: "permit nopass alice cmd nosuch\n", args: []string{"nosuch"}},
		{rules: "permit nopass alice cmd /usr/bin/id as bob\n", args: []string{"/usr/bin/id"}},
		{rules: "permit nopass alice as bob cmd /usr/bin/id\n", args: []string{"-u", "bob", "/usr/bin/id"}},
		{rules: "permit nopass alice as bob cmd /usr/bin/id\n", args: []string{"/usr/bin/id"}},
		{rules: "permit nopass :wizards as bob\ndeny alice as bob cmd id\n", args: []string{"-u", "bob", "id"}},
		{rules: "permit nopass :wizards as bob\ndeny alice as bob cmd id\n", args: []string{"-u", "bob", "probe"}},
		{rules: "permit nopass :wizards\n", args: []string{"probe"}, who: "bob"},
		{rules: "permit nopass bob\n", args: []string{"probe"}},
		{rules: "permit nopass root\n", args: []string{"-u", "alice", "probe"}, who: "root"},
		{rules: "permit nopass keepenv root\n", args: []string{"probe"}, who: "root"},
		{rules: "permit alice\n", args: []string{"-n", "id"}},
		{rules: "permit alice\n", sh: "$DOAS probe; echo it ended with $?; read end", typed: pw},
		{rules: "permit alice\n", sh: "$DOAS -u bob probe x; echo it ended with $?; read end", typed: pw},
		{rules: "permit alice\n", sh: "$DOAS probe; echo it ended with $?; read end", typed: "wrong\n"},
		{rules: "permit alice\n", sh: "$DOAS tail -n 1 /run/told; echo it ended with $?; read end", typed: pw},
		{rules: "permit alice\n", sh: "$DOAS nosuch; echo it ended with $?; read end", typed: pw},
		{rules: "permit", args: []string{"id"}},
		{rules: "permit nopass alice\nfoo\n", args: []string{"id"}},
	}
	for _, r := range rows {
		write(t, b, r.rules)
		name := strings.ReplaceAll(fmt.Sprintf("%q %s: %s", r.rules, r.who, strings.Join(r.args, " ")+r.sh), p, "probe")
		want, got := r.play(t, b, doas), r.play(t, b, b.Bin("doas"))
		if want != got {
			t.Errorf("%.200s:\n%s", name, testbed.Diff("opendoas", want, got))
		}
	}
	for _, account := range []string{"usermod -e 1 alice", "usermod -e '' alice; chage -d 20000 -M 10 -I 5 alice"} {
		b.Sh(t, account)
		write(t, b, all)
		for _, r := range []row{{args: []string{"id"}}, {args: []string{"-n", "id"}}} {
			if want, got := r.play(t, b, doas), r.play(t, b, b.Bin("doas")); want != got {
				t.Errorf("%s: %s", account, testbed.Diff("opendoas", want, got))
			}
		}
	}
	b.Sh(t, "chage -d 0 -M -1 -I -1 alice")
	if got := (row{args: []string{"-n", "id"}}).play(t, b, b.Bin("doas")); !strings.Contains(got, "Authentication required") {
		t.Errorf("-n with a password that has expired: %s", got)
	}
	b.Sh(t, "chage -d -1 alice")
	for _, change := range []string{"chmod 664", "chmod 646", "chown alice", "rm -f"} {
		write(t, b, all)
		b.Sh(t, change+" /etc/doas.conf")
		r := row{args: []string{"id"}}
		want, got := r.play(t, b, doas), r.play(t, b, b.Bin("doas"))
		if want != got || strings.Contains(got, "uid=0") {
			t.Errorf("%s: %s", change, testbed.Diff("opendoas", want, got))
		}
	}
}

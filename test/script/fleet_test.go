package script

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The machines of these tests are made up: an ssh that runs each command here, with the
// programs of the folder that has the machine's name. make test-containers has real ones.
const fleetSSH = `#!/bin/sh
echo "ssh $*" >>$WORK/ssh
way= master= fresh=
while :; do
	case $1 in
	-M) master=yes; shift ;;
	-fN) shift; break ;;
	-S) way=$2; shift 2 ;;
	-O) if [ "$2" = check ]; then [ -e "$way" ]; else rm -f "$way"; fi; exit ;;
	-o) case $2 in ControlPath=none) fresh=yes ;; esac; shift 2 ;;
	*) break ;;
	esac
done
host=$1
shift
cd $WORK/$host || exit 255
if [ -n "$master" ]; then : >"$way"; exit; fi
if [ -n "$fresh" ]; then [ ! -e silent ] || exit 255; else [ -e "$way" ] || exit 255; fi
[ ! -e drops ] || rm -f "$way"
PATH=$WORK/bin:$PATH exec sh -c "$*"
`

const fleetSwitch = `#!/bin/sh
case "$*" in
status)
	echo "factotum: running"
	echo "ssh: $(cat ssh)"
	echo "console: $(cat console)" ;;
-n*) echo "systemctl start p9auth-ssh.socket"; [ ! -e refuses ] ;;
*)
	[ "$1" != -a ] || shift 2
	if [ -e refuses ] && [ "$2" = on ]; then echo "p9auth-switch: sshfront would not do what sshd does; nothing was changed" >&2; exit 1; fi
	if [ -e lost ] && [ "$2" = on ]; then : >silent; elif [ -e lost ] && [ "$(cat lost)" != "for good" ]; then rm -f silent; fi
	echo $2 >$1 ;;
esac
`

// fleetTimer notes what would be done by itself, in the file timer.
const fleetTimer = `#!/bin/sh
while case $1 in -*) ;; *) false ;; esac; do case $1 in --on-active=*) when=${1#*=} ;; esac; shift; done
echo "$when $*" >timer
`

const fleetSystemctl = `#!/bin/sh
case $1 in
is-active) [ -e timer ] ;;
stop) rm -f timer ;;
esac
`

// fleet runs it for three machines, a, b and c, of which b has files that change what it
// does. It returns what it prints, the machines' folder, and its error.
func fleet(t *testing.T, ofB map[string]string, args ...string) (out, dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"ssh": fleetSSH, "p9auth-switch": fleetSwitch, "systemd-run": fleetTimer, "systemctl": fleetSystemctl} {
		write(t, filepath.Join(dir, "bin", name), text)
	}
	for _, host := range []string{"a", "b", "c"} {
		write(t, filepath.Join(dir, host, "ssh"), "off\n")
		write(t, filepath.Join(dir, host, "console"), "off\n")
	}
	for name, text := range ofB {
		write(t, filepath.Join(dir, "b", name), text)
	}
	cmd := exec.Command("../../dist/fleet", append(args, "a", "b", "c")...)
	cmd.Env = append(os.Environ(), "WORK="+dir, "FLEET_SSH="+dir+"/bin/ssh")
	b, err := cmd.CombinedOutput()
	return string(b), dir, err
}

// state is what p9auth has of a, b and c, and "+" where one would go back by itself.
func state(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	for _, host := range []string{"a", "b", "c"} {
		s := ""
		for _, p := range []string{"ssh", "console"} {
			b, err := os.ReadFile(filepath.Join(dir, host, p))
			if err != nil {
				t.Fatal(err)
			}
			if string(b) == "on\n" {
				s += p[:1]
			}
		}
		if _, err := os.Stat(filepath.Join(dir, host, "timer")); err == nil {
			s += "+"
		}
		all = append(all, host+":"+s)
	}
	return strings.Join(all, " ")
}

func TestAFleetIsRolledOverOneByOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		ofB   map[string]string
		args  []string
		state string
		last  string // line
	}{
		{"all is well", nil, []string{"ssh", "on"}, "a:s b:s c:s", "fleet: all are done: a b c"},
		{"all of a machine", nil, []string{"-a", "banner", "all", "on"}, "a:sc b:sc c:sc", "fleet: all are done: a b c"},
		{"what is on already stays", map[string]string{"ssh": "on\n"}, []string{"all", "on"}, "a:sc b:sc c:sc", "fleet: all are done: a b c"},
		{"the second's check fails", nil, []string{"-c", `test "$HOST" != b`, "ssh", "on"}, "a:s b: c:",
			`fleet: STOPPED at b: its check failed: test "$HOST" != b; it is as it was before. Done: a. Not begun: c.`},
		{"what was on before stays on", map[string]string{"ssh": "on\n"}, []string{"-c", `test "$HOST" != b`, "all", "on"}, "a:sc b:s c:",
			`fleet: STOPPED at b: its check failed: test "$HOST" != b; it is as it was before. Done: a. Not begun: c.`},
		{"the second refuses", map[string]string{"refuses": ""}, []string{"ssh", "on"}, "a:s b: c:",
			"fleet: STOPPED at b: p9auth-switch ssh on failed; it is as it was before. Done: a. Not begun: c."},
		{"the second's connection breaks off", map[string]string{"drops": ""}, []string{"ssh", "on"}, "a:s b: c:",
			"fleet: STOPPED at b: the connection by which it could go back is lost; nothing was changed. Done: a. Not begun: c."},
		{"the second answers nobody", map[string]string{"lost": ""}, []string{"ssh", "on"}, "a:s b: c:",
			"fleet: STOPPED at b: no new login; it is as it was before. Done: a. Not begun: c."},
		{"and the way back does not help", map[string]string{"lost": "for good"}, []string{"-m", "7", "ssh", "on"}, "a:s b:+ c:",
			"fleet: STOPPED at b: no new login, and then it went back AND THERE IS NO NEW LOGIN; it goes back by itself 7 minutes after it began. Done: a. Not begun: c."},
		{"nothing is done with -n", map[string]string{"refuses": ""}, []string{"-n", "all", "on"}, "a: b: c:", "fleet: p9auth-switch would refuse: b"},
		{"the way back for all", map[string]string{"ssh": "on\n"}, []string{"all", "off"}, "a: b: c:", "fleet: all are done: a b c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, dir, err := fleet(t, c.ofB, c.args...)
			if got := state(t, dir); got != c.state {
				t.Errorf("the machines are %q, not %q", got, c.state)
			}
			l := strings.Split(strings.TrimSpace(out), "\n")
			if last := l[len(l)-1]; last != c.last {
				t.Errorf("the last line is %q, not %q", last, c.last)
			}
			if good := strings.Contains(c.last, "all are done"); good != (err == nil) {
				t.Errorf("it ends with %v", err)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestAMachineGoesBackByItself, whatever becomes of the person who moves it: what does so
// waits there before the first change, and is gone after the check.
func TestAMachineOfAFleetGoesBackByItself(t *testing.T) {
	out, dir, err := fleet(t, nil, "-c", "kill -9 $PPID", "all", "on")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("it was not killed: %v: %s", err, out)
	}
	if got := state(t, dir); got != "a:sc+ b: c:" {
		t.Fatalf("the machines are %s", got)
	}
	b, err := os.ReadFile(dir + "/a/timer")
	if want := "15m p9auth-switch all off\n"; err != nil || string(b) != want {
		t.Errorf("it would do %q, %v; not %q", b, err, want)
	}
	// Each machine's own connection is from before the change, and its check's is new.
	log, err := os.ReadFile(dir + "/ssh")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	is := func(part string) func(string) bool { return func(l string) bool { return strings.Contains(l, part) } }
	open, change, check := slices.IndexFunc(lines, is("-M -S")), slices.IndexFunc(lines, is("p9auth-switch ssh on")), slices.IndexFunc(lines, is("ControlPath=none"))
	if open != 0 || change < 2 || check < change {
		t.Errorf("the connections are %s", fmt.Sprint(lines))
	}
}

func TestFleetSaysItsUsage(t *testing.T) {
	for _, args := range []string{"", "ssh", "ssh on", "ssh maybe a", "port on a", "-m 0 ssh on a", "-m x ssh on a", "-z ssh on a"} {
		out, err := exec.Command("../../dist/fleet", strings.Fields(args)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "usage: fleet ") {
			t.Errorf("fleet %s: %v: %s", args, err, out)
		}
	}
}

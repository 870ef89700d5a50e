package main

import (
	"fmt"
	"regexp"
	"strings"
)

// setIDMount has Debian's su and doas with their set-id bits, on a file system where
// these count, and lets bob become others by them and by ours without a question, but for
// carol, with su. No terminal takes what a process pretends to type there.
const setIDMount = `mkdir -p /mnt/setid && mount -t tmpfs -o mode=755,suid none /mnt/setid
for p in su doas; do cp /usr/bin/$p.distrib /mnt/setid/$p; chmod 4755 /mnt/setid/$p; done
cp -p /etc/pam.d/su /mnt/setid/pam-su; cp -p /etc/doas.conf /mnt/setid/doas.conf
sed -i '1i auth sufficient pam_succeed_if.so quiet ruser = bob user != carol' /etc/pam.d/su
cat >/mnt/setid/type-into <<'PERL'
#!/usr/bin/perl
my $c = "x";
ioctl(STDIN, 0x5412, $c) or die "$!\n"; # TIOCSTI
PERL
chmod 755 /mnt/setid/type-into
[ ! -e /proc/sys/dev/tty/legacy_tiocsti ] || echo 0 >/proc/sys/dev/tty/legacy_tiocsti
echo 'permit nopass bob' >>/etc/doas.conf
if [ -d /etc/polkit-1/rules.d ]; then
	cat >/etc/polkit-1/rules.d/10-bob.rules <<'RULE'
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "bob") return polkit.Result.YES;
});
RULE
fi
`

const setIDUnmount = `cp /mnt/setid/pam-su /etc/pam.d/su; cp /mnt/setid/doas.conf /etc/doas.conf; rm -f /etc/polkit-1/rules.d/10-bob.rules; umount /mnt/setid; rmdir /mnt/setid`

// otherLimits are those that bob may not raise, and alice's limits.conf does: p9su(1)
// names the difference.
var otherLimits = regexp.MustCompile(`(?m)^Max (nice|realtime) priority .*\n`)

// timings has the shell's function timing: how often, and a command line that becomes
// root. It prints the line, and the wall and processor time of each, in milliseconds,
// without what the idle machine takes.
const timings = `ticks() { awk '$1 == "usage_usec" { print $2 }' /sys/fs/cgroup/cpu.stat; }
timing() {
	n=$1; shift
	"$@" </dev/null >/dev/null 2>&1 || { echo "$*: failed with $?"; return; }
	c=$(ticks); t=$(date +%s%N); sleep 2; idle=$(($(ticks) - c)); span=$((($(date +%s%N) - t) / 1000))
	c=$(ticks); t=$(date +%s%N)
	for i in $(seq $n); do "$@" </dev/null >/dev/null 2>&1; done
	t=$((($(date +%s%N) - t) / 1000)); c=$(($(ticks) - c))
	echo "$* $((t / n / 1000)) $(((c - idle * t / span) / n / 1000))"
}`

// besideSetID compares what bob gets by our su and doas and by Debian's with their set-id
// bits, and how long they take, with run0 where systemd has it. Root is logged in at
// ttyS0 before and after, and ours are in the places of theirs.
func besideSetID() {
	vm.sh(setIDMount)
	vm.logout()
	must("bob logs in where set-id programs lie beside ours", func() error { return vm.login("bob", `\$ $`) })
	newer := vm.sh("/mnt/setid/su --help | grep -c no-pty") == "1" // Debian 13's su
	hows := []string{"su root -c observe", "su - root -c observe", "su alice -c observe", "su - alice -c observe", "doas observe", "doas -u alice observe"}
	if newer {
		hows = append(hows, "su alice -P -T -c observe", "su alice --pty --no-pty -c observe")
	}
	for _, how := range hows {
		claim(how+": all is as by the setuid program", func() error {
			return differ(otherLimits.ReplaceAllString(vm.sh("/mnt/setid/"+how), ""), otherLimits.ReplaceAllString(vm.sh(how), ""))
		})
	}
	for _, how := range []string{"su alice --session-command ", "su alice -c "} {
		if vm.sh("cat /proc/sys/dev/tty/legacy_tiocsti") != "0" {
			fmt.Printf("  --   this kernel cannot forbid TIOCSTI: not tried\n")
			break
		}
		claim(how+"what it types into its terminal is refused as with util-linux's", func() error {
			theirs, ours := vm.sh("/mnt/setid/"+how+"/mnt/setid/type-into; echo status $?"), vm.sh(how+"/mnt/setid/type-into; echo status $?")
			if err := want(theirs, `^Input/output error\nstatus 5$`); err != nil {
				return err
			}
			return differ(theirs, ours)
		})
	}
	claim("what it takes to become root", func() error {
		vm.sh(timings)
		fmt.Printf("       %-36s %8s %14s\n", fmt.Sprintf("each of %d, the whole machine", rounds), "wall, ms", "processor, ms")
		commands := []string{"su -c true", "/mnt/setid/su -c true", "doas true", "/mnt/setid/doas true"}
		if vm.sh("command -v run0") != "" {
			commands = append(commands, "run0 --no-ask-password true")
		}
		for _, c := range commands {
			var wall, processor int
			out := vm.sh(fmt.Sprintf("timing %d %s", rounds, c))
			if _, err := fmt.Sscanf(strings.TrimPrefix(out, c), "%d %d", &wall, &processor); err != nil {
				return fmt.Errorf("%s: %.300q", c, out)
			}
			fmt.Printf("       %-36s %8d %14d\n", c, wall, processor)
		}
		return nil
	})
	vm.logout()
	must("root logs in at ttyS0 after that", func() error { return vm.login("root", `# $`) })
	auditBesideSetID()
	vm.sh(setIDUnmount)
}

// audited has the shell's function audited: which program sends the records, which is the
// last one, and what bob executes at root's terminal. It prints the records, without time
// and pid, and without what p9su(1) and p9doas(1) say is the worker's: exe, the login uid
// and its session, and CRED_REFR; opendoas has that in the place of CRED_ACQ. It has no tab,
// at which the shell of a terminal would complete.
const audited = `audited() {
exe=$1; last=$2; shift 2
n=$(wc -l </var/log/audit/audit.log)
echo wrong | runuser -u bob -- "$@" >/dev/null
for i in $(seq 60); do
tail -n +$((n + 1)) /var/log/audit/audit.log | grep -F "exe=\"$exe\"" >/tmp/records
grep -q "^type=$last" /tmp/records && break
sleep 1
done
echo
[ "$1" = doas ] || [ "$1" = /mnt/setid/doas ] && sed -i '/^type=CRED_ACQ/d' /tmp/records
sed -E '/^type=CRED_REFR/d; s/msg=audit\([^)]*\): //; s/ pid=[0-9]+//; s/ exe="[^"]*"//; s/ auid=[0-9]+ ses=[0-9]+//; s/\x1d.*//' /tmp/records
}`

// auditBesideSetID compares what audit has of our su and doas and of Debian's. Standard
// input is a pipe here: Debian's su then names no terminal to PAM, and libaudit writes the
// one of standard error, without /dev/, while p9su(1) names it as su does, with it.
func auditBesideSetID() {
	vm.sh(audited)
	for _, c := range []struct{ how, last, want string }{
		{"su -c true", "CRED_DISP", `USER_AUTH[\s\S]*USER_ACCT[\s\S]*CRED_ACQ[\s\S]*USER_START[\s\S]*acct="root"[\s\S]*USER_END[\s\S]*CRED_DISP`},
		{"su - alice -c true", "CRED_DISP", `USER_AUTH[\s\S]*USER_ACCT[\s\S]*CRED_ACQ[\s\S]*USER_START[\s\S]*acct="alice"[\s\S]*USER_END[\s\S]*CRED_DISP`},
		{"su carol -c true", "USER_AUTH", `USER_AUTH.*acct="carol".* terminal=\S*ttyS0 res=failed`},
		{"doas true", "CRED_DISP", `USER_START[\s\S]*acct="root"[\s\S]*USER_END[\s\S]*CRED_DISP`},
	} {
		claim(c.how+": audit has what it has of the setuid program", func() error {
			program, _, _ := strings.Cut(c.how, " ")
			theirs := records(vm.sh("audited /mnt/setid/" + program + " " + c.last + " /mnt/setid/" + c.how))
			ours := records(vm.sh("audited /usr/lib/p9auth/factotum-pam " + c.last + " " + c.how))
			if err := want(theirs, c.want); err != nil {
				return err
			}
			if program == "su" {
				ours = strings.ReplaceAll(ours, " terminal=/dev/", " terminal=")
			}
			return differ(theirs, ours)
		})
	}
}

// records are those of audit in what a terminal shows.
func records(screen string) string {
	return strings.Join(regexp.MustCompile(`(?m)^type=.*$`).FindAllString(screen, -1), "\n")
}

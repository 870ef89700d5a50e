package main

import (
	"fmt"
	"regexp"
	"strings"
)

// setIDMount has Debian's su and doas with their set-id bits, on a file system where
// these count, and lets bob become others by them and by ours without a question.
const setIDMount = `mkdir -p /mnt/setid && mount -t tmpfs -o mode=755,suid none /mnt/setid
for p in su doas; do cp /usr/bin/$p.distrib /mnt/setid/$p; chmod 4755 /mnt/setid/$p; done
cp -p /etc/pam.d/su /mnt/setid/pam-su; cp -p /etc/doas.conf /mnt/setid/doas.conf
sed -i '1i auth sufficient pam_succeed_if.so quiet ruser = bob' /etc/pam.d/su
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
	for _, how := range []string{"su root -c observe", "su - root -c observe", "su alice -c observe", "su - alice -c observe", "doas observe", "doas -u alice observe"} {
		claim(how+": all is as by the setuid program", func() error {
			return differ(otherLimits.ReplaceAllString(vm.sh("/mnt/setid/"+how), ""), otherLimits.ReplaceAllString(vm.sh(how), ""))
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
	vm.sh(setIDUnmount)
}

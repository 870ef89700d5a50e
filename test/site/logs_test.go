//go:build site

package site

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/manual"
	"p9auth/test/testbed"
)

// logs are the displays about logs.
const (
	upload = iota
	remote
	collected
	bySyslog
)

// hierarchies finds the control groups by which journald knows a unit: those of
// version 2 and of systemd's own hierarchy.
const hierarchies = `mounts=$(awk '$0 ~ / - cgroup2 / || $0 ~ / - cgroup .*name=systemd/ { print $5 }' /proc/self/mountinfo)`

// journal starts systemd-journald, as a machine has it: with /dev/log, in a /dev
// of the testbed's own, and with factotum and sshfront writing to it from where
// systemd would put them.
func (s *site) journal(t *testing.T) {
	t.Helper()
	s.Sh(t, `mkdir /run/dev && mount -t tmpfs -o mode=755 dev /run/dev && cd /dev
for f in *; do
	if [ -d $f ] && [ ! -L $f ]; then mkdir /run/dev/$f && mount --rbind $f /run/dev/$f
	elif [ $f != log ]; then cp -a $f /run/dev/
	fi
done
rm -f /run/dev/log && ln -s /run/systemd/journal/dev-log /run/dev/log
mount --move /run/dev /dev
mkdir -p /run/systemd/system /run/systemd/journal /etc/systemd/journald.conf.d /var/log/journal
# The kernel's messages are those of the machine that the test runs on.
printf '[Journal]\nReadKMsg=no\nAudit=no\n' >/etc/systemd/journald.conf.d/site.conf`)
	s.daemon(t, "systemd-journald")
	for _, u := range []struct {
		name, unit, identifier, ready string
		argv                          []string
	}{
		{"factotum", "factotum.service", "factotum", "factotum is ready", []string{s.Bin("factotum")}},
		{"sshfront", "p9auth-ssh.service", "sshd", "Server listening", []string{s.Bin("sshfront"), "-D", "-p", s.port(t)}},
	} {
		for _, pid := range s.Pids(u.name) {
			syscall.Kill(pid, syscall.SIGTERM)
		}
		if !testbed.Eventually(func() bool { return len(s.Pids(u.name)) == 0 }) {
			t.Fatalf("%s does not end", u.name)
		}
		stream, id := s.stream(t, u.identifier, u.unit)
		slice := fmt.Sprintf("p9authtest%d.slice", os.Getpid())
		cmd := s.Command(append([]string{"sh", "-c", hierarchies + `
for m in $mounts; do
	mkdir -p "$m/$0" && echo $$ >"$m/$0/cgroup.procs" || exit
done
exec "$@"`, slice + "/" + u.unit}, u.argv...)...)
		cmd.Stderr, cmd.Dir = stream, "/"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "JOURNAL_STREAM=" + id}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stream.Close()
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if !testbed.Eventually(func() bool {
				return exec.Command("sh", "-c", hierarchies+`; for m in $mounts; do rmdir "$m/$0"; done`, slice+"/"+u.unit).Run() == nil
			}) {
				t.Errorf("a control group is left: %s/%s", slice, u.unit)
			}
			exec.Command("sh", "-c", hierarchies+`; for m in $mounts; do rmdir "$m/$0"; done`, slice).Run()
		})
		s.wantInJournal(t, "-u "+u.unit, u.ready)
	}
}

// stream connects to journald in the manner of systemd, which says which unit's
// standard error it is. It returns the stream and what JOURNAL_STREAM is for it.
func (s *site) stream(t *testing.T, identifier, unit string) (*os.File, string) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(s.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", "/proc/"+strings.TrimSpace(string(pid))+"/root/run/systemd/journal/stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The priority of lines that begin with none, whether they may begin with
	// one, and that they go nowhere else.
	if _, err := fmt.Fprintf(c, "%s\n%s\n6\n1\n0\n0\n0\n", identifier, unit); err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// port is sshfront's.
func (s *site) port(t *testing.T) string {
	t.Helper()
	port, err := os.ReadFile(filepath.Join(s.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(port))
}

// wantPrint waits until a command prints what matches.
func (s *site) wantPrint(t *testing.T, command, expr string) {
	t.Helper()
	re := regexp.MustCompile(expr)
	var out []byte
	if !testbed.Eventually(func() bool {
		out, _ = s.Command("sh", "-c", command).CombinedOutput()
		return re.Match(out)
	}) {
		t.Fatalf("%s does not print %s but %s", command, expr, out)
	}
}

func (s *site) wantInJournal(t *testing.T, options, expr string) {
	t.Helper()
	s.wantPrint(t, "journalctl --no-pager -o cat "+options, expr)
}

// attack is what the logs are to tell of: alice logs in, and somebody fails.
func (s *site) attack(t *testing.T) {
	t.Helper()
	ssh{"alice", "password", anyHost, password}.wantPrints(t, s, "id -un", "alice")
	ssh{"bob", "password", anyHost, "wrong"}.wantRefused(t, s)
	term := s.atConsole(t, "bob", "wrong")
	term.Expect("Login incorrect")
	term.Hangup()
	term.Wait()
}

const (
	accepted = `Accepted password for alice from 127\.0\.0\.1 port \d+ ssh2`
	failed   = `Failed password for bob from 127\.0\.0\.1 port \d+ ssh2`
	refused  = `msg="login refused" .*user=bob`
)

func TestTheJournalIsCollected(t *testing.T) {
	s := up(t)
	s.journal(t)
	s.attack(t)
	// The lines have the priority, the name and the unit by which one looks for
	// them.
	s.wantInJournal(t, "-u factotum PRIORITY=6 USER=alice", `msg="session opened" .*user=alice`)
	s.wantInJournal(t, "-u factotum MESSAGE_ID=8a47c980e2168644c64c8e6f3fe495b3 USER=alice RHOST=127.0.0.1", accepted)
	if out := s.Sh(t, "journalctl --no-pager -o cat"); len(regexp.MustCompile(accepted).FindAllString(out, -1)) != 1 {
		t.Errorf("alice's login is not in the journal once:\n%s", out)
	}
	s.wantInJournal(t, "-u factotum -p warning", refused)
	s.wantInJournal(t, "SYSLOG_IDENTIFIER=sshd", accepted)
	s.wantInJournal(t, "-u p9auth-ssh", "Connection from 127|Server listening")
	if out := s.Sh(t, "journalctl --no-pager -o cat -u factotum"); strings.Contains(out, "time=20") {
		t.Errorf("lines have a time of their own besides:\n%s", out)
	}
	page := manual.Displays(t, "p9auth-site.7", "Logs")
	// The collector is another machine; here it has another file.
	s.do(t, "/root", page[remote])
	s.do(t, "/root", page[upload])
	for _, want := range []string{refused, `msg="session opened" .*user=alice`, accepted, failed} {
		s.wantPrint(t, page[collected], want)
	}
}

func TestSyslogIsForwarded(t *testing.T) {
	s := up(t)
	s.journal(t)
	// Debian's own configuration, but for the kernel's messages, which are those
	// of the machine that the test runs on.
	s.Sh(t, `sed -i /imklog/d /etc/rsyslog.conf
mkdir -p /var/spool/rsyslog /var/log/site
cat >/etc/site/collector.conf <<'END'
global(DefaultNetstreamDriver="ossl"
    DefaultNetstreamDriverCAFile="/etc/site/ca.pem"
    DefaultNetstreamDriverCertFile="/etc/site/logs.pem"
    DefaultNetstreamDriverKeyFile="/etc/site/logs.key")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
input(type="imtcp" port="6514")
action(type="omfile" file="/var/log/site/all")
END`)
	page := manual.Displays(t, "p9auth-site.7", "Logs")
	s.do(t, "/root", page[bySyslog])
	// What is logged while the collector is away is not lost, even if rsyslog is
	// started again meanwhile.
	s.attack(t)
	s.wantPrint(t, "cat /var/log/auth.log", `sshd\[\d+\]: `+failed)
	s.systemctl(t, "restart", "rsyslog")
	s.daemon(t, "collector")
	for _, want := range []string{`sshd\[\d+\]: ` + accepted, `sshd\[\d+\]: ` + failed, `factotum\[\d+\]: .*` + refused} {
		s.wantPrint(t, "cat /var/log/site/all", `(?m)^.* `+want)
	}
}

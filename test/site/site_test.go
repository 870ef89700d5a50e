//go:build site

package site

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p9auth/test/manual"
	"p9auth/test/testbed"
)

const password = "open-sesame"

// root is where scripts/deps-site unpacks.
func root() string { return filepath.Join(manual.Top(), "build", "site", "root") }

// TestMain runs the tests in a network namespace, which has a loopback only.
func TestMain(m *testing.M) {
	const inside = "P9AUTH_SITE_NETWORK"
	if os.Getuid() == 0 && os.Getenv(inside) == "" {
		if _, err := os.Stat(root()); err == nil {
			exe, err := os.Executable()
			if err == nil {
				argv := append([]string{"unshare", "--net", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, exe}, os.Args[1:]...)
				var unshare string
				if unshare, err = exec.LookPath("unshare"); err == nil {
					err = syscall.Exec(unshare, argv, append(os.Environ(), inside+"=1"))
				}
			}
			fmt.Fprintln(os.Stderr, "a network namespace:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// A site is a machine of a site, vm.example.com, and the site's servers.
type site struct {
	*testbed.Bed
	running map[string]*exec.Cmd
}

// up starts a testbed that has the packages, as they are when they have just
// been installed, and certificates of the site.
func up(t *testing.T) *site {
	t.Helper()
	if _, err := os.Stat(root()); err != nil {
		t.Skip("needs packages that scripts/deps-site unpacks below build/site: make test-site")
	}
	s := &site{Bed: testbed.Up(t), running: map[string]*exec.Cmd{}}
	overlay := filepath.Join(s.Dir, "overlay")
	s.Sh(t, "cd "+overlay+` && mkdir usr.up usr.work && mount -t overlay site -o lowerdir=`+root()+`/usr:/usr,upperdir=usr.up,workdir=usr.work /usr
cp -a --update=none `+root()+`/etc/. /etc/ 2>/dev/null || cp -an `+root()+`/etc/. /etc/
cp -an `+root()+`/var/. /var/
echo '127.0.0.1 ldap.example.com logs.example.com vm.example.com' >>/etc/hosts
echo vm.example.com >/etc/hostname
echo PerSourcePenalties no >>/etc/p9auth/sshd_config # more guesses come from here than from a person
for u in nslcd systemd-journal-upload systemd-journal-remote prometheus; do
	id $u >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin $u
done
[ -s /etc/machine-id ] || systemd-id128 new >/etc/machine-id
mkdir -p /run/nslcd /etc/site /var/log/journal/remote /var/lib/systemd/journal-upload && chown systemd-journal-upload /var/lib/systemd/journal-upload && chown nslcd /run/nslcd
cd /etc/site
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=example.com CA' -keyout ca.key -out ca.pem 2>/dev/null
for h in ldap logs vm; do
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$h.example.com -keyout $h.key -out $h.csr 2>/dev/null
	printf 'subjectAltName=DNS:%s.example.com\n' $h >$h.ext
	openssl x509 -req -days 2 -in $h.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile $h.ext -out $h.pem 2>/dev/null
	install -D -m 644 $h.pem /etc/ssl/certs/$h.example.com.pem
	install -D -m 644 $h.key /etc/ssl/private/$h.example.com.key
done
chmod 755 /etc/ssl/private
install -m 644 ca.pem /etc/ssl/certs/example.com-ca.pem
cat ca.pem >>/etc/ssl/certs/ca-certificates.crt`)
	s.systemctl(t, "reload", "factotum", "p9auth-ssh")
	return s
}

// write makes a file inside the testbed.
func (s *site) write(t *testing.T, path, text string) {
	t.Helper()
	cmd := s.Command("tee", path)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("write %s: %v: %s", path, err, out)
	}
}

// do does what a display of the page says, as root in a folder. There is no
// systemd in a testbed: its part is played by systemctl.
func (s *site) do(t *testing.T, folder, display string) string {
	t.Helper()
	var out, chunk strings.Builder
	run := func() {
		if chunk.Len() > 0 {
			out.WriteString(s.Sh(t, "mkdir -p "+folder+"\ncd "+folder+"\n"+chunk.String()) + "\n")
			chunk.Reset()
		}
	}
	for line := range strings.Lines(display) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "systemctl" {
			run()
			s.systemctl(t, f[1], f[2:]...)
			continue
		}
		chunk.WriteString(line)
	}
	run()
	return strings.TrimSpace(out.String())
}

// systemctl does what systemctl would: what it starts is what the units of the
// packages say.
func (s *site) systemctl(t *testing.T, verb string, units ...string) {
	t.Helper()
	for _, u := range units {
		switch {
		case u == "--now":
		case u == "factotum" && verb == "reload":
			s.signal(t, "factotum", syscall.SIGHUP, "configuration read again")
		case u == "factotum" && verb == "restart":
			s.restartFactotum(t)
		case u == "p9auth-ssh" && verb == "reload":
			s.reloadSSHFront(t)
		case daemons[u].argv != nil && (verb == "restart" || verb == "enable"):
			s.daemon(t, u)
		default:
			t.Fatalf("systemctl %s %s: the test does not know how", verb, u)
		}
	}
}

// A daemon is a server of the site's or a client of one.
type daemon struct {
	argv  []string
	ready string // a command that succeeds once it answers
}

var daemons = map[string]daemon{
	"slapd":            {[]string{"slapd", "-h", "ldaps://ldap.example.com/", "-f", "/etc/site/slapd.conf", "-d", "0"}, "ldapsearch -x -H ldaps://ldap.example.com/ -b dc=example,dc=com -s base"},
	"nslcd":            {[]string{"nslcd", "-n"}, "getent passwd carol"},
	"sssd":             {[]string{"sssd", "-i", "--logger=stderr"}, "getent passwd carol"},
	"systemd-journald": {[]string{"/usr/lib/systemd/systemd-journald"}, "test -S /run/systemd/journal/stdout"},
	"systemd-journal-upload": {[]string{"setpriv", "--reuid", "systemd-journal-upload", "--groups", "systemd-journal", "/usr/lib/systemd/systemd-journal-upload", "--save-state=/var/lib/systemd/journal-upload/state"},
		"true"},
	"systemd-journal-remote.socket": {[]string{"systemd-socket-activate", "-l", "19532", "/usr/lib/systemd/systemd-journal-remote", "--listen-https=-3", "--output=/var/log/journal/remote/"},
		"true"},
	"rsyslog":                  {[]string{"systemd-socket-activate", "-d", "-l", "/run/systemd/journal/syslog", "rsyslogd", "-n", "-iNONE"}, "test -S /run/systemd/journal/syslog"},
	"collector":                {[]string{"rsyslogd", "-n", "-iNONE", "-f", "/etc/site/collector.conf"}, "true"},
	"prometheus-node-exporter": {[]string{"setpriv", "--reuid", "prometheus", "--clear-groups", "prometheus-node-exporter"}, "curl -sf http://localhost:9100/metrics"},
}

// daemon starts a server, or starts it again, and waits until it answers.
func (s *site) daemon(t *testing.T, name string) {
	t.Helper()
	s.stop(name)
	d := daemons[name]
	log, err := os.OpenFile(filepath.Join(s.Dir, "log", name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := s.Command(d.argv...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.running[name] = cmd
	t.Cleanup(func() {
		s.stop(name)
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("%s says:\n%s", name, out[max(0, len(out)-4000):])
		}
	})
	if d.ready != "" && !testbed.Eventually(func() bool { return s.Command("sh", "-c", d.ready).Run() == nil }) {
		out, _ := os.ReadFile(log.Name())
		t.Fatalf("%s does not answer: %s", name, out)
	}
}

func (s *site) stop(name string) {
	if cmd := s.running[name]; cmd != nil {
		cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		delete(s.running, name)
	}
}

// factotum is the pid of factotum.
func (s *site) factotum(t *testing.T) int {
	t.Helper()
	p := s.Pids("factotum")
	if len(p) != 1 {
		t.Fatalf("processes of factotum: %v", p)
	}
	return p[0]
}

// signal sends factotum a signal and waits for what it logs then.
func (s *site) signal(t *testing.T, program string, sig syscall.Signal, want string) {
	t.Helper()
	n := strings.Count(s.Log(), want)
	if err := syscall.Kill(s.factotum(t), sig); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return strings.Count(s.Log(), want) > n }) {
		t.Fatalf("%s does not log %q", program, want)
	}
}

// reloadSSHFront has sshfront read its configuration again, and waits for that.
func (s *site) reloadSSHFront(t *testing.T) {
	t.Helper()
	read := func() int {
		log, _ := os.ReadFile(filepath.Join(s.Dir, "log", "sshfront"))
		return strings.Count(string(log), "configuration read again")
	}
	p := s.Pids("sshfront")
	if len(p) != 1 {
		t.Fatalf("listeners: %v", p)
	}
	n := read()
	if err := syscall.Kill(p[0], syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return read() > n }) {
		t.Fatal("sshfront does not read its configuration again")
	}
}

// restartFactotum ends factotum and starts it again.
func (s *site) restartFactotum(t *testing.T) {
	t.Helper()
	s.signal(t, "factotum", syscall.SIGTERM, "factotum ends")
	if !testbed.Eventually(func() bool { return len(s.Pids("factotum")) == 0 }) {
		t.Fatal("factotum does not end")
	}
	// Its predecessor's log says that it is ready.
	if err := os.Truncate(filepath.Join(s.Dir, "log", "factotum"), 0); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(s.Top, "scripts", "testbed"), "start-factotum", s.Dir).CombinedOutput(); err != nil {
		t.Fatalf("start factotum again: %v: %s", err, out)
	}
}

// An ssh is a client's command line. The client is inside the testbed, as vm is
// known there.
type ssh struct {
	user, method string
	options      []string
	password     string
}

// run runs a command by ssh and returns what it and ssh print.
func (c ssh) run(t *testing.T, s *site, command string) (string, error) {
	t.Helper()
	var argv []string
	if c.password != "" {
		argv = []string{"sshpass", "-p", c.password}
	}
	argv = append(argv, "ssh", "-F", "/dev/null", "-p", s.port(t), "-o", "NumberOfPasswordPrompts=1", "-o", "PreferredAuthentications="+c.method)
	argv = append(argv, c.options...)
	out, err := s.Command(append(argv, c.user+"@vm.example.com", command)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// anyHost are the options of a client that does not ask which machine it is.
var anyHost = []string{"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"}

// wantPrints checks that a login by ssh works, and what a command prints.
func (c ssh) wantPrints(t *testing.T, s *site, command, want string) {
	t.Helper()
	if out, err := c.run(t, s, command); err != nil || out != want {
		t.Errorf("%s by %s: %s: %v: %q, not %q", c.user, c.method, command, err, out, want)
	}
}

// wantRefused checks that a login by ssh does not work.
func (c ssh) wantRefused(t *testing.T, s *site) {
	t.Helper()
	if out, err := c.run(t, s, "id"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("%s by %s is not refused: %v: %s", c.user, c.method, err, out)
	}
}

// atConsole gets to the password of a login at a console.
func (s *site) atConsole(t *testing.T, user, password string) *testbed.Term {
	t.Helper()
	term := s.Start(t, testbed.As("_login", "/sbin/agetty", "--login-program", s.Bin("login"), "-", "linux")...)
	term.Expect("login: ")
	term.Send(user + "\n")
	term.Expect("Password: ")
	term.Send(password + "\n")
	return term
}

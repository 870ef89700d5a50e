package openssh

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

var (
	all    = flag.Bool("all", false, "run all scripts, each with the real sshd too, and not only a sample")
	server = flag.String("server", "", "run with sshd or with sshfront only")
	keep   = flag.String("keep", "", "keep what the scripts print, and their logs, in this folder")
	atOnce = flag.Int("at-once", 2, "how many scripts run at a time")
)

// regress is where Debian has the suite.
const regress = "/usr/lib/openssh/regress"

// limit is how long a script may take, and shorter of one that is not to pass: conch waits
// for ever for a server with which it has no algorithm in common.
const (
	limit   = 20 * time.Minute
	shorter = 3 * time.Minute
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sshd":
		os.Exit(standinMain(os.Args[1:]))
	case "ssh":
		os.Exit(clientMain(os.Args[1:]))
	}
	testbed.Main(m, testbed.Programs{"script": scriptMain})
}

// servers are what a script runs against.
var servers = []string{"sshd", "sshfront"}

// An outcome is what became of a script.
type outcome struct {
	state string // passed, failed, or skipped
	why   string // what it says itself, unless it passed
	took  time.Duration
}

func TestTheScriptsOfOpenSSHsOwnSuitePass(t *testing.T) {
	b := testbed.Up(t)
	lay(t, b)
	tried, scripts := servers, sample
	if *all {
		scripts = list(t, b)
	} else {
		tried = servers[1:]
	}
	if *server != "" {
		tried = []string{*server}
	}
	prepare(t, b)
	if b.Command("grep", "-q", "REGRESS_INTEROP_DROPBEAR", regress+"/test-exec.sh").Run() == nil {
		clear(inPart)
	}

	var mu sync.Mutex
	table := map[string]map[string]outcome{}
	places := make(chan bool, *atOnce)
	t.Run("script", func(t *testing.T) {
		for _, name := range scripts {
			if notOfServers[name] != "" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				places <- true
				defer func() { <-places }()
				got := map[string]outcome{}
				for _, server := range tried {
					o, text := run(t, b, server, name)
					for try := 1; o.state == "failed" && cutShort[name] != "" && try < 3; try++ {
						t.Logf("%s with %s: %s, and once more: %s", name, server, o.why, cutShort[name])
						o, text = run(t, b, server, name)
					}
					got[server] = o
					if problem := judge(name, server, o); problem != "" {
						t.Errorf("%s with %s: %s\n%s", name, server, problem, text)
					}
				}
				mu.Lock()
				table[name] = got
				mu.Unlock()
			})
		}
	})
	t.Log("\n" + show(table, scripts, tried))
}

// judge says what is wrong with an outcome; "" is nothing.
func judge(name, server string, o outcome) string {
	expected, why := "passed", ""
	if w := unavailable[name]; w != "" {
		expected, why = "skipped", w
	}
	if w := difference(name); w != "" && server == "sshfront" {
		expected, why = "failed", w
	}
	switch {
	case o.state == expected:
		return ""
	case why != "":
		return fmt.Sprintf("%s, and expect_test.go names it as one that does not pass: %s", o.state, why)
	}
	return o.state + ": " + o.why
}

// show is the table of outcomes.
func show(table map[string]map[string]outcome, scripts, tried []string) string {
	var b strings.Builder
	count := map[string]int{}
	fmt.Fprintf(&b, "%-24s", "script")
	for _, s := range tried {
		fmt.Fprintf(&b, "%-18s", s)
	}
	b.WriteString("\n")
	for _, name := range scripts {
		if why := notOfServers[name]; why != "" {
			fmt.Fprintf(&b, "%-24s%-*s%s\n", name, 18*len(tried), "does not apply", why)
			count["does not apply"]++
			continue
		}
		row, ok := table[name]
		if !ok {
			continue // go test -run has not chosen it
		}
		fmt.Fprintf(&b, "%-24s", name)
		why := cmp.Or(difference(name), unavailable[name], inPart[name].why)
		for _, s := range tried {
			o := row[s]
			if o.state == "skipped" {
				o.state = "does not apply"
			}
			if o.state == "passed" && s == "sshfront" && inPart[name].without != "" {
				o.state = "in part"
			}
			fmt.Fprintf(&b, "%-18s", fmt.Sprintf("%s %.0fs", o.state, o.took.Seconds()))
			if why == "" {
				why = o.why
			}
			if s == "sshfront" {
				count[o.state]++
			}
		}
		fmt.Fprintf(&b, "%s\n", why)
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&b, "%s: %d. ", state, count[state])
	}
	return b.String()
}

// lay puts the suite where Debian has it, if scripts/deps has unpacked and not
// installed it.
func lay(t *testing.T, b *testbed.Bed) {
	if b.Command("test", "-e", regress, "-a", "-x", "/usr/bin/sudo").Run() == nil {
		return
	}
	lower := ""
	for _, p := range []string{"openssh-tests", "sudo"} {
		dir := filepath.Join(b.Top, "build", p, "usr")
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("needs Debian's %s, which scripts/deps unpacks into build/", p)
		}
		lower += dir + ":"
	}
	b.Sh(t, "cd "+b.Dir+"/overlay; mkdir usr.up usr.work; mount -t overlay openssh-tests -o lowerdir="+lower+"/usr,upperdir=usr.up,workdir=usr.work /usr")
}

// list is all scripts of the suite, in the order of its Makefile.
func list(t *testing.T, b *testbed.Bed) []string {
	makefile := b.Sh(t, "cat "+regress+"/Makefile")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^(?:LTESTS|INTEROP_TESTS|EXTRA_TESTS)\+?=((?:.*\\\n)*.*)$`).FindAllStringSubmatch(makefile, -1) {
		names = append(names, strings.Fields(strings.ReplaceAll(m[1], "\\\n", " "))...)
	}
	if len(names) < 70 {
		t.Fatalf("the suite has %d scripts", len(names))
	}
	return names
}

// prepare makes the user that the scripts run as, who may do all by sudo, and the
// suite's folder, with keys.
func prepare(t *testing.T, b *testbed.Bed) {
	b.Self(t)
	b.Sh(t, `
grep -qs "[[:space:]]$(uname -n)\>" /etc/hosts || echo "127.0.0.1 localhost $(uname -n)" >>/etc/hosts # sudo looks it up
useradd --create-home --shell /bin/bash --uid 7777 tester
mkdir -p /etc/sudoers.d `+binDir+` /run/sshd `+b.Dir+`/standin
chmod 1777 /run/openssh-tests # sshd -t is run as the user, too
cp -a `+b.Top+`/bin/. `+binDir+` # a copy: a build meanwhile does not matter
printf '%s\n' 'Defaults !use_pty, !lecture, env_keep += "LANG"' 'tester ALL=(ALL:ALL) NOPASSWD: ALL' 'root ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers
chmod 440 /etc/sudoers
printf '%s\n' 'account required pam_permit.so' 'session required pam_permit.so' >/etc/pam.d/sudo
cp `+b.Dir+`/self `+b.Dir+`/standin/sshd
cp `+b.Dir+`/self `+b.Dir+`/standin/ssh
cp -a `+regress+` `+b.Dir+`/template
echo 'tid=keys' >`+b.Dir+`/template/keys.sh
chown -R tester:tester `+b.Dir+`/template
`)
	if out, err := b.Command(b.Dir+"/self", "script", b.Dir, b.Dir+"/template", "sshd", "keys", "").CombinedOutput(); err != nil {
		t.Fatalf("the suite makes no keys: %v: %s", err, out)
	}
}

// run runs a script against a server, and returns what became of it, and what it said.
func run(t *testing.T, b *testbed.Bed, server, name string) (outcome, string) {
	// Scripts look for words in configurations that have the folder's name.
	obj, err := os.MkdirTemp(b.Dir, "")
	if err != nil {
		t.Fatal(err)
	}
	b.Sh(t, "cp -a "+b.Dir+"/template/. "+obj+"; chown tester:tester "+obj+"; chmod 755 "+obj)
	defer os.RemoveAll(obj)
	within := limit
	if difference(name) != "" {
		within = shorter
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	plain := b.Command(b.Dir+"/self", "script", b.Dir, obj, server, name, inPart[name].without)
	cmd := exec.CommandContext(ctx, plain.Path, plain.Args[1:]...)
	// A daemon that a script leaves has its output, too.
	out, err := os.Create(obj + ".out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// As the suite's run-tests has it.
	if cmd.Stdin, err = os.Open("/dev/zero"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = cmd.Run()
	o := outcome{state: "passed", took: time.Since(began)}
	ns, _ := os.ReadFile(obj + "/netns")
	endAll(string(ns))
	b2, _ := os.ReadFile(obj + ".out")
	text := string(b2)
	skipped := regexp.MustCompile(`(?m)^SKIPPED: (.*)$`).FindStringSubmatch(text)
	switch {
	case ctx.Err() != nil:
		o.state, o.why = "failed", "does not end within "+within.String()
	case err != nil:
		o.state, o.why = "failed", reason(obj, text)
	case skipped != nil:
		o.state, o.why = "skipped", skipped[1]
	}
	if *keep != "" {
		save(t, obj, filepath.Join(*keep, server, name))
	}
	return o, text
}

// reason is the first complaint of a script.
func reason(obj, text string) string {
	log, _ := os.ReadFile(obj + "/failed-regress.log")
	if m := regexp.MustCompile(`(?m)^(?:FAIL|FATAL): *(?:FATAL: *)?(.*)$`).FindSubmatch(log); m != nil {
		return string(m[1])
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// save keeps the logs of a script.
func save(t *testing.T, obj, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{obj + ".out", obj + "/failed-regress.log", obj + "/failed-ssh.log", obj + "/failed-sshd.log", obj + "/sshd_config", obj + "/sshd_proxy"} {
		text, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, strings.TrimPrefix(f, obj)[1:]), text, 0o644)
		} else if os.IsNotExist(err) {
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// endAll ends all processes of a network namespace, which one script had for itself.
func endAll(ns string) {
	for range 50 {
		left := false
		links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
		for _, l := range links {
			if at, _ := os.Readlink(l); at == ns && ns != "" {
				var pid int
				fmt.Sscanf(l, "/proc/%d/", &pid)
				syscall.Kill(pid, syscall.SIGKILL)
				left = true
			}
		}
		if !left {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scriptMain runs a script of the suite as the user tester, in a network namespace of
// its own, so that no two use one port. args are the testbed's folder, the script's own
// copy of the suite, the server, the script's name, and what "ssh -Q" does not tell it.
func scriptMain(args []string) {
	if err := runScript(args[0], args[1], args[2], args[3], args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runScript(bed, obj, server, name, without string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	if err := os.WriteFile(obj+"/netns", []byte(ns), 0o644); err != nil {
		return err
	}
	ssh, sshd := "/usr/bin/ssh", "/usr/sbin/sshd"
	if server == "sshfront" {
		sshd = bed + "/standin/sshd"
		if without != "" {
			ssh = bed + "/standin/ssh"
		}
	}
	// The variables of the suite's run-tests.
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", "HOME=/home/tester", "USER=tester", "LOGNAME=tester", "SHELL=/bin/bash", "LANG=C.UTF-8",
		"SUDO=sudo", "TEST_ENV=MALLOC_OPTIONS=CFGJRSUX", "TEST_SHELL=/bin/sh", "BUILDDIR=" + obj, "OBJ=" + obj,
		"TEST_SSH_SSH=" + ssh, withoutVariable + "=" + without, "TEST_SSH_SSHD=" + sshd, "TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server",
		"TEST_SSH_SSHD_AUTH=/usr/lib/openssh/sshd-auth", "TEST_SSH_SSHD_SESSION=/usr/lib/openssh/sshd-session",
		"TEST_SSH_PLINK=/usr/bin/plink", "TEST_SSH_PUTTYGEN=/usr/bin/puttygen", "TEST_SSH_CONCH=/usr/bin/conch3",
		"TEST_SSH_DROPBEAR=/usr/sbin/dropbear", "TEST_SSH_DROPBEARKEY=/usr/bin/dropbearkey", "TEST_SSH_DROPBEARCONVERT=/usr/bin/dropbearconvert", "TEST_SSH_DBCLIENT=/usr/bin/dbclient",
		"TEST_SSH_OPENSSL=/usr/bin/openssl", "TEST_SSH_IPV6=yes", "TEST_SSH_ECC=yes", "TEST_SSH_UNSAFE_PERMISSIONS=1",
	}
	if err := os.Chdir(obj); err != nil {
		return err
	}
	argv := []string{"setpriv", "--reuid", "tester", "--regid", "tester", "--init-groups", "--", "env", "--default-signal",
		"/bin/sh", "test-exec.sh", obj, obj + "/" + name + ".sh"}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, env)
}

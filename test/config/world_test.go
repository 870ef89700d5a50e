// Package config compares what "sshd -T" and "sshfront -T" make of a
// configuration, for the sshd of Debian 12 and that of Debian 13. What differs stands,
// by its name, in the table of differences of p9auth_sshd_config(5).
package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"p9auth/test/manual"
)

// all has every case tried, and not a sample.
var all = flag.Bool("all", false, "try each value of each keyword with each release")

// A world is a root directory with one release of sshd, and sshfront.
type world struct {
	release int // of Debian
	root    string
	files   atomic.Int64
	// other are keywords that this release prints in another way than Debian 13's,
	// for an empty configuration.
	other map[string]bool
}

// release13 is where scripts/openssh13 unpacks the OpenSSH of Debian 13.
var release13 = filepath.Join(manual.Top(), "build", "openssh13", "root")

// worlds are those of the releases that are here: what is installed, and what
// scripts/openssh13 has unpacked.
var worlds = sync.OnceValues(func() ([]*world, error) {
	dir, err := os.MkdirTemp("", "config")
	if err != nil {
		return nil, err
	}
	top = dir
	system, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, err
	}
	m := regexp.MustCompile(`(?m)^VERSION_ID="(\d+)"`).FindSubmatch(system)
	if m == nil {
		return nil, fmt.Errorf("/etc/os-release names no release of Debian: %s", system)
	}
	installed, _ := strconv.Atoi(string(m[1]))
	// Since OpenSSH 9.8, sshd is three programs.
	libs := `sshd=/usr/sbin/sshd
for p in /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth; do [ ! -e $p ] || sshd="$sshd $p"; done
cp --parents -L $sshd $(ldd $sshd | grep -o '/[^ ]*[^: ]' | sort -u) "$1"`
	l := []*world{{release: installed, root: dir + "/installed"}}
	if err := l[0].build(libs); err != nil {
		return nil, err
	}
	if _, err := os.Stat(release13); err == nil && installed != 13 {
		w := &world{release: 13, root: dir + "/13"}
		if err := w.build(`cd ` + release13 + ` && cp -a lib lib64 usr "$1"`); err != nil {
			return nil, err
		}
		l = append(l, w)
	}
	return l, nil
})

// top has the worlds.
var top string

func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if top != "" {
		os.RemoveAll(top)
	}
	os.Exit(status)
}

// build makes a world with what a script copies into it.
func (w *world) build(script string) error {
	const also = `
cd "$1"
mkdir -p etc/ssh/sshd_config.d run/sshd dev proc/self home tmp c x y
cp "$2" sshfront
ln -s /sshfront proc/self/exe # what sshfront -t looks at
: >dev/null
cat >etc/passwd <<'-'
root:x:0:0::/root:/bin/sh
sshd:x:100:100::/run/sshd:/bin/sh
_sshfront:x:101:101::/:/bin/sh
alice:x:1000:1000::/home/alice:/bin/sh
bob:x:1001:1001::/home/bob:/bin/sh
-
cat >etc/group <<'-'
root:x:0:
sshd:x:100:
_sshfront:x:101:
alice:x:1000:
bob:x:1001:
wizards:x:1002:alice
staff:x:1003:alice,bob
-
printf 'ssh\t22/tcp\nhttp\t80/tcp\n' >etc/services
echo '127.0.0.1 localhost' >etc/hosts
echo '::1 localhost' >>etc/hosts
chmod 711 sshfront
for t in rsa ecdsa ed25519; do cp "$3/$t" etc/ssh/ssh_host_"$t"_key && cp "$3/$t.pub" etc/ssh/ssh_host_"$t"_key.pub; done
`
	keys := filepath.Join(top, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	for _, k := range []string{"rsa", "ecdsa", "ed25519"} {
		file := filepath.Join(keys, k)
		if _, err := os.Stat(file); err == nil {
			continue
		}
		if out, err := exec.Command("ssh-keygen", "-q", "-t", k, "-N", "", "-C", "", "-f", file).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	if err := os.Mkdir(w.root, 0o755); err != nil {
		return err
	}
	program := filepath.Join(manual.Top(), "bin", "sshfront")
	if out, err := exec.Command("sh", "-e", "-c", "("+script+")\n"+also, "sh", w.root, program, keys).CombinedOutput(); err != nil {
		return fmt.Errorf("the root of Debian %d's sshd: %w: %s", w.release, err, out)
	}
	return nil
}

// each runs a test in each world.
func each(t *testing.T, f func(t *testing.T, w *world)) {
	if os.Geteuid() != 0 {
		t.Skip("chroot(2) needs root")
	}
	l, err := worlds()
	if err != nil {
		t.Fatal(err)
	}
	if len(l) == 1 && l[0].release != 13 {
		t.Error("scripts/openssh13 has not unpacked Debian 13's sshd")
	}
	newest := l[len(l)-1].standard(t)
	for _, w := range l {
		if w.other = map[string]bool{}; w.release < 13 {
			older := w.standard(t)
			for k := range newest {
				w.other[k] = !slices.Equal(older[k], newest[k])
			}
		}
		t.Run(fmt.Sprintf("Debian %d", w.release), func(t *testing.T) { f(t, w) })
	}
}

// standard is what sshd prints of an empty configuration.
func (w *world) standard(t *testing.T) map[string][]string {
	file := w.write(t, pam+"\n")
	return w.ask(t, "/usr/sbin/sshd", file, "-T").values
}

// A verdict is what a program says of a configuration.
type verdict struct {
	taken  bool
	status int                 // of its exit
	line   int                 // of the first complaint about the file; 0 for none
	values map[string][]string // by keyword, as they are printed
	said   string              // on standard error
}

// complaint is a line of the file in sshd's way and in ours.
var complaint = regexp.MustCompile(`(?m)(?: line |/c/\d+:)(\d+):`)

// ask has a program of the world read a configuration: it prints that, or the
// part for a connection of "-C spec".
func (w *world) ask(t *testing.T, program, file string, args ...string) verdict {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-f", file}, args...)...)
	cmd.Dir = "/tmp"
	cmd.Env = []string{"PATH=/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: w.root}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	v := verdict{taken: err == nil, status: cmd.ProcessState.ExitCode(), said: errs.String(), values: map[string][]string{}}
	if m := complaint.FindStringSubmatch(v.said); m != nil && !v.taken {
		v.line, _ = strconv.Atoi(m[1])
	}
	for l := range strings.Lines(out.String()) {
		key, value, _ := strings.Cut(strings.TrimRight(l, "\n"), " ")
		v.values[key] = append(v.values[key], value)
	}
	return v
}

// write puts a configuration into the world. It returns its name there.
func (w *world) write(t *testing.T, text string) string {
	t.Helper()
	name := fmt.Sprintf("/c/%d", w.files.Add(1))
	if err := os.WriteFile(w.root+name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// both asks sshd and sshfront about a configuration.
func (w *world) both(t *testing.T, text string, args ...string) (theirs, ours verdict) {
	t.Helper()
	file := w.write(t, text)
	defer os.Remove(w.root + file)
	return w.ask(t, "/usr/sbin/sshd", file, args...), w.ask(t, "/sshfront", file, args...)
}

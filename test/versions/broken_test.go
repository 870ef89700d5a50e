package versions

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// The user process is started from the file, at each login. Where an upgrade has gone
// wrong, people are told that the session cannot be opened, and the log says why; the
// sessions that are open go on, and nothing needs a restart when the file is there again.
func TestABrokenFileOfSSHFrontIsSaidToWhoLogsIn(t *testing.T) {
	m := newMachine(t)
	m.install(m.now, programs...)
	m.startFactotum()
	m.startSSHFront()
	open := m.open()
	file := filepath.Join(m.bin, "sshfront")
	for what, c := range map[string]struct{ spoil, logged string }{
		"removed":        {"rm $f", "cannot execute " + file + ": no such file or directory"},
		"a text":         {"echo nothing >$f.new; chmod 755 $f.new; mv $f.new $f", "cannot execute " + file + ": exec format error"},
		"cut short":      {"head -c 100000 $f >$f.new; chmod 755 $f.new; mv $f.new $f", `killed by signal \d+`},
		"not executable": {"cp $f $f.new; chmod 644 $f.new; mv $f.new $f", "cannot execute " + file + ": permission denied"},
		"a folder":       {"rm $f; mkdir $f", "cannot execute " + file + ": permission denied"},
	} {
		log := filepath.Join(m.Dir, "log", "sshfront")
		before, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		m.Sh(t, "f="+file+"; "+c.spoil)
		out, err := m.ssh("-n", "alice@127.0.0.1", "id -un").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "the session cannot be opened; the administrator finds the reason in the log") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
		if !testbed.Eventually(func() bool {
			all, err := os.ReadFile(log)
			return err == nil && regexp.MustCompile(`session process \d+ for .*`+c.logged).Match(all[len(before):])
		}) {
			t.Errorf("%s: the log does not say %s", what, c.logged)
		}
		open.goesOn()
		os.RemoveAll(file)
		m.install(m.now, "sshfront")
		m.wantIn()
		open.goesOn()
	}
}

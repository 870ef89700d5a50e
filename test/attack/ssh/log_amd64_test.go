package ssh

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// TestALineOfATakenOverProcessPassesForNobodyElses takes a connection process over,
// which writes to its standard error what factotum and other processes say, and sets
// flags of that descriptor that others would share. The log says who wrote it, and what
// others have to say goes on into it.
func TestALineOfATakenOverProcessPassesForNobodyElses(t *testing.T) {
	b := up(t)
	b.configure(t, "")
	x := takeOver(t, b, net.IPv4(127, 0, 1, 99))
	forged := []string{
		"Accepted password for root from 203.0.113.7 port 22 ssh2",
		"Failed password for root from 203.0.113.7 port 22 ssh2",
		"Connection closed by authenticating user root 203.0.113.7 port 22 [preauth]",
	}
	text := []byte("\r" + strings.Join(forged, "\n<6>") + "\n")
	if got := x.call(unix.SYS_WRITE, 2, x.put(text), uint64(len(text))); got != int64(len(text)) {
		t.Fatalf("write: %v", got)
	}
	log := func() string {
		text, err := os.ReadFile(filepath.Join(b.Dir, "log", "sshfront"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	who := fmt.Sprintf(` sshfront\[%[1]d\]: connection process %[1]d for connection from 127\.0\.1\.99 to 127\.0\.0\.1 says: `, x.pid)
	for i, line := range forged {
		if i == 0 {
			line = `\015` + line
		}
		marked := regexp.MustCompile(`(?m)^\S+` + who + regexp.QuoteMeta(line) + `$`)
		if !testbed.Eventually(func() bool { return marked.MatchString(log()) }) {
			t.Errorf("no line with who says %s in the log:\n%s", line, log())
		}
		if n := strings.Count(log(), forged[i]); n != 1 {
			t.Errorf("the log has it %d times: %s", n, log())
		}
	}

	// The log's descriptor belongs to the listener alone.
	listener := b.Pids("sshfront")
	if len(listener) != 1 {
		t.Fatalf("listeners: %v", listener)
	}
	info := fmt.Sprintf("/proc/%d/fdinfo/2", listener[0])
	flags := func() string {
		text, err := os.ReadFile(info)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`flags:\s+(\d+)`).FindString(string(text))
	}
	before := flags()
	if got := x.call(unix.SYS_FCNTL, 2, unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND); got != int64(0) {
		t.Fatalf("F_SETFL: %v", got)
	}
	if after := flags(); after != before {
		t.Errorf("the flags of the log are %s, and were %s", after, before)
	}
	ours, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", listener[0]))
	theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", x.pid))
	if ours == theirs || !strings.HasPrefix(theirs, "pipe:") {
		t.Errorf("the standard error of the process is %s, and the listener's %s", theirs, ours)
	}
	other, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 98)}}).Dial("tcp", "127.0.0.1:"+b.port(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fmt.Fprint(other, "hello\r\n")
	sshds := fmt.Sprintf(": banner exchange: Connection from 127.0.1.98 port %d: invalid format\n", other.LocalAddr().(*net.TCPAddr).Port)
	if !testbed.Eventually(func() bool { return strings.Contains(log(), sshds) }) {
		t.Errorf("others' lines do not go on: %s", log())
	}
	b.wantLogin(t)
}

package daemon

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
	"p9auth/test/testbed/linger"
)

// unread is a program that connects to factotum as many times as its argument says, and
// each time passes the last descriptor of a TCP connection whose close lasts an hour: by
// SO_LINGER, and as the other end reads nothing. It ends when its standard input does.
func unread(args []string) {
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	var n int
	fmt.Sscan(args[0], &n)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	var keep []any
	for range n {
		c, peer, err := linger.Dial(ln)
		must(err)
		f, err := c.File()
		must(err)
		go c.Close() // the message has the last reference, or this waits
		u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: testbed.RPC, Net: "unixpacket"})
		must(err)
		u.WriteMsgUnix([]byte("anything"), unix.UnixRights(int(f.Fd())), nil) // or factotum has closed already
		go f.Close()
		keep = append(keep, peer, u)
	}
	fmt.Println("passed")
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(keep)
}

// TestADescriptorThatNobodyReadStopsNobodyElse has a user with whom factotum does not talk
// pass descriptors that take an hour to close. They are in messages that nobody reads, which
// end with the connection.
func TestADescriptorThatNobodyReadStopsNobodyElse(t *testing.T) {
	b := up(t)
	cmd := b.Command(testbed.As("alice", b.Self(t), "unread", "20")...)
	cmd.Stderr = os.Stderr
	stdin, stdout := testbed.Pipes(t, cmd)
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if said, err := stdout.ReadString('\n'); said != "passed\n" {
		t.Fatalf("%v: %s", err, said)
	}
	b.Out(t, b.In(t, "alice"))
	children := func() (pids string) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.Factotum(t)))
		for _, path := range tasks {
			text, _ := os.ReadFile(path)
			pids += string(text)
		}
		return pids
	}
	if !testbed.Eventually(func() bool { return children() == "" }) {
		t.Errorf("factotum has the children %s", children())
	}
	if n := strings.Count(b.Log(), "is not configured as a front end"); n == 0 {
		t.Errorf("nobody is refused: %s", b.Log())
	}
}

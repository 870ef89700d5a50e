package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"p9auth/test/testbed"
)

// TestNoLoginIsLostWhileTheListenerIsReplaced over a socket that somebody else keeps, as
// systemd does: one listener after another is told to end while people log in.
func TestNoLoginIsLostWhileTheListenerIsReplaced(t *testing.T) {
	need(t, "ssh")
	s := newSite(t)
	s.Configure(t, "PerSourcePenalties no\nMaxStartups 100\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	begun := 0
	// listen runs one listener, until it is told to end.
	listen := func(end func()) {
		c := s.Command("sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec "+s.Bin("sshfront")+" -D -e")
		c.ExtraFiles = []*os.File{socket}
		c.Stderr = log
		begun++
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if !testbed.Eventually(func() bool {
			b, _ := os.ReadFile(log.Name())
			return bytes.Count(b, []byte("Server listening")) >= begun
		}) {
			t.Error("the listener does not say that it listens")
		}
		end()
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("a listener that is told to end: %v", err)
		}
	}
	var over atomic.Bool
	var logins, lost atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for !over.Load() {
				c := exec.Command("timeout", append([]string{"60", "ssh", "-n", "-p", port}, append(strings.Fields(s.options()), "alice@127.0.0.1", "id -un")...)...)
				out, err := c.CombinedOutput()
				logins.Add(1)
				if err != nil || string(out) != "alice\n" {
					lost.Add(1)
					t.Errorf("a login: %v: %s", err, out)
				}
			}
		})
	}
	const listeners = 12
	for n := range listeners {
		listen(func() { time.Sleep(time.Duration(200+50*n) * time.Millisecond) })
	}
	over.Store(true)
	listen(all.Wait) // those that are waiting at the socket
	t.Logf("%d listeners, %d logins, %d lost", listeners+1, logins.Load(), lost.Load())
	if t.Failed() {
		b, _ := os.ReadFile(log.Name())
		fmt.Printf("%s", b)
	}
}

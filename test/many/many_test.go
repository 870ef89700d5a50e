// Package many has one test: many sessions of one user at once, by ssh, through the
// real programs. It says what they cost.
package many

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// sessions is how many there are unless the environment has another number in
// P9AUTH_SESSIONS: more than one uid can have conversations.
const sessions = 600

// TestManySessionsOfOneUserLockNobodyOut has alice log in hundreds of times, and stay,
// with the limits of the defaults. Then bob logs in by ssh, and alice at the console.
// The sessions are alive all along: a client changes its keys, which factotum signs.
func TestManySessionsOfOneUserLockNobodyOut(t *testing.T) {
	n := sessions
	if s := os.Getenv("P9AUTH_SESSIONS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("P9AUTH_SESSIONS=%s: not a number", s)
		}
	}
	b := testbed.Up(t)
	signer := key(t)
	b.Sh(t, "mkdir -pm 700 /home/alice/.ssh; chown alice:alice /home/alice/.ssh")
	b.Write(t, "/home/alice/.ssh/authorized_keys", string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	before := available(t)
	alone, tasks := latency(t, b), threads(t)
	began := time.Now()

	// Four log in at a time, as MaxStartups drops some from ten on, and the listener
	// hears of a login only after the client has.
	var mu sync.Mutex
	var clients []*ssh.Client
	t.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
	})
	numbers := make(chan int)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range numbers {
				c, err := dial(b, "alice", i, ssh.PublicKeys(signer))
				if err != nil {
					t.Errorf("login %d: %v", i, err)
					continue
				}
				mu.Lock()
				clients = append(clients, c)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	took := time.Since(began)
	if t.Failed() {
		return
	}
	crowded := latency(t, b)
	want := fmt.Sprintf("sessions      %d\n", n)
	status := ""
	if !testbed.Eventually(func() bool {
		status = b.Sh(t, b.Bin("factotum")+" status")
		return strings.Contains(status, want) && strings.Contains(status, "conversations 0\n")
	}) {
		t.Errorf("the status: %.400s", status)
	}
	t.Logf("a login of bob takes %d ms, and took %d ms before; %d threads for each session", crowded.Milliseconds(), alone.Milliseconds(), (threads(t)-tasks)/n)
	t.Logf("%d sessions of alice after %s, %d ms each; %d KiB of memory each", n, took.Round(time.Second), took.Milliseconds()/int64(n), (before-available(t))/uint64(n))

	if c, err := dial(b, "bob", -1, ssh.Password(testbed.Password)); err != nil {
		t.Errorf("bob: %v", err)
	} else {
		run(t, c, "bob")
		c.Close()
	}
	term := b.Start(t, testbed.As("_login", b.Bin("login"), "alice")...)
	term.Expect("Password: ")
	term.Send(testbed.Password + "\n")
	term.Expect(`\$ `)
	if got := term.Run("id -un"); got != "alice" {
		t.Errorf("alice at the console: %q", got)
	}
	term.Send("exit\n")

	// One in a hundred changes keys, and runs a program.
	for i := 0; i < n; i += 100 {
		for range 3 {
			run(t, clients[i], "alice")
		}
	}
	for _, c := range clients {
		c.Close()
	}
	clients = nil
	ended := func() bool {
		status = b.Sh(t, b.Bin("factotum")+" status")
		return strings.Contains(status, "sessions      0\n") && strings.Contains(status, "workers       0\n")
	}
	for end := time.Now().Add(testbed.Patience + took); !ended(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("sessions are left: %.400s", status)
		}
	}
}

// latency is the median of how long bob takes to log in by password and to run a program.
func latency(t *testing.T, b *testbed.Bed) time.Duration {
	t.Helper()
	took := make([]time.Duration, 9)
	for i := range took {
		began := time.Now()
		c, err := dial(b, "bob", -1, ssh.Password(testbed.Password))
		if err != nil {
			t.Fatal(err)
		}
		run(t, c, "bob")
		took[i] = time.Since(began)
		c.Close()
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// threads is how many there are on the machine, from proc_loadavg(5).
func threads(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "/")
	word, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func key(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial logs a user in. Each hundredth client changes keys after each 8 KiB.
func dial(b *testbed.Bed, user string, i int, proof ssh.AuthMethod) (*ssh.Client, error) {
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		return nil, err
	}
	c := &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{proof}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: testbed.Patience}
	if i%100 == 0 {
		c.RekeyThreshold = 8 << 10
	}
	return ssh.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)), c)
}

// run has a client run a program.
func run(t *testing.T, c *ssh.Client, user string) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Errorf("%s: %v", user, err)
		return
	}
	defer s.Close()
	if out, err := s.Output("id -un; head -c 20000 /dev/zero | tr '\\0' ."); err != nil || string(out) != user+"\n"+strings.Repeat(".", 20000) {
		t.Errorf("%s runs a program: %q, %v", user, out, err)
	}
}

// available is the kernel's word on the memory that is left, in KiB.
func available(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	var kib uint64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

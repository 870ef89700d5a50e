package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// TestManyLoginsAtOnce logs alice in on 200 terminals at the same time.
func TestManyLoginsAtOnce(t *testing.T) {
	const logins = 200
	b := testbed.Up(t)
	terms := make([]*testbed.Term, logins)
	for i := range terms {
		terms[i] = b.Start(t, testbed.As("_login", b.Bin("login"), "alice")...)
	}
	var all sync.WaitGroup
	for _, term := range terms {
		all.Go(func() {
			shows := func(what string) bool {
				return testbed.Eventually(func() bool { return strings.Contains(term.Screen(), what) })
			}
			if !shows("Password: ") {
				return
			}
			term.Send(password + "\n")
			if shows("$ ") {
				term.Send("echo I-am-$(id -un)-on-$(tty)-\n")
				shows("I-am-alice-on-/dev")
			}
		})
	}
	all.Wait()
	ttys := map[string]bool{}
	for i, term := range terms {
		_, tty, ok := strings.Cut(term.Screen(), "I-am-alice-on-")
		tty, _, ended := strings.Cut(tty, "-")
		if !ok || !ended {
			t.Errorf("login %d of %d: %q", i, logins, term.Screen())
			continue
		}
		ttys[tty] = true
	}
	for _, term := range terms {
		term.Send("exit\n")
	}
	if len(ttys) != logins {
		t.Errorf("%d terminals, want %d", len(ttys), logins)
	}
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Errorf("%d workers are left", len(b.Pids("factotum-pam")))
	}
}

const greedyEnv = "P9AUTH_TEST_GREEDY"

// TestGreedyHelper is no test: it is the front end of the next one.
func TestGreedyHelper(t *testing.T) {
	n := 0
	if fmt.Sscan(os.Getenv(greedyEnv), &n); n == 0 {
		t.Skip("is run by TestGrantsAreBounded")
	}
	c, err := capproto.Dial("/run/factotum/rpc")
	if err != nil {
		t.Fatal(err)
	}
	answer := func(p capproto.Prompt) (string, error) { return password, nil }
	for _, step := range []func() error{
		func() error { _, err := c.Start(capproto.Start{User: "alice"}); return err },
		func() error { return c.Converse(answer) },
		c.Session,
		func() error { return c.Converse(answer) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	given, refused := 0, 0
	for range n {
		switch _, err := c.AuthInfo(); {
		case err == nil:
			given++
		case capproto.CodeOf(err) == capproto.CodeLimit:
			refused++
		default:
			t.Fatal(err)
		}
	}
	fmt.Printf("given %d refused %d\n", given, refused)
	os.Stdin.Read(make([]byte, 1)) // hold what there is
}

// TestGrantsAreBounded has a front end ask for 100,000 capabilities.
func TestGrantsAreBounded(t *testing.T) {
	const asked = 100_000
	b := testbed.Up(t)
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(b.Dir, "greedy")
	if err := os.WriteFile(helper, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := b.Command(testbed.As("_login", helper, "-test.run=^TestGreedyHelper$")...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", greedyEnv, asked))
	var out testbed.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer hold.Close()
	if !testbed.Eventually(func() bool { return strings.Contains(out.String(), "refused") }) {
		t.Fatalf("it printed %q", out.String())
	}
	var given, refused int
	if _, err := fmt.Sscanf(out.String(), "given %d refused %d", &given, &refused); err != nil || given+refused != asked || given == 0 || given > 16 {
		t.Errorf("it printed %q", out.String())
	}
	b.WantLog(t, `capability refused.*too many`)
	// Nobody else is hurt, not even under the same uid.
	term := b.Start(t, testbed.As("_login", b.Bin("login"), "bob")...)
	in(t, term)
	if got := term.Run("id -un"); got != "bob" {
		t.Errorf("bob is %q", got)
	}
}

package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the demo, for the tests below.
func TestMain(m *testing.M) {
	if os.Getenv("P9AUTH_DEMO") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the demo, with a folder of its own for what it must not leave.
func command(t *testing.T) (cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for the testbed")
	}
	dir = t.TempDir()
	cmd = exec.Command(os.Args[0])
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "P9AUTH_DEMO=1", "TMPDIR="+dir, "TERM=dumb")
	return cmd, dir
}

func wantNothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// at starts the demo on a terminal and waits for agetty's prompt there.
func at(t *testing.T) (term *terminal, dir string) {
	t.Helper()
	cmd, dir := command(t)
	term, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(term.close)
	return term, dir
}

func expect(t *testing.T, term *terminal, suffix string) string {
	t.Helper()
	s, err := term.expect(context.Background(), suffix)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leave waits for the end of the demo.
func leave(t *testing.T, term *terminal) (last string, err error) {
	t.Helper()
	var s strings.Builder
	term.echo = &s
	if err := term.drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s.String(), term.cmd.Wait()
}

func TestTheDemoLogsInByItselfAndLeavesNothing(t *testing.T) {
	cmd, dir := command(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"uid=", "Accepted publickey", "Accepted keyboard-interactive", "session closed", "it worked"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	wantNothingLeft(t, dir)
}

func TestTheDemoHandsOverTheTerminal(t *testing.T) {
	term, dir := at(t)
	expect(t, term, "login: ")
	term.send(user + "\r")
	expect(t, term, "Password: ")
	term.send(password + "\r")
	expect(t, term, "$ ")
	term.send("id -un\r")
	if got := expect(t, term, "$ "); !strings.Contains(got, "\n"+user+"\n") {
		t.Errorf("this is %q", got)
	}
	term.send("exit\r")
	expect(t, term, "$ ") // by ssh, with a key
	term.send("exit\r")
	expect(t, term, "assword: ") // and with a password
	term.send(password + "\r")
	expect(t, term, "$ ")
	term.send("exit\r")
	last, err := leave(t, term)
	if err != nil || !strings.Contains(last, "it worked") {
		t.Errorf("%v\n%s", err, last)
	}
	wantNothingLeft(t, dir)
}

func TestTheDemoFailsWhenNobodyLogsIn(t *testing.T) {
	term, dir := at(t)
	expect(t, term, "login: ")
	term.send("\x1d")
	last, err := leave(t, term)
	if err == nil || !strings.Contains(last, "demo: nobody logged in") {
		t.Errorf("%v\n%s", err, last)
	}
	wantNothingLeft(t, dir)
}

func TestTheDemoLeavesNothingWhenItIsTerminated(t *testing.T) {
	term, dir := at(t)
	expect(t, term, "login: ")
	term.cmd.Process.Signal(syscall.SIGTERM)
	last, err := leave(t, term)
	if err == nil || !strings.Contains(last, "demo: interrupted") {
		t.Errorf("%v\n%s", err, last)
	}
	wantNothingLeft(t, dir)
}

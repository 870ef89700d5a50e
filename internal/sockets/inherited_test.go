package sockets

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// TestInheritedTakesTheServiceManagersSockets runs itself, once as the process
// that the variables mean and once as another.
func TestInheritedTakesTheServiceManagersSockets(t *testing.T) {
	if want := os.Getenv("WANT_SOCKETS"); want != "" {
		if os.Getenv("FOR_ME") != "" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		}
		list, err := Inherited()
		if err != nil || strconv.Itoa(len(list)) != want {
			t.Fatalf("%v, %v", list, err)
		}
		if _, ok := os.LookupEnv("LISTEN_FDS"); ok {
			t.Error("LISTEN_FDS is still set")
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, env := range [][]string{
		{"WANT_SOCKETS=2", "FOR_ME=1", "LISTEN_FDS=2"},
		{"WANT_SOCKETS=0", "LISTEN_PID=1", "LISTEN_FDS=2"},
		{"WANT_SOCKETS=0", "FOR_ME=1", "LISTEN_FDS=two"},
		{"WANT_SOCKETS=0", "FOR_ME=1"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestInheritedTakesTheServiceManagersSockets$")
		cmd.Env = env
		cmd.ExtraFiles = []*os.File{f, f}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", env, err, out)
		}
	}
}

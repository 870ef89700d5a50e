package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// What a process of the caller's uid gets from a conversation, or a pid, of another.

// leave begins a conversation, says a command, and leaves the conversation to another
// process of its own, which waits for a line, speaks in it as args say, and prints the
// answer. The pid of the first one is printed.
func leave(args []string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	fail(err)
	fail(unix.Connect(fd, &unix.SockaddrUnix{Name: testbed.RPC}))
	f := os.NewFile(uintptr(fd), "rpc")
	dup, err := unix.Dup(fd) // FileConn takes the one
	fail(err)
	unix.CloseOnExec(dup)
	c, err := capproto.FileConn(f, capproto.MaxReply)
	fail(err)
	for _, m := range []capproto.Msg{
		capproto.NewMsg(capproto.VerbStart, "proto", "doas", "version", strconv.Itoa(capproto.Version), "user", "root"),
		capproto.NewMsg(capproto.VerbRun, "path", "/usr/bin/id", "arg", "id"),
	} {
		fail(c.Send(m))
		p, err := c.Recv()
		fail(err)
		if p.Verb != capproto.VerbOK {
			fail(fmt.Errorf("%v", p))
		}
	}
	// In a shell, which forks faster than we: until it has a child of our pid.
	cmd := exec.Command("bash", "-c", fmt.Sprintf(`while ! (if [ $BASHPID = %[2]d ]; then exec %[1]s speak; fi; exit 1); do :; done`, os.Args[0], os.Getpid()))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup), "rpc")}
	if args[0] == "for another" {
		cmd.Args[2] = os.Args[0] + " speak"
	}
	fail(cmd.Start())
}

// speak asks for what the rules say in the conversation that it inherits.
func speak([]string) {
	c, err := capproto.FileConn(os.NewFile(3, "rpc"), capproto.MaxReply)
	fail(err)
	fail(c.Send(capproto.NewMsg(capproto.VerbPermit)))
	p, err := c.Recv()
	fmt.Println(os.Getpid(), p, err)
}

// TestAPidThatIsUsedAgainIsAnotherCaller: another process of the same uid, in another
// session perhaps, with other groups and a ticket.
func TestAPidThatIsUsedAgainIsAnotherCaller(t *testing.T) {
	b := up(t, "permit nopass alice\n")
	for _, c := range []struct{ who, want string }{{"for another", "packet from pid"}, {"for who has the pid", "the sender has ended"}} {
		cmd := b.Command(testbed.AsPerson("alice", b.Self(t), "leave", c.who)...)
		var out testbed.Log
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		go io.Copy(&out, r)
		pid := cmd.Process.Pid
		cmd.Wait()
		// Root helps: the next process gets the pid that is wanted. Elsewhere a caller goes
		// round all pids.
		if !testbed.Eventually(func() bool {
			os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0)
			return strings.Contains(out.String(), "code")
		}) {
			t.Fatalf("%s: no answer: %s", c.who, out.String())
		}
		if !strings.Contains(out.String(), c.want) || c.who == "for who has the pid" && !strings.HasPrefix(out.String(), strconv.Itoa(pid)+" ") {
			t.Errorf("%s, pid %d: %s", c.who, pid, out.String())
		}
	}
}

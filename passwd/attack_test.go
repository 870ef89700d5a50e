package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// The attacker is alice, who is logged in. What a setuid passwd's caller can do to it is
// tried with ours.

const changed = "Xq7-new-horse"

// TestACallerLeavesThePasswordFilesWhole whatever they run passwd with.
func TestACallerLeavesThePasswordFilesWhole(t *testing.T) {
	b := up(t)
	b.Sh(t, "cp -p /etc/shadow /root/shadow; cp -p /etc/passwd /root/passwd")
	modes := b.Sh(t, "stat -c '%n %U %G %a' /etc/shadow /etc/passwd")
	for name, script := range map[string]string{
		"no file may grow":                   "ulimit -f 0; exec %s",
		"no memory":                          "ulimit -v 2000000; ulimit -s 256; exec %s",
		"no descriptors":                     "ulimit -n 16; exec %s",
		"no time":                            "ulimit -t 1; exec %s",
		"no mode":                            "umask 777; exec %s",
		"a directory that is gone":           "d=$(mktemp -d); cd $d; rmdir $d; exec %s",
		"signals ignored":                    "trap '' HUP INT QUIT PIPE TERM CHLD XFSZ XCPU; exec %s",
		"variables of the linker's and libc": "export LD_PRELOAD=/tmp/x.so LD_LIBRARY_PATH=/tmp MALLOC_PERTURB_=1 TZ=/etc/shadow LOCPATH=/tmp GODEBUG=x GOTRACEBACK=crash; exec %s",
		"no standard output and error":       "exec %s >&- 2>&-",
		"descriptors that are not its own":   "exec 3</etc/hostname 9</etc/hostname %s",
		"no new privileges":                  "exec setpriv --no-new-privs %s",
		"the least priority":                 "exec nice -n 19 %s",
	} {
		b.Sh(t, "cat /root/shadow >/etc/shadow")
		cmd := b.Command(testbed.AsPerson("alice", "bash", "-c", fmt.Sprintf(script, b.Bin("passwd")))...)
		cmd.Stdin = strings.NewReader(testbed.Password + "\n" + changed + "\n" + changed + "\n")
		out, _ := cmd.CombinedOutput()
		if s := shadow(t, b, "alice", changed, testbed.Password); !strings.HasPrefix(s, "alice:"+changed+":") && !strings.HasPrefix(s, "alice:"+testbed.Password+":") {
			t.Errorf("%s: %s: %s", name, s, out)
		} else if !strings.HasPrefix(s, "alice:"+changed+":") && cmd.ProcessState.Success() {
			t.Errorf("%s: it says that it has changed the password: %s", name, out)
		}
		if diff, err := b.Command("bash", "-c", "diff <(grep -v ^alice: /root/shadow) <(grep -v ^alice: /etc/shadow) && cmp /root/passwd /etc/passwd").CombinedOutput(); err != nil {
			t.Errorf("%s: others' entries: %s", name, diff)
		}
		if now := b.Sh(t, "stat -c '%n %U %G %a' /etc/shadow /etc/passwd"); now != modes {
			t.Errorf("%s: %s", name, now)
		}
	}
}

// TestACallerWhoKillsTheWorkerChangesNothing and keeps nobody else from changing theirs:
// the worker has the caller's real uid, so the caller can signal it, as a setuid passwd.
func TestACallerWhoKillsTheWorkerChangesNothing(t *testing.T) {
	b := up(t)
	term := b.Start(t, testbed.AsPerson("alice", b.Bin("passwd"))...)
	term.Expect("Current password: ")
	term.Send(testbed.Password + "\n")
	term.Expect("New password: ")
	workers := b.Pids("factotum-pam")
	if len(workers) != 1 {
		t.Fatalf("workers: %v", workers)
	}
	for _, look := range []string{"cat /proc/%[1]d/environ", "cat /proc/%[1]d/mem", "ls /proc/%[1]d/fd", "strace -p %[1]d"} {
		argv := testbed.AsPerson("alice", "bash", "-c", "timeout 5 "+fmt.Sprintf(look, workers[0]))
		if out, err := b.Command(argv...).CombinedOutput(); err == nil {
			t.Errorf("alice looks into the worker with %s: %s", look, out)
		}
	}
	b.Command(testbed.AsPerson("alice", "kill", "-KILL", fmt.Sprint(workers[0]))...).Run()
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		syscall.Kill(workers[0], syscall.SIGKILL) // she may not; the rest is the same
	}
	term.Send(changed + "\n")
	term.Expect("passwd: [^\n]*\r\npasswd: password unchanged")
	if term.Wait() == nil {
		t.Error("the status is 0")
	}
	if s := shadow(t, b, "alice", testbed.Password); !strings.HasPrefix(s, "alice:"+testbed.Password+":") {
		t.Error(s)
	}
	if got := as(t, b, "bob", testbed.Password+"\n"+changed+"\n"+changed+"\n", b.Bin("passwd")); got.status != 0 {
		t.Errorf("bob's change: %+v", got)
	}
}

// speak is a front end that says what its arguments have, each a start request of passwd
// with the attributes of the argument, and prints the answers.
func speak(args []string) {
	for _, a := range args {
		conn, err := capproto.Dial(socket)
		if err != nil {
			fmt.Println(err)
			continue
		}
		change := capproto.Change{}
		if a != "own" {
			change.User = a
		}
		err = conn.StartPasswd(change)
		if err == nil {
			err = conn.Converse(func(p capproto.Prompt) (string, error) { return "wrong", nil })
		}
		fmt.Println(capproto.CodeOf(err))
		conn.Close()
	}
}

func TestFactotumChangesNobodyElsesPasswordForACaller(t *testing.T) {
	b := up(t)
	out, err := b.Command(testbed.AsPerson("alice", b.Self(t), "speak", "bob", "root", "_login", "nosuchuser", "own")...).CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != "denied denied denied denied denied" {
		t.Errorf("%v: %q", err, got)
	}
	if n := b.Logged("caller=alice user=alice reason="); n != 1 {
		t.Errorf("PAM was asked %d times:\n%s", n, b.Log())
	}
}

// TestRootsConversationIsOfNoUseToACallerWhoInheritsIt as the kernel names the sender.
func TestRootsConversationIsOfNoUseToACallerWhoInheritsIt(t *testing.T) {
	b := up(t)
	argv := append([]string{b.Self(t), "dial-and-run"}, testbed.AsPerson("alice", b.Self(t), "on-descriptor-3", "bob")...)
	out, err := b.Command(argv...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "code=protocol") {
		t.Errorf("%v: %s", err, out)
	}
	b.WantLog(t, "protocol violation.*uid=0")
}

func TestAFloodOfPasswdsGuessesOneAtATime(t *testing.T) {
	b := up(t)
	const n = 24
	began := time.Now()
	cmd := b.Command(testbed.AsPerson("alice", "bash", "-c", fmt.Sprintf(
		`for i in $(seq %d); do (echo guess$i | timeout 4 %s -q >/dev/null 2>&1) & done; wait`, n, b.Bin("passwd")))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	judged, most := b.Logged("Authentication token manipulation error"), int(time.Since(began)/time.Second)+2
	if judged == 0 || judged > most {
		t.Errorf("%d guesses were judged in %v", judged, time.Since(began))
	}
	// Others are not held back.
	began = time.Now()
	if got := as(t, b, "bob", testbed.Password+"\n"+changed+"\n"+changed+"\n", b.Bin("passwd")); got.status != 0 {
		t.Errorf("bob's change: %+v after %v", got, time.Since(began))
	}
}

// dialAndRun runs a program that inherits a conversation of ours, as descriptor 3.
func dialAndRun(args []string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "rpc")}
	cmd.Run()
}

// onDescriptor asks for a change of a user's password in that conversation.
func onDescriptor(args []string) {
	conn, err := capproto.FileConn(os.NewFile(3, "rpc"), capproto.MaxReply)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn.Send(capproto.NewMsg(capproto.VerbStart, "proto", "passwd", "version", strconv.Itoa(capproto.Version), "user", args[0]))
	p, err := conn.Recv()
	b, _ := p.Encode()
	fmt.Printf("%s %v\n", b, err)
}

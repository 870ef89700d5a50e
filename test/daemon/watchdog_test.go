package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// TestTheKeepAliveStopsWhenTheCapabilityFilesHang stops, with ptrace(2), the threads of
// factotum that read /dev/fuse, as a fault in the file server would. All the others run
// on, and still the service manager hears nothing.
func TestTheKeepAliveStopsWhenTheCapabilityFilesHang(t *testing.T) {
	b := up(t)
	testbed.Kill(t, b.Factotum(t))
	socket := filepath.Join(b.Dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const within = 2 * time.Second
	factotum := b.Command("env", "NOTIFY_SOCKET="+socket, fmt.Sprintf("WATCHDOG_USEC=%d", within.Microseconds()), b.Bin("factotum"))
	log, err := os.OpenFile(filepath.Join(b.Dir, "log", "factotum"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	factotum.Stderr = log
	if err := factotum.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		factotum.Process.Signal(syscall.SIGTERM)
		factotum.Wait()
	})
	// heard is how often the manager hears of life, for that long.
	heard := func(d time.Duration) (n int) {
		buf := make([]byte, 4096)
		c.SetReadDeadline(time.Now().Add(d))
		for {
			m, err := c.Read(buf)
			if err != nil {
				return n
			}
			n += strings.Count(string(buf[:m]), "WATCHDOG=1")
		}
	}
	if n := heard(2 * within); n < 2 {
		t.Fatalf("in %v the manager has heard %d times of factotum", 2*within, n)
	}
	release := stopReaders(t, factotum.Process.Pid)
	heard(100 * time.Millisecond) // what was on its way
	if n := heard(2 * within); n != 0 {
		t.Errorf("with a file server that hangs, the manager has heard %d times of factotum", n)
	}
	b.WantLog(t, `factotum does not answer itself" path="the capability files" for=1s`)
	release()
	if n := heard(2 * within); n == 0 {
		t.Error("the manager does not hear when the file server goes on")
	}
	// And it serves.
	b.Out(t, b.In(t, "alice"))
}

// stopReaders stops all threads of the process that read /dev/fuse, also those that
// were at work meanwhile.
func stopReaders(t *testing.T, pid int) (release func()) {
	t.Helper()
	ready, over, done := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the tracer
		defer close(done)
		stopped := map[int]bool{}
		var err error
		for quiet := 0; quiet < 10 && err == nil; time.Sleep(30 * time.Millisecond) {
			quiet++
			for _, tid := range readers(pid) {
				if !stopped[tid] && err == nil {
					err = stop(tid)
					stopped[tid] = true
					quiet = 0
				}
			}
		}
		if err == nil && len(stopped) == 0 {
			err = errors.New("no thread reads /dev/fuse")
		}
		ready <- err
		<-over
		for tid := range stopped {
			unix.PtraceDetach(tid)
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return func() { close(over); <-done }
}

// readers are the threads of a process that read /dev/fuse.
func readers(pid int) (tids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		// The number of a system call and its first argument: proc_pid_syscall(5).
		text, _ := os.ReadFile(task + "/syscall")
		f := strings.Fields(string(text))
		if len(f) < 2 || f[0] != strconv.Itoa(unix.SYS_READ) {
			continue
		}
		fd, _ := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 31)
		if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); to == "/dev/fuse" {
			tids = append(tids, tid)
		}
	}
	return tids
}

// stop stops a thread, and not its process.
func stop(tid int) error {
	for _, request := range []uintptr{unix.PTRACE_SEIZE, unix.PTRACE_INTERRUPT} {
		if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, request, uintptr(tid), 0, 0, 0, 0); e != 0 {
			return os.NewSyscallError("ptrace", e)
		}
	}
	_, err := unix.Wait4(tid, nil, unix.WALL, nil)
	return os.NewSyscallError("wait4", err)
}

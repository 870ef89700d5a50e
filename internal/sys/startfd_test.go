package sys

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func openPath(t *testing.T, name string) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// run starts a program and returns what it said.
func run(t *testing.T, fd int, dir string, argv ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// In the wrong order, and one of them twice.
	p, err := StartFD(fd, argv, []string{"A=b c"}, dir, []*os.File{os.Stdin, w, w, os.Stderr}, false)
	w.Close()
	if err != nil {
		return err.Error()
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || !st.Success() {
		t.Errorf("%v, %v", st, err)
	}
	return string(out)
}

func TestAProgramIsStartedFromADescriptor(t *testing.T) {
	if err := CloseOnExec(); err != nil { // what the test itself has inherited
		t.Fatal(err)
	}
	sh := openPath(t, "/bin/sh")
	got := run(t, sh, "/usr", "name", "-c", `echo "$0 $A $1"; pwd; ls /proc/self/fd | tr '\n' ' '; read -r _ _ _ _ _ sid _ </proc/self/stat; [ "$sid" = $$ ] && echo leader`, "it", "x y")
	// ls has a descriptor of the directory.
	if want := "it b c x y\n/usr\n0 1 2 3 4 leader\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := run(t, sh, "/no/such", "sh"); got != syscall.ENOENT.Error() {
		t.Error(got)
	}
	if got := run(t, openPath(t, "/etc/passwd"), "/", "x"); got != syscall.EACCES.Error() {
		t.Error(got)
	}
}

func TestTheControllingTerminalIsSet(t *testing.T) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	defer master.Close()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slaveFD, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		t.Fatal(e)
	}
	slave := os.NewFile(slaveFD, "slave")
	p, err := StartFD(openPath(t, "/bin/sh"), []string{"sh", "-c", "echo here >/dev/tty"}, nil, "/", []*os.File{slave, slave, slave}, true)
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	k, _ := master.Read(b)
	if !strings.HasPrefix(string(b[:k]), "here") {
		t.Errorf("%q", b[:k])
	}
	p.Wait()
}

// TestManyStartsAtOnceAllCome starts programs from many goroutines, while others
// allocate and are preempted by signals.
func TestManyStartsAtOnceAllCome(t *testing.T) {
	program := openPath(t, "/bin/true")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	stop := make(chan struct{})
	for range 4 {
		go func() {
			var keep [][]byte
			for {
				select {
				case <-stop:
					return
				default:
					if keep = append(keep, make([]byte, 4096)); len(keep) > 1000 {
						keep = nil
					}
				}
			}
		}()
	}
	var all sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			for range 15 {
				p, err := StartFD(program, []string{"true"}, nil, "/", []*os.File{null, null, null}, false)
				if err != nil {
					errs <- err
					return
				}
				if st, err := p.Wait(); err != nil || !st.Success() {
					errs <- errors.Join(err, errors.New(st.String()))
					return
				}
			}
		})
	}
	all.Wait()
	close(stop)
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

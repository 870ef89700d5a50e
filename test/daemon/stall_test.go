package daemon

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// A stall is a file of a FUSE file system that any user could serve (in a user
// namespace of their own, say). From a moment on it answers neither poll(2) nor
// close(2).
type stall struct {
	f     *os.File
	stuck atomic.Bool
	end   func()
}

// Operations of linux/fuse.h.
const (
	fuseGetattr = 3
	fuseOpen    = 14
	fuseRelease = 18
	fuseFlush   = 25
	fuseInit    = 26
	fusePoll    = 40
)

func newStall(t *testing.T) *stall {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
	path := filepath.Join(t.TempDir(), "stall")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("stall", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=100644,user_id=0,group_id=0", dev)); err != nil {
		t.Fatal("mount: ", err)
	}
	s := new(stall)
	go s.serve(dev)
	s.end = sync.OnceFunc(func() {
		unix.Unmount(path, unix.MNT_FORCE) // ends all requests
		unix.Unmount(path, unix.MNT_DETACH)
		unix.Close(dev)
	})
	t.Cleanup(s.end)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.f = os.NewFile(uintptr(fd), path)
	return s
}

// serve answers the kernel, as fuse(4) and linux/fuse.h say.
func (s *stall) serve(dev int) {
	buf := make([]byte, 1<<17)
	le := binary.LittleEndian
	for {
		n, err := unix.Read(dev, buf)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		var body []byte
		errno := 0
		switch op := le.Uint32(buf[4:]); op {
		case fuseInit:
			body = make([]byte, 64)
			le.PutUint32(body, 7)
			le.PutUint32(body[4:], 31)
			le.PutUint32(body[20:], 1<<16) // max_write
		case fuseGetattr:
			body = make([]byte, 104)
			le.PutUint64(body[16:], 1)        // ino
			le.PutUint32(body[76:], 0o100644) // mode
			le.PutUint32(body[80:], 1)        // nlink
		case fuseOpen:
			body = make([]byte, 16)
		case fuseFlush, fusePoll:
			if s.stuck.Load() {
				continue
			}
			body = make([]byte, map[uint32]int{fusePoll: 8}[op])
		case fuseRelease:
		default:
			errno = int(unix.ENOSYS)
		}
		out := make([]byte, 16, 16+len(body))
		le.PutUint32(out, uint32(16+len(body)))
		le.PutUint32(out[4:], uint32(-errno))
		copy(out[8:], buf[8:16])
		unix.Write(dev, append(out, body...))
	}
}

func TestADescriptorOfAFileSystemThatNeverAnswersStopsNobodyElse(t *testing.T) {
	b := up(t)
	b.Configure(t, "MaxConversationsPerUID 3\nLoginGraceTime 1\n")
	s := newStall(t)
	cmd := b.Command(testbed.As("_second", b.Self(t), "attacker", "stalls")...)
	cmd.ExtraFiles = []*os.File{s.f}
	cmd.Stderr = os.Stderr
	stdin, stdout := testbed.Pipes(t, cmd)
	t.Cleanup(func() {
		s.end()
		stdin.Close()
		cmd.Wait()
	})
	// A child of ours would have to close it when it is executed.
	s.f.Close()
	s.stuck.Store(true)
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	run := func(user, lie string) {
		t.Helper()
		cmd := b.Command(testbed.As(user, "timeout", "-s", "KILL", "20", b.Self(t), "attacker", lie)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s, %s: %v: %s", user, lie, err, out)
		}
	}
	run("_login", "asks")
	// Who waits in vain to close it keeps the conversation's place, whatever
	// time has passed: threads of factotum must not be had without end.
	time.Sleep(2 * time.Second)
	run("_second", "refused")
	run("_login", "asks")
}

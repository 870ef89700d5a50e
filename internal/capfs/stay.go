package capfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Anyone with CAP_SYS_ADMIN can take the mount away (umount -l), hide it below another
// one, remount it so that the kernel ignores its file capabilities, or abort its FUSE
// connection. Then nobody can log in, while the process that serves it runs on. So it
// watches the mount, and mounts the same files again: capabilities that were given stay
// good, and whoever has an old file open is served to the end.

// A mounted is the mount at one time.
type mounted struct {
	id     uint64   // see mountAt
	table  *os.File // /proc/self/mountinfo
	served *os.File // a pipe that is closed when the kernel asks nothing more
}

func newMounted() (m *mounted, end *os.File, err error) {
	// Not by os.Open: Go's poller would ask for the table's events, too, and get them.
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /proc/self/mountinfo: %w", err)
	}
	m = &mounted{table: os.NewFile(uintptr(fd), "/proc/self/mountinfo")}
	if m.served, end, err = os.Pipe(); err != nil {
		m.table.Close()
		return nil, nil, err
	}
	return m, end, nil
}

func (m *mounted) close() {
	m.table.Close()
	m.served.Close()
}

// Bounds of mounting again. Somebody who takes the mount away all the time must not keep
// the machine busy: the service manager then decides when to start factotum anew.
const (
	checkEvery = 50 * time.Millisecond // at most, while other mounts come and go
	mostMounts = 20                    // in a minute
	mountTries = 10                    // with checkEvery between
)

// stay keeps the file system mounted at dir until Unmount.
func (fs *FS) stay(dir string) {
	var minute time.Time
	for n := 0; ; n++ {
		why := fs.at.wait(dir)
		if fs.over.Load() {
			fs.at.close()
			return
		}
		fs.opt.Lost(why)
		if now := time.Now(); now.Sub(minute) > time.Minute {
			minute, n = now, 0
		}
		err := errors.New("they are lost too often")
		if n < mostMounts {
			err = fs.again(dir)
		}
		if fs.over.Load() {
			return
		}
		if err != nil {
			fs.opt.Gone(fmt.Errorf("the capability files cannot be mounted again: %w", err))
			return
		}
		fs.opt.Log.Info("the capability files are mounted again", "dir", dir)
	}
}

// again mounts the file system again. What is missing for it, such as memory, may come.
func (fs *FS) again(dir string) (err error) {
	old := fs.at
	defer old.close()
	for range mountTries {
		if id, err := mountAt(dir); err == nil && id == old.id {
			detach(dir) // or it is dead, and clearStale takes it away
		}
		if err = clearStale(dir); err == nil {
			err = fs.mount(dir)
		}
		if err == nil || fs.over.Load() {
			return err
		}
		time.Sleep(checkEvery)
	}
	return err
}

// wait waits until the mount is not what it should be, and says what it is. It takes a
// thread, as Go's poller does not know POLLPRI.
func (m *mounted) wait(dir string) (why string) {
	for {
		if why := m.wrong(dir); why != "" {
			return why
		}
		// The table of mounts says POLLPRI when it has changed: proc_pid_mounts(5).
		p := []unix.PollFd{{Fd: int32(m.table.Fd()), Events: unix.POLLPRI}, {Fd: int32(m.served.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			time.Sleep(time.Second)
		}
		if p[1].Revents != 0 {
			return "the kernel has ended the FUSE connection"
		}
		time.Sleep(checkEvery)
	}
}

// wrong says what is wrong with the mount at dir, if anything is.
func (m *mounted) wrong(dir string) string {
	id, err := mountAt(dir)
	switch {
	case err != nil:
		return err.Error()
	case id != m.id:
		return "something else is there"
	}
	if _, err := m.table.Seek(0, io.SeekStart); err != nil {
		return err.Error()
	}
	for lines := bufio.NewScanner(m.table); lines.Scan(); {
		f := strings.Fields(lines.Text()) // ID PARENT DEVICE ROOT DIR OPTIONS ...
		if len(f) < 6 || f[0] != strconv.FormatUint(id, 10) {
			continue
		}
		for _, o := range strings.Split(f[5], ",") {
			if o == "nosuid" || o == "noexec" || o == "ro" {
				return "it was remounted " + o
			}
		}
	}
	return ""
}

// mountAt is the number of the mount that dir is on, see statx(2). It asks nothing of
// the file system, which may be our own: a thread that waits for that cannot be killed.
func mountAt(dir string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		err = unix.ENOSYS // before Linux 5.8
	}
	if err != nil {
		return 0, fmt.Errorf("statx %s: %w", dir, err)
	}
	return st.Mnt_id, nil
}

package user

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/userlink"
)

// In a root directory (ChrootDirectory) there is neither this program nor ptmx(4),
// and perhaps no /proc. become has left open what is needed of those, after the
// link, the Info and the conversation with factotum: see becomerecord.Root. None of it leads out of the root: the
// program can be executed only, and a master knows its own terminal.

// programFD is the descriptor of this program; the masters come after it.
const programFD = 6

// enterRoot finds what become has left open. All of it is close-on-exec.
func (u *userProcess) enterRoot() error {
	if u.info.Root == "" {
		return nil
	}
	// Whoever started us may have left a way out.
	for fd := range programFD {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return fmt.Errorf("descriptor %d is a directory", fd)
		}
	}
	if _, err := unix.FcntlInt(programFD, unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("descriptor %d, the program: %w", programFD, err)
	}
	u.masters = masters(programFD+1, u.info.PTYs)
	return nil
}

// masters are the descriptors from first on that are masters of terminals, at most n.
// Where the machine had fewer, a number may be that of something else.
func masters(first, n int) (fds []int) {
	for fd := first; fd < first+n; fd++ {
		if _, err := unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			break
		}
		fds = append(fds, fd)
	}
	return fds
}

// master returns the master of a terminal of its own.
func (u *userProcess) master() (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.masters); n > 0 {
		fd := u.masters[n-1]
		u.masters = u.masters[:n-1]
		return fd, unix.SetNonblock(fd, true)
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil && u.info.Root != "" {
		return -1, userlink.Failedf("no terminal is left for this connection, and its root directory has no /dev/ptmx")
	}
	if err != nil {
		return -1, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	return fd, nil
}

// giveBack closes the terminals that a login with sftp alone has no use for, once
// a session has begun: others may want them.
func (u *userProcess) giveBack() {
	opt := u.info.options()
	command, _ := opt.Forced(u.info.Settings.ForceCommand)
	if !sshdconf.IsInternalSFTP(command) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, fd := range u.masters {
		unix.Close(fd)
	}
	u.masters = nil
}

// forkSelf starts this program again, as fork does.
func (u *userProcess) forkSelf(argv, env []string, dir string, files []*os.File, tty bool) (*os.Process, error) {
	if u.info.Root == "" {
		return u.fork("/proc/self/exe", argv, env, dir, files, tty)
	}
	u.forks.RLock()
	defer u.forks.RUnlock()
	return sys.StartFD(programFD, argv, env, dir, files, tty)
}

package capfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount mounts the file system at dir, which is made if it is missing, and
// serves it. A dead file system of ours that a crash has left there is
// unmounted first. The errors say what to do.
func Mount(dir string, opt Options) (*FS, error) {
	if len(opt.Become) == 0 {
		return nil, errors.New("no become program")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, fmt.Errorf("/dev/fuse is missing: load the kernel's fuse module (modprobe fuse), or use the kernel device (make BACKEND=capdev): %w", err)
	}
	if err := clearStale(dir); err != nil {
		return nil, err
	}
	p, err := newProgram(opt.Become, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	fs := newFS(opt, p)
	if err := fs.mount(dir); err != nil {
		return nil, err
	}
	go fs.stay(dir)
	return fs, nil
}

// mount mounts the file system at dir, where nothing of ours is, and serves it.
func (fs *FS) mount(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m, end, err := newMounted()
	if err != nil {
		return err
	}
	s, err := fs.serve(dir)
	if err != nil {
		end.Close()
		m.close()
		return err
	}
	go func() {
		s.Serve()
		end.Close()
	}()
	if m.id, err = check(dir, s); err != nil {
		detach(dir)
		m.close()
		return err
	}
	fs.at = m
	return nil
}

// serve makes the mount and the server that answers there.
func (fs *FS) serve(dir string) (*fuse.Server, error) {
	// No process starts with the descriptor of /dev/fuse, see closeOnExec.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var options []string
	if fs.opt.Context != "" {
		options = []string{`context="` + fs.opt.Context + `"`} // see mount(8)
	}
	s, err := fuse.NewServer(fs, dir, &fuse.MountOptions{
		FsName: "p9auth", Name: "p9auth",
		Options:            options,
		AllowOther:         true,
		DisableReadDirPlus: true,
		DirectMountStrict:  true,
		DirectMountFlags:   unix.MS_NODEV,
		DisableSplice:      true, // there is no file to splice from
		// A capability must come in one write.
		MaxWrite: 128 << 10,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot mount the capability files at %s: %w (this needs CAP_SYS_ADMIN)", dir, err)
	}
	if err := closeOnExec(); err != nil {
		s.Unmount()
		return nil, err
	}
	return s, nil
}

// check finds out whether the mount answers, and whether its files are worth anything.
// It returns the mount's number.
func check(dir string, s *fuse.Server) (id uint64, err error) {
	if err := s.WaitMount(); err != nil {
		return 0, fmt.Errorf("cannot serve the capability files at %s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		return 0, fmt.Errorf("%s is mounted nosuid, so the kernel ignores its file capabilities: let factotum mount it in the initial user namespace", dir)
	}
	// The first close(2) teaches the kernel not to ask about closing, see Flush.
	f, err := os.OpenFile(filepath.Join(dir, "capuse"), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	f.Close()
	return mountAt(dir)
}

// closeOnExec marks our descriptors of /dev/fuse, which the library leaves
// inheritable: another process that held one could answer for us, and would
// keep the file system, with nobody to serve it, after our end.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	marked := 0
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != "/dev/fuse" {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("fcntl /dev/fuse: %w", err)
		}
		marked++
	}
	if marked == 0 {
		return errors.New("no descriptor of /dev/fuse is found in /proc/self/fd")
	}
	return nil
}

// clearStale unmounts what a killed factotum has left at dir: a FUSE file
// system that nobody serves.
func clearStale(dir string) error {
	var st unix.Stat_t
	for range 16 {
		if err := unix.Stat(dir, &st); err != unix.ENOTCONN {
			break
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("cannot unmount the stale file system at %s: %w", dir, err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("a FUSE file system is mounted at %s already: is another factotum running?", dir)
	}
	return nil
}

// Unmount takes the file system away from dir at once, for good. Processes that are
// being served in that moment get errors.
func (fs *FS) Unmount(dir string) error {
	fs.over.Store(true)
	return detach(dir)
}

func detach(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }

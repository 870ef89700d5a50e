package capfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	fs := newFS(opt, p)
	s, err := fuse.NewServer(fs, dir, &fuse.MountOptions{
		FsName: "p9auth", Name: "p9auth",
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
	fs.server = s
	go s.Serve()
	if err := s.WaitMount(); err != nil {
		fs.Unmount(dir)
		return nil, fmt.Errorf("cannot serve the capability files at %s: %w", dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		fs.Unmount(dir)
		return nil, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		fs.Unmount(dir)
		return nil, fmt.Errorf("%s is mounted nosuid, so the kernel ignores its file capabilities: let factotum mount it in the initial user namespace", dir)
	}
	// The first close(2) teaches the kernel not to ask about closing, see Flush.
	f, err := os.OpenFile(filepath.Join(dir, "capuse"), os.O_RDWR, 0)
	if err != nil {
		fs.Unmount(dir)
		return nil, err
	}
	f.Close()
	return fs, nil
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

// Unmount takes the file system away from dir at once. Processes that are
// being served in that moment get errors.
func (fs *FS) Unmount(dir string) error {
	return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

package pam

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// hostileFile passes descriptors of a file whose file server stops to answer: the
// file itself, its name (O_PATH), and an epoll descriptor that watches it. It is
// started as root, which here stands for fusermount3(1), mounts the file and has
// hostilePasser pass it.
func hostileFile([]string) {
	dir, err := os.MkdirTemp("", "hostile")
	must(err)
	defer os.Remove(dir)
	must(os.Chmod(dir, 0o755))
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(err)
	must(unix.Mount("hostile", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", dev)))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	var silent atomic.Bool
	go serveHostile(dev, &silent)

	file, err := unix.Open(dir+"/file", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(err)
	name, err := unix.Open(dir+"/file", unix.O_PATH|unix.O_CLOEXEC, 0)
	must(err)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must(err)
	must(unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, file, &unix.EpollEvent{Events: unix.EPOLLIN}))

	u, err := user.Lookup("_login")
	must(err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	must(err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	must(err)
	self, err := os.Executable()
	must(err)
	passer := exec.Command(self, "attacker", "hostile-passer")
	passer.Stdin, passer.Stdout, passer.Stderr = os.Stdin, os.Stdout, os.Stderr
	passer.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	for _, fd := range []int{epoll, file, name} {
		passer.ExtraFiles = append(passer.ExtraFiles, os.NewFile(uintptr(fd), ""))
	}
	must(passer.Start())
	silent.Store(true)
	must(passer.Wait())
}

// hostilePasser is the front end of hostileFile.
func hostilePasser([]string) {
	epoll, file, name := 3, 4, 5
	must(unix.SetNonblock(epoll, true))
	must(unix.SetNonblock(file, true))
	for what, fd := range map[string]int{"an epoll descriptor": epoll, "a file": file, "a name": name} {
		for _, m := range []capproto.Msg{
			capproto.NewMsg("attr"),
			capproto.NewMsg("start", "version", version, "proto", "pam", "user", "alice"),
		} {
			b, err := m.Encode()
			must(err)
			t := dial()
			t.in = what
			_, _, err = t.Socket().(*net.UnixConn).WriteMsgUnix(b, unix.UnixRights(fd), nil)
			must(err)
			t.wantEnd(m.Verb, capproto.CodeProtocol)
			violations++
			dial().ask("attr") // it goes on serving
		}
	}
}

// serveHostile is a file system with one file in it, by the protocol of fuse(4),
// which answers until silent. As any file server it can choose not to.
func serveHostile(dev int, silent *atomic.Bool) {
	const lookup, getattr, open, flush, initialize, poll = 1, 3, 14, 25, 26, 40
	attr := func(node uint64) []byte {
		a := make([]byte, 88) // struct fuse_attr
		mode := uint32(unix.S_IFDIR | 0o755)
		if node == 2 {
			mode = unix.S_IFREG | 0o666
		}
		binary.NativeEndian.PutUint64(a, node)
		binary.NativeEndian.PutUint32(a[60:], mode)
		binary.NativeEndian.PutUint32(a[64:], 1)
		return a
	}
	buf := make([]byte, 1<<18)
	for {
		n, err := unix.Read(dev, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		// struct fuse_in_header
		op, node := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint64(buf[16:])
		var out []byte
		var errno int32
		switch {
		case op == initialize:
			out = make([]byte, 64) // struct fuse_init_out
			binary.NativeEndian.PutUint32(out, 7)
			binary.NativeEndian.PutUint32(out[4:], 31)
			binary.NativeEndian.PutUint32(out[20:], 4096)
		case silent.Load() && op != flush: // a program that is executed closes what it has of it
			continue
		case op == lookup:
			out = append(make([]byte, 40), attr(2)...) // struct fuse_entry_out
			binary.NativeEndian.PutUint64(out, 2)
		case op == getattr:
			out = append(make([]byte, 16), attr(node)...) // struct fuse_attr_out
		case op == open:
			out = make([]byte, 16) // struct fuse_open_out
		case op == poll:
			// What is ready is asked again by whoever polls the epoll descriptor.
			out = make([]byte, 8) // struct fuse_poll_out
			binary.NativeEndian.PutUint32(out, unix.POLLIN)
		default:
			errno = -int32(unix.ENOSYS)
		}
		head := make([]byte, 16) // struct fuse_out_header
		binary.NativeEndian.PutUint32(head, uint32(16+len(out)))
		binary.NativeEndian.PutUint32(head[4:], uint32(errno))
		copy(head[8:], buf[8:16])
		unix.Write(dev, append(head, out...))
	}
}

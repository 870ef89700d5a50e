package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// selinuxfs is where SELinux answers, see selinux(8).
const selinuxfs = "/sys/fs/selinux"

// selinuxAnswers reports whether SELinux is there and answers us, as is_selinux_enabled(3)
// finds out: a container has its file system read-only, or not at all.
func selinuxAnswers() bool {
	var st unix.Statfs_t
	err := unix.Statfs(selinuxfs, &st)
	return err == nil && st.Type == unix.SELINUX_MAGIC && st.Flags&unix.ST_RDONLY == 0
}

// peerContext is the security context of who has made a connection, "" on a machine
// without SELinux: SO_PEERSEC, see getpeercon(3).
func peerContext(u *net.UnixConn) (string, error) {
	if !selinuxAnswers() {
		return "", nil
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return "", err
	}
	var context string
	cerr := rc.Control(func(fd uintptr) { context, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_PEERSEC) })
	return context, errors.Join(cerr, os.NewSyscallError("SO_PEERSEC", err))
}

// workerContext is the security context in which a program runs that asks PAM for a front
// end in that context: the one that the policy has the front end change to where it
// executes the program, see security_compute_create(3). So PAM's modules see the domain
// that they see under the program which the front end takes the place of, and choose the
// user's context by it. It is "" where the policy says nothing of that front end, which the
// front end's own type as an answer means; then the policy's word on factotum decides.
func workerContext(frontEnd, program string) (string, error) {
	if contextType(frontEnd) == "" { // there is no policy
		return "", nil
	}
	label := make([]byte, 4096)
	n, err := unix.Getxattr(program, "security.selinux", label)
	if err != nil {
		return "", &os.PathError{Op: "getxattr security.selinux", Path: program, Err: err}
	}
	class, err := os.ReadFile(selinuxfs + "/class/process/index")
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(selinuxfs+"/create", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	question := fmt.Sprintf("%s %s %s", frontEnd, strings.TrimRight(string(label[:n]), "\x00"), strings.TrimSpace(string(class)))
	if _, err := f.WriteString(question); err != nil {
		return "", fmt.Errorf("ask the policy about %q: %w", question, err)
	}
	answer := make([]byte, 4096)
	if n, err = f.Read(answer); err != nil {
		return "", fmt.Errorf("the policy's answer about %q: %w", question, err)
	}
	context := strings.TrimRight(string(answer[:n]), "\x00")
	if contextType(context) == contextType(frontEnd) {
		return "", nil
	}
	return context, nil
}

// contextType is the type in a security context, USER:ROLE:TYPE[:LEVEL].
func contextType(context string) string {
	if f := strings.SplitN(context, ":", 4); len(f) >= 3 {
		return f[2]
	}
	return ""
}

// startIn starts a program in a security context, or in the one that it has by itself for
// "": see setexeccon(3).
func startIn(context string, cmd *exec.Cmd) error {
	if context == "" {
		return cmd.Start()
	}
	runtime.LockOSThread()
	f, err := os.OpenFile("/proc/thread-self/attr/exec", os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = f.WriteString(context)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("set the security context %s: %w", context, err)
	}
	started := cmd.Start()
	// A thread that cannot take it back is not used again.
	if _, err := f.WriteString("\n"); err == nil {
		runtime.UnlockOSThread()
	}
	return started
}

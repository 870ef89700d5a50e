package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
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

// transition is the security context that the policy has a process in that context change
// to where it executes the program, see security_compute_create(3). It is "" without a
// policy, and where the policy has the process stay in its domain.
//
// By the answer for a front end and the PAM worker, PAM's modules see the domain that they
// see under the program which the front end takes the place of, and choose the user's
// context by it; where it is "", the policy's word on factotum decides.
func transition(from, program string) (string, error) {
	if contextType(from) == "" { // there is no policy
		return "", nil
	}
	context, err := newContext(from, program, "process")
	if err != nil || contextType(context) == contextType(from) {
		return "", err
	}
	return context, nil
}

// capFilesContext is the security context of the capability files below dir: the policy
// says what a file system becomes that factotum mounts there. It is "" without a policy,
// and where the policy says nothing; then they are as those of any FUSE file system.
func capFilesContext(dir string) (string, error) {
	if !selinuxAnswers() {
		return "", nil
	}
	own, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(dir) // dir itself may be missing, or a mount of ours that is dead
	from := strings.TrimRight(string(own), "\x00")
	context, err := newContext(from, parent, "filesystem")
	if err != nil {
		return "", err
	}
	label, err := fileContext(parent)
	if err != nil || contextType(context) == contextType(label) {
		return "", err
	}
	return context, nil
}

// fileContext is the security context of a file.
func fileContext(path string) (string, error) {
	label := make([]byte, 4096)
	n, err := unix.Getxattr(path, "security.selinux", label)
	if err != nil {
		return "", &os.PathError{Op: "getxattr security.selinux", Path: path, Err: err}
	}
	return strings.TrimRight(string(label[:n]), "\x00"), nil
}

// newContext asks the policy for the context of what a process in the context from makes,
// of that class, by the file at path.
func newContext(from, path, class string) (string, error) {
	label, err := fileContext(path)
	if err != nil {
		return "", err
	}
	index, err := os.ReadFile(selinuxfs + "/class/" + class + "/index")
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(selinuxfs+"/create", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	question := fmt.Sprintf("%s %s %s", from, label, strings.TrimSpace(string(index)))
	if _, err := f.WriteString(question); err != nil {
		return "", fmt.Errorf("ask the policy about %q: %w", question, err)
	}
	answer := make([]byte, 4096)
	n, err := f.Read(answer)
	if err != nil {
		return "", fmt.Errorf("the policy's answer about %q: %w", question, err)
	}
	return strings.TrimRight(string(answer[:n]), "\x00"), nil
}

// keepContext has become leave the domain that the policy has it in, and return to the
// context of who asks for su or doas, where PAM's modules have chosen none.
func (c *conversation) keepContext(o *pamwire.Opened) error {
	if !c.local || o.Process.Context != "" || c.caps.bind == nil {
		return nil
	}
	becomes, err := transition(c.context, filepath.Join(c.gen.conf.CapDir, "capuse"))
	if err != nil {
		return fmt.Errorf("the security context of become: %w", err)
	}
	if becomes != "" {
		o.Process.Context = c.context
	}
	return nil
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

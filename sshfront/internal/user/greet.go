package user

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	systemRC = "/etc/ssh/sshrc" // as sshd(8)
	motd     = "/etc/motd"
	maxMotd  = 64 << 10
)

// greet shows what PAM had to say, and at a terminal the last login and the message of
// the day, as sshd(8) does.
func (u *userProcess) greet(out *os.File, x *program) {
	i, p := u.info, x.pty
	if _, err := os.Stat(filepath.Join(i.Home, ".hushlogin")); i.Hush || err == nil {
		return
	}
	if p != nil && p.lastLogin != "" {
		x.says = append(x.says, p.lastLogin)
	}
	for _, m := range x.says {
		io.WriteString(out, strings.TrimSuffix(m, "\n")+"\n")
	}
	if p == nil || !i.Settings.PrintMotd {
		return
	}
	if f, err := os.Open(motd); err == nil {
		defer f.Close()
		io.Copy(out, io.LimitReader(f, maxMotd))
	}
}

// rcFiles runs ~/.ssh/rc, or sshrc, or xauth: SSHRC in sshd(8). They are in no
// terminal session, as only one program can lead it.
func (u *userProcess) rcFiles(x *program, stdio [3]*os.File, env []string, dir string) {
	var d *display
	if x.x11 != nil {
		d = x.x11.x11
	}
	cookie := ""
	if d != nil {
		cookie = d.proto + " " + d.cookie + "\n"
	}
	rc := filepath.Join(u.info.Home, ".ssh/rc")
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	var argv []string
	switch {
	case x.plan.userRC && exists(rc):
		argv = []string{u.info.shell(), "-c", "/bin/sh .ssh/rc"}
		if dir != u.info.Home {
			return
		}
	case exists(systemRC):
		argv = []string{"/bin/sh", systemRC}
	case d != nil && u.info.Settings.XAuthLocation != "":
		argv = []string{u.info.Settings.XAuthLocation, "-q", "-"}
		cookie = fmt.Sprintf("remove %s\nadd %s %s", d.authName, d.authName, cookie)
	default:
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	proc, err := u.fork(argv[0], argv, env, dir, []*os.File{r, stdio[1], stdio[2]}, false)
	r.Close()
	if err != nil {
		w.Close()
		fmt.Fprintf(stdio[2], "Could not run %s\n", argv[0])
		return
	}
	x.mu.Lock()
	x.rc = proc
	x.mu.Unlock()
	io.WriteString(w, cookie)
	w.Close()
	proc.Wait()
	x.mu.Lock()
	x.rc = nil
	x.mu.Unlock()
}

// killRC ends an rc file that still runs.
func (x *program) killRC() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rc != nil {
		syscall.Kill(-x.rc.Pid, syscall.SIGHUP)
	}
}

// authInfoFile makes the file of ExposeAuthInfo, once, and returns its name.
func (u *userProcess) authInfoFile() string {
	if !u.info.Settings.ExposeAuthInfo {
		return ""
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.authInfo != "" || u.closed {
		return u.authInfo
	}
	f, err := os.CreateTemp("/tmp", "sshauth.")
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, m := range u.info.Methods {
		fmt.Fprintln(f, m)
	}
	u.authInfo = f.Name()
	u.remove = append(u.remove, f.Name())
	return u.authInfo
}

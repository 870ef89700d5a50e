package user

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/sshfront/internal/sftp"
)

// sftpServer prepares the start of the sftp server. It returns the environment,
// and a descriptor for it that answers lookups, or nil.
func (u *userProcess) sftpServer(env []string) ([]string, *os.File) {
	// What is first counts.
	env = append(sftp.Env(u.info.User, u.info.Home), env...)
	if !sftp.NeedNames() {
		return env, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return env, nil
	}
	his, ours := os.NewFile(uintptr(fds[0]), "names"), os.NewFile(uintptr(fds[1]), "names")
	go func() {
		defer ours.Close()
		serveNames(ours)
	}()
	return append([]string{sftp.NamesEnv}, env...), his
}

// serveNames answers the lookups of one sftp server until it ends: it may not
// start getent(1) itself. A line is "passwd KEY" or "group KEY"; the answer is
// one line, which is empty if there is nothing. It starts nothing else, whatever
// is asked.
func serveNames(rw io.ReadWriter) {
	lines := bufio.NewScanner(rw)
	lines.Buffer(nil, 512)
	for lines.Scan() {
		database, key, _ := strings.Cut(lines.Text(), " ")
		if database != "passwd" && database != "group" || !sftp.CanAsk(key) {
			return
		}
		out, _ := exec.Command("/usr/bin/getent", database, key).Output()
		line, _, _ := bytes.Cut(out, []byte("\n"))
		if _, err := rw.Write(append(line, '\n')); err != nil {
			return
		}
	}
}

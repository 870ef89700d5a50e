// Unix_chkpwd answers pam_unix(8) about the password of whoever calls it, without
// privileges: it is Linux-PAM's unix_chkpwd(8) on a machine that has no set-id program.
//
// It passes the question on to factotum, which knows the caller from the kernel, holds
// back those who guess, and has the system's own unix_chkpwd answer as root. About
// others, that program answers what it can as the caller, which is little. Root's
// questions it answers as they are.
//
// It has no right of any kind, and decides nothing.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/syslog"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
	_ "p9auth/internal/undumpable" // it holds a password
	"p9auth/internal/version"
)

const socket = "/run/factotum/rpc"

// Exit statuses: see pam(3).
const (
	systemErr       = 4   // PAM_SYSTEM_ERR
	authErr         = 7   // PAM_AUTH_ERR
	authinfoUnavail = 9   // PAM_AUTHINFO_UNAVAIL
	maxPassword     = 512 // bytes: PAM_MAX_RESP_SIZE
	discourage      = 10 * time.Second
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-V" {
		fmt.Print(version.Text("unix_chkpwd"))
		return
	}
	os.Exit(check(os.Args[1:]))
}

// The places of the system's own unix_chkpwd: the first is where p9auth-switch(8) puts it
// to have this one in its place.
const diverted, systems = "/usr/sbin/unix_chkpwd.distrib", "/usr/sbin/unix_chkpwd"

// check is what unix_chkpwd does. It returns its exit status.
func check(args []string) int {
	if len(args) != 2 || isTerminal(0) {
		complain(syslog.LOG_NOTICE, fmt.Sprintf("inappropriate use of Unix helper binary [UID=%d]", os.Getuid()))
		fmt.Fprint(os.Stderr, "This binary is not designed for running in this way\n-- the system administrator has been informed\n")
		time.Sleep(discourage)
		return systemErr
	}
	name, option := args[0], args[1]
	if os.Getuid() == 0 || !isCaller(name) {
		return another()
	}
	password := ""
	switch option {
	case "chkexpiry":
	case "nullok", "nonull":
		var err error
		if password, err = readPassword(); err != nil {
			complain(syslog.LOG_DEBUG, err.Error())
		}
	default:
		complain(syslog.LOG_ERR, "bad argument")
		return systemErr
	}
	status, output, err := ask(name, option, password)
	switch {
	case err == nil:
		fmt.Print(output)
		return status
	case capproto.CodeOf(err) == capproto.CodeDenied: // it is another's name
		if err = restore(password); err == nil {
			return another()
		}
	}
	// Who guesses too often hears no, and whoever has no factotum that the password
	// cannot be checked: never yes.
	complain(syslog.LOG_ERR, fmt.Sprintf("user %s: %v", name, err))
	if option == "chkexpiry" {
		fmt.Println(-1)
	}
	if capproto.CodeOf(err) == capproto.CodeLimit {
		return authErr
	}
	return authinfoUnavail
}

// another has the system's own program answer, with no more rights than the caller has.
func another() int {
	err := sys.ExecAnother(diverted, systems)
	complain(syslog.LOG_ERR, fmt.Sprintf("the system's unix_chkpwd: %v", err))
	return authinfoUnavail
}

// restore makes standard input what it was before the password was read.
func restore(password string) error {
	r, w, err := os.Pipe() // it holds more than a password
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.WriteString(password + "\x00"); err != nil {
		return err
	}
	return unix.Dup3(int(r.Fd()), 0, 0)
}

func ask(name, option, password string) (int, string, error) {
	client, err := capproto.Dial(socket)
	if err != nil {
		return 0, "", err
	}
	defer client.Close()
	return client.CheckPassword(name, option, password)
}

// isCaller says whether a name is that of the caller, as far as the user database's
// file says so. Where it does not, factotum knows: the name may be a directory's.
func isCaller(name string) bool {
	u, err := user.Lookup(name)
	return err != nil || u.Uid == strconv.Itoa(os.Getuid())
}

// readPassword reads standard input up to a NUL, without which there is no password.
func readPassword() (string, error) {
	b := make([]byte, 0, maxPassword+1)
	defer func() { clear(b[:cap(b)]) }()
	for len(b) < cap(b) {
		n, err := os.Stdin.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if before, _, ok := bytes.Cut(b, []byte{0}); ok {
			return string(before), nil
		}
		if err != nil {
			break
		}
	}
	return "", errors.New("no password supplied")
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// complain writes to the system's log, where the administrator looks.
func complain(p syslog.Priority, text string) {
	if l, err := syslog.New(p|syslog.LOG_AUTHPRIV, "unix_chkpwd"); err == nil {
		fmt.Fprint(l, text)
		l.Close()
	}
}

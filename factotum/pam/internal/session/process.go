package session

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/asuser"
	"p9auth/factotum/pam/internal/log"
)

// Some of what a module sets of the process that it runs in nobody can give to another
// process: it is in the grant, and become takes it on. All of it belongs to a thread,
// and modules run on the main one, as this does.

// origin is what a module may change, as it is before the session is opened.
type origin struct {
	mounts  unix.Stat_t // of the mount namespace
	keyring int         // the session keyring, 0 if there are no keyrings
}

func readOrigin() (o origin, err error) {
	if err := unix.Stat("/proc/thread-self/ns/mnt", &o.mounts); err != nil {
		return o, fmt.Errorf("the mount namespace: %w", err)
	}
	o.keyring = sessionKeyring()
	return o, nil
}

// readProcess finds out what the modules have set of this process since before.
func (s *Session) readProcess(before origin) (p pamwire.Process, err error) {
	after, err := readOrigin()
	if err != nil {
		return p, err
	}
	if after.mounts.Dev != before.mounts.Dev || after.mounts.Ino != before.mounts.Ino {
		p.Mounts = &pamwire.Mounts{Dev: after.mounts.Dev, Ino: after.mounts.Ino}
	}
	if p.Context, err = execContext(); err != nil {
		return p, err
	}
	if p.Inheritable, p.Ambient, err = givenCaps(); err != nil {
		return p, err
	}
	if p.TTYAudit, err = ttyAudit(); err != nil {
		return p, err
	}
	if after.keyring != before.keyring {
		if p.Keyring, err = s.shareKeyring(after.keyring); err != nil {
			// The user gets one that has nothing of the modules'.
			log.Warn("the session keyring of PAM's modules is not the user's", "user", s.Account.Name, "error", err.Error())
			p.Keyring = ""
		}
	}
	return p, nil
}

// execContext is the security context for what this thread executes next, "" if none
// is set: see getexeccon(3).
func execContext() (string, error) {
	b, err := os.ReadFile("/proc/thread-self/attr/exec")
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // a kernel without a security module
		return "", nil
	case err != nil:
		return "", fmt.Errorf("the security context: %w", err)
	}
	context := strings.TrimRight(string(b), "\x00\n")
	if strings.ContainsFunc(context, func(c rune) bool { return c <= ' ' || c > '~' }) || len(context) > 4095 {
		return "", fmt.Errorf("the security context %.100q is not one that can be set", context)
	}
	return context, nil
}

// givenCaps are the inheritable and the ambient capabilities of this thread. factotum
// starts workers without.
func givenCaps() (inheritable, ambient uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, 0, fmt.Errorf("capget: %w", err)
	}
	inheritable = uint64(data[0].Inheritable) | uint64(data[1].Inheritable)<<32
	for n := range uintptr(64) {
		if inheritable>>n&1 == 0 {
			continue
		}
		set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, n, 0, 0)
		if err != nil {
			return 0, 0, fmt.Errorf("prctl: %w", err)
		}
		if set == 1 {
			ambient |= 1 << n
		}
	}
	return inheritable, ambient, nil
}

// ttyAudit is whether what this process types at terminals is audited, as
// pamwire.Process has it. Where the kernel has no audit, or none for this process, no
// module can have had it audited.
func ttyAudit() (uint32, error) {
	const auditTTYGet = 1016 // AUDIT_TTY_GET of linux/audit.h
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return 0, nil
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(10 * time.Second)) // a thread of the kernel answers
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return 0, fmt.Errorf("setsockopt: %w", err)
	}
	b := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], auditTTYGet)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, nil
	}
	answer := make([]byte, 256)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, fmt.Errorf("whether the terminal is audited: %w", err)
	}
	// struct audit_tty_status: enabled and log_passwd. Anything else is an error.
	if n < unix.NLMSG_HDRLEN+8 || binary.NativeEndian.Uint16(answer[4:]) != auditTTYGet {
		return 0, nil
	}
	status := answer[unix.NLMSG_HDRLEN:]
	return min(binary.NativeEndian.Uint32(status), 1) | min(binary.NativeEndian.Uint32(status[4:]), 1)<<1, nil
}

// sessionKeyring is the id of this thread's session keyring, or 0.
func sessionKeyring() int {
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		return 0
	}
	return id
}

// shared is the keyring that a module has made the session keyring, and the user's with
// that in it.
type shared struct{ modules, users int }

// shareKeyring makes a session keyring for the user, which they can join by its name,
// and which has that of the modules in it. What the modules put there is the user's
// then, and with it what they revoke: see pam_keyinit(8).
func (s *Session) shareKeyring(modules int) (name string, err error) {
	groups, err := readGroups()
	if err != nil {
		return "", err
	}
	random := make([]byte, 16)
	rand.Read(random)
	name = "_ses." + hex.EncodeToString(random)
	a := s.Account
	err = asuser.Do(a.UID, a.GID, groups, func() error {
		id, err := unix.AddKey("keyring", name, nil, unix.KEY_SPEC_THREAD_KEYRING)
		if err != nil {
			return fmt.Errorf("add_key: %w", err)
		}
		if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, modules, id, 0, 0); err != nil {
			return fmt.Errorf("link the keyring: %w", err)
		}
		// As the kernel's session keyrings, and to be found by name.
		const all, view, read, search = 0x3f, 1, 2, 8
		if err := unix.KeyctlSetperm(id, all<<24|(view|read|search)<<16); err != nil {
			return fmt.Errorf("the permissions of the keyring: %w", err)
		}
		s.keyring = shared{modules, id}
		return nil
	})
	return name, err
}

// revokeKeyring revokes the user's session keyring if the modules have revoked theirs.
func (s *Session) revokeKeyring() {
	if s.keyring.users == 0 {
		return
	}
	_, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, s.keyring.modules)
	if !errors.Is(err, unix.EKEYREVOKED) && !errors.Is(err, unix.ENOKEY) {
		return
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_REVOKE, s.keyring.users, 0, 0, 0); err != nil && !errors.Is(err, unix.EKEYREVOKED) {
		log.Warn("the session keyring is not revoked", "user", s.Account.Name, "error", err.Error())
	}
}

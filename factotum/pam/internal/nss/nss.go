// Package nss asks the C library for accounts and groups: nsswitch.conf(5). It is
// linked with the library because NSS loads modules (LDAP, SSSD), which Go's
// os/user cannot do by itself.
//
// It runs in the PAM worker, as root, and trusts the sources that the
// administrator configured. A source that cannot be asked is an error or has no
// such user: either way nobody gets in.
//
// # The name of an account
//
// A person types a name, and a source may answer it with an account of another
// name: a directory that minds no case has alice for ALICE, and one of a domain has
// EXAMPLE\alice for alice. There are three names, as with sshd(8) and login(1):
//
//   - the name that was typed goes to PAM as PAM_USER and to the log's lines about
//     the login, Match User goes by it, and a client signs it (RFC 4252, section 7);
//   - PAM_USER as PAM's modules leave it is looked up once PAM has admitted the
//     login, and must lead to the account that the login is for;
//   - Account.Name, which is pw_name, is the account's name: for AllowUsers and
//     DenyUsers, for groups, for the files, commands and principals of keys, for the
//     session's environment and records.
//
// Two names are the same account if they lead to the same Account.Name and UID.
package nss

/*
#include <sys/types.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"unsafe"
)

// An Account is a passwd entry: see getpwnam_r(3). Its name may not be the one
// that was looked up: see the package's comment.
type Account struct {
	Name     string
	UID, GID uint32
	Home     string
	Shell    string

	groups []uint32 // once they were asked for
}

// ErrNoUser says that there is no account of that name.
var ErrNoUser = errors.New("no such user")

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// maxEntry bounds an entry of NSS: a group has the names of all its members.
const maxEntry = 16 << 20

// ask calls a function such as getgrgid_r(3) with larger and larger buffers,
// until the entry fits. The call copies what it wants of the entry.
func ask(function string, call func(buf unsafe.Pointer, size uintptr) syscall.Errno) error {
	for size := uintptr(4 << 10); size <= maxEntry; size *= 4 {
		buf := C.malloc(C.size_t(size))
		e := call(buf, size)
		C.free(buf)
		switch e {
		case 0:
			return nil
		case syscall.ERANGE:
			continue
		}
		return fmt.Errorf("%s: %w", function, e)
	}
	return fmt.Errorf("%s: the entry is larger than %d MiB", function, maxEntry>>20)
}

// Lookup finds an account. The error is ErrNoUser if there is none.
func Lookup(name string) (*Account, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return account("getpwnam_r", func(pw *C.struct_passwd, buf *C.char, size C.size_t, found **C.struct_passwd) C.int {
		return C.getpwnam_r(cname, pw, buf, size, found)
	})
}

// LookupUID finds the account of a uid. The error is ErrNoUser if there is none.
func LookupUID(uid uint32) (*Account, error) {
	return account("getpwuid_r", func(pw *C.struct_passwd, buf *C.char, size C.size_t, found **C.struct_passwd) C.int {
		return C.getpwuid_r(C.uid_t(uid), pw, buf, size, found)
	})
}

// account is what a function such as getpwnam_r(3) finds.
func account(function string, get func(*C.struct_passwd, *C.char, C.size_t, **C.struct_passwd) C.int) (*Account, error) {
	var a *Account
	err := ask(function, func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var pw C.struct_passwd
		var found *C.struct_passwd
		e := get(&pw, (*C.char)(buf), C.size_t(size), &found)
		if found != nil {
			a = &Account{
				Name: C.GoString(pw.pw_name), UID: uint32(pw.pw_uid), GID: uint32(pw.pw_gid),
				Home: C.GoString(pw.pw_dir), Shell: C.GoString(pw.pw_shell),
			}
		}
		return syscall.Errno(e)
	})
	// The users of a source that cannot be asked do not exist: nobody gets in.
	if a == nil && (err == nil || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH)) {
		return nil, ErrNoUser
	}
	return a, err
}

// Groups returns the account's groups, the primary group first: see
// getgrouplist(3). The kernel takes no more than maxGroups; they are an error. It asks once: sources
// such as nss-systemd(8) look into a dozen directories each time. Who wants what has
// changed since looks the account up again.
func (a *Account) Groups() ([]uint32, error) {
	if a.groups == nil {
		var err error
		if a.groups, err = a.askGroups(); err != nil {
			return nil, err
		}
	}
	return slices.Clone(a.groups), nil
}

func (a *Account) askGroups() ([]uint32, error) {
	cname := C.CString(a.Name)
	defer C.free(unsafe.Pointer(cname))
	for n := C.int(64); n <= maxGroups; n *= 4 {
		list := make([]C.gid_t, n)
		got := n
		if C.getgrouplist(cname, C.gid_t(a.GID), &list[0], &got) >= 0 {
			gids := []uint32{a.GID}
			for _, g := range list[:got] {
				if uint32(g) != a.GID {
					gids = append(gids, uint32(g))
				}
			}
			return gids, nil
		}
	}
	return nil, fmt.Errorf("%s is in more than %d groups", a.Name, maxGroups)
}

// groupName finds a group's name. It returns "" if there is no such group, and an
// error if a source that may have it cannot be asked.
func groupName(gid uint32) (string, error) {
	name := ""
	err := ask("getgrgid_r", func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var gr C.struct_group
		var found *C.struct_group
		e := C.getgrgid_r(C.gid_t(gid), &gr, (*C.char)(buf), C.size_t(size), &found)
		if found != nil {
			name = C.GoString(gr.gr_name)
		}
		return syscall.Errno(e)
	})
	if err != nil {
		return "", fmt.Errorf("the name of group %d: %w", gid, err)
	}
	return name, nil
}

// GroupID finds a group's id, and whether there is such a group.
func GroupID(name string) (gid uint32, ok bool, err error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	err = ask("getgrnam_r", func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var gr C.struct_group
		var found *C.struct_group
		e := C.getgrnam_r(cname, &gr, (*C.char)(buf), C.size_t(size), &found)
		if found != nil {
			gid, ok = uint32(gr.gr_gid), true
		}
		return syscall.Errno(e)
	})
	return gid, ok, err
}

// GroupNames returns the names of those groups that have one. More than n names,
// or more than size bytes of them, are an error: a list that is cut short would
// be a rule about groups that is not obeyed.
func GroupNames(gids []uint32, n, size int) ([]string, error) {
	var names []string
	for _, g := range gids {
		name, err := groupName(g)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		if size -= len(name); size < 0 || len(names) == n {
			return nil, fmt.Errorf("too many groups (%d) to name them all", len(gids))
		}
		names = append(names, name)
	}
	return names, nil
}

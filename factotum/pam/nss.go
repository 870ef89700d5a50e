package main

/*
#include <sys/types.h>
#include <sys/resource.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>

// Go raises the soft limit of open files when it starts. This runs before,
// so that the worker can take that back: what PAM sees and sets must be the
// limits that it was started with.
static struct rlimit nofile_at_start;

__attribute__((constructor)) static void
save_nofile(void)
{
	getrlimit(RLIMIT_NOFILE, &nofile_at_start);
}

static void
restore_nofile(void)
{
	setrlimit(RLIMIT_NOFILE, &nofile_at_start);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"p9auth/capproto"
)

func restoreNoFile() { C.restore_nofile() }

// An account is a passwd entry, see getpwnam_r(3).
type account struct {
	name     string
	uid, gid uint32
	home     string
	shell    string
}

var errNoUser = errors.New("no such user")

// maxEntry bounds an entry of NSS: a group has the names of all its members.
const maxEntry = 16 << 20

// ask calls a function such as getgrgid_r(3) with larger and larger buffers,
// until the entry fits. The call copies what it wants of the entry.
func ask(function string, call func(buf *C.char, size C.size_t) C.int) error {
	for size := C.size_t(4 << 10); size <= maxEntry; size *= 4 {
		buf := (*C.char)(C.malloc(size))
		e := call(buf, size)
		C.free(unsafe.Pointer(buf))
		switch e {
		case 0:
			return nil
		case C.ERANGE:
			continue
		}
		return fmt.Errorf("%s: %w", function, syscall.Errno(e))
	}
	return fmt.Errorf("%s: the entry is larger than %d MiB", function, maxEntry>>20)
}

// lookup finds an account through NSS. It returns errNoUser if there is none.
func lookup(name string) (*account, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var a *account
	err := ask("getpwnam_r", func(buf *C.char, size C.size_t) C.int {
		var pw C.struct_passwd
		var found *C.struct_passwd
		e := C.getpwnam_r(cname, &pw, buf, size, &found)
		if found != nil {
			a = &account{
				name: C.GoString(pw.pw_name), uid: uint32(pw.pw_uid), gid: uint32(pw.pw_gid),
				home: C.GoString(pw.pw_dir), shell: C.GoString(pw.pw_shell),
			}
		}
		return e
	})
	// Where a source cannot be asked its users do not exist: nobody gets in.
	if a == nil && (err == nil || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH)) {
		return nil, errNoUser
	}
	return a, err
}

// groups is the account's group list, the primary group first, see
// getgrouplist(3).
func (a *account) groups() ([]uint32, error) {
	cname := C.CString(a.name)
	defer C.free(unsafe.Pointer(cname))
	for n := C.int(64); n <= 65536; n *= 4 {
		list := make([]C.gid_t, n)
		got := n
		if C.getgrouplist(cname, C.gid_t(a.gid), &list[0], &got) >= 0 {
			gids := []uint32{a.gid}
			for _, g := range list[:got] {
				if uint32(g) != a.gid {
					gids = append(gids, uint32(g))
				}
			}
			if len(gids) > capproto.MaxGroups {
				return nil, fmt.Errorf("%s is in %d groups, at most %d are possible", a.name, len(gids), capproto.MaxGroups)
			}
			return gids, nil
		}
	}
	return nil, fmt.Errorf("%s is in too many groups", a.name)
}

// groupName finds a group's name through NSS. It returns "" if there is no such
// group, and an error if that cannot be said, as when a source cannot be asked.
func groupName(gid uint32) (string, error) {
	name := ""
	err := ask("getgrgid_r", func(buf *C.char, size C.size_t) C.int {
		var gr C.struct_group
		var found *C.struct_group
		e := C.getgrgid_r(C.gid_t(gid), &gr, buf, size, &found)
		if found != nil {
			name = C.GoString(gr.gr_name)
		}
		return e
	})
	if err != nil {
		return "", fmt.Errorf("the name of group %d: %w", gid, err)
	}
	return name, nil
}

// groupID finds a group's id through NSS, and whether there is such a group.
func groupID(name string) (gid int, ok bool, err error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	err = ask("getgrnam_r", func(buf *C.char, size C.size_t) C.int {
		var gr C.struct_group
		var found *C.struct_group
		e := C.getgrnam_r(cname, &gr, buf, size, &found)
		if found != nil {
			gid, ok = int(gr.gr_gid), true
		}
		return e
	})
	return gid, ok, err
}

// groupNames are the names of groups that have one. They take at most size
// bytes, and there are at most n.
func groupNames(gids []uint32, n, size int) ([]string, error) {
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
			return nil, fmt.Errorf("there are too many groups to tell them by name: %d", len(gids))
		}
		names = append(names, name)
	}
	return names, nil
}

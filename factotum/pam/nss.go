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

// lookup finds an account through NSS. It returns errNoUser if there is none.
func lookup(name string) (*account, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	for size := C.size_t(4096); size <= 1<<20; size *= 2 {
		buf := C.malloc(size)
		var pw C.struct_passwd
		var found *C.struct_passwd
		e := C.getpwnam_r(cname, &pw, (*C.char)(buf), size, &found)
		if e == C.ERANGE {
			C.free(buf)
			continue
		}
		defer C.free(buf)
		if found == nil {
			if e != 0 && e != C.ENOENT && e != C.ESRCH {
				return nil, fmt.Errorf("getpwnam_r: %w", syscall.Errno(e))
			}
			return nil, errNoUser
		}
		return &account{
			name: C.GoString(pw.pw_name), uid: uint32(pw.pw_uid), gid: uint32(pw.pw_gid),
			home: C.GoString(pw.pw_dir), shell: C.GoString(pw.pw_shell),
		}, nil
	}
	return nil, errors.New("getpwnam_r: the entry is larger than 1 MiB")
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

// groupName finds a group's name through NSS, or returns "".
func groupName(gid uint32) string {
	buf := C.malloc(1 << 16)
	defer C.free(buf)
	var gr C.struct_group
	var found *C.struct_group
	C.getgrgid_r(C.gid_t(gid), &gr, (*C.char)(buf), 1<<16, &found)
	if found == nil {
		return ""
	}
	return C.GoString(gr.gr_name)
}

// groupID finds a group's id through NSS.
func groupID(name string) (int, bool) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	buf := C.malloc(1 << 16)
	defer C.free(buf)
	var gr C.struct_group
	var found *C.struct_group
	C.getgrnam_r(cname, &gr, (*C.char)(buf), 1<<16, &found)
	if found == nil {
		return 0, false
	}
	return int(gr.gr_gid), true
}

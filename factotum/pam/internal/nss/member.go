package nss

/*
#include <sys/types.h>
#include <grp.h>
#include <pwd.h>
*/
import "C"

import (
	"syscall"
	"unsafe"
)

// maxAccounts bounds how many accounts OnlyMember looks through.
const maxAccounts = 1 << 20

// OnlyMember reports whether a group has the user as its only member, as
// secure_permissions of Debian's sshd finds it: no other account has it as the primary
// group, and it names nobody, or the owner of the file alone. A group without members
// may be given away by a program, and is not the user's. Where NSS lists not all of its
// accounts (getpwent(3)), those that it keeps to itself do not count, as with sshd.
func OnlyMember(gid, uid, owner uint32) bool {
	named, ok := soleName(gid)
	if !ok {
		return false
	}
	members := 0
	C.setpwent()
	defer C.endpwent()
	for n := 0; ; n++ {
		pw, err := C.getpwent()
		if pw == nil {
			if err != nil && err != syscall.ENOENT && err != syscall.ESRCH {
				return false // a source that cannot be asked
			}
			break
		}
		if uint32(pw.pw_gid) == gid {
			members++
			if uint32(pw.pw_uid) != uid {
				return false
			}
		}
		if n == maxAccounts {
			return false
		}
	}
	if named != "" {
		if a, err := Lookup(named); err != nil || a.UID != owner {
			return false
		}
		members++
	}
	return members > 0
}

// soleName returns the one name that is listed in a group, or "" if there is none. It
// reports whether the group exists and lists no more.
func soleName(gid uint32) (name string, ok bool) {
	err := ask("getgrgid_r", func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var gr C.struct_group
		var found *C.struct_group
		e := C.getgrgid_r(C.gid_t(gid), &gr, (*C.char)(buf), C.size_t(size), &found)
		if found == nil {
			return syscall.Errno(e)
		}
		listed := unsafe.Slice(gr.gr_mem, 2) // ends in a null pointer
		switch {
		case listed[0] == nil:
			ok = true
		case listed[1] == nil:
			name, ok = C.GoString(listed[0]), true
		}
		return syscall.Errno(e)
	})
	return name, ok && err == nil
}

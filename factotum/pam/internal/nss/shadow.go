package nss

/*
#include <sys/types.h>
#include <errno.h>
#include <pwd.h>
#include <shadow.h>
#include <stdlib.h>
#include <string.h>
*/
import "C"

import (
	"errors"
	"syscall"
	"unsafe"
)

// A Shadow is a shadow entry, without the hash: see getspnam_r(3). Days count from
// 1970-01-01, -1 is an empty field.
type Shadow struct {
	Hash    HashKind
	Changed int64 // the day of the last change
	Min     int64 // days before the password may be changed
	Max     int64 // days after which it must be
	Warn    int64 // days of warning before that
	Idle    int64 // days after that until the account is disabled
}

// A HashKind is what passwd -S says of a hash.
type HashKind string

const (
	Locked   HashKind = "L"  // it begins with "*" or "!"
	Empty    HashKind = "NP" // there is no password
	Password HashKind = "P"
)

func hashKind(hash string) HashKind {
	switch {
	case hash == "":
		return Empty
	case hash[0] == '*' || hash[0] == '!':
		return Locked
	}
	return Password
}

// LookupShadow finds the shadow entry of an account. Where there is none it returns
// nil, and what the passwd entry itself says of the hash.
func LookupShadow(name string) (*Shadow, HashKind, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var s *Shadow
	err := ask("getspnam_r", func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var sp C.struct_spwd
		var found *C.struct_spwd
		e := C.getspnam_r(cname, &sp, (*C.char)(buf), C.size_t(size), &found)
		if found != nil {
			s = &Shadow{hashKind(C.GoString(sp.sp_pwdp)), int64(sp.sp_lstchg), int64(sp.sp_min), int64(sp.sp_max), int64(sp.sp_warn), int64(sp.sp_inact)}
		}
		C.explicit_bzero(buf, C.size_t(size))
		return syscall.Errno(e)
	})
	if s != nil {
		return s, s.Hash, nil
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ESRCH) {
		return nil, "", err
	}
	kind := HashKind("")
	err = ask("getpwnam_r", func(buf unsafe.Pointer, size uintptr) syscall.Errno {
		var pw C.struct_passwd
		var found *C.struct_passwd
		e := C.getpwnam_r(cname, &pw, (*C.char)(buf), C.size_t(size), &found)
		if found != nil {
			kind = hashKind(C.GoString(pw.pw_passwd))
		}
		return syscall.Errno(e)
	})
	if err == nil && kind == "" {
		err = ErrNoUser
	}
	return nil, kind, err
}

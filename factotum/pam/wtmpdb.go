package main

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// As in wtmpdb.h of libwtmpdb. A database of NULL is the system's. What is
// returned is a record's number, or negative with an error to be freed.
typedef int64_t (*login_fn)(const char *db, int type, const char *user, uint64_t usec,
	const char *tty, const char *rhost, const char *service, char **error);
typedef int64_t (*get_id_fn)(const char *db, const char *tty, char **error);
typedef int (*logout_fn)(const char *db, int64_t id, uint64_t usec, char **error);

static int64_t
wtmpdb_in(void *fn, const char *user, uint64_t usec, const char *tty, const char *rhost,
	const char *service, char **error)
{
	return ((login_fn)fn)(NULL, 3, user, usec, tty, rhost, service, error); // USER_PROCESS
}

static int64_t
wtmpdb_out(void *id_fn, void *fn, const char *tty, uint64_t usec, char **error)
{
	int64_t id = ((get_id_fn)id_fn)(NULL, tty, error);

	return id < 0 ? id : ((logout_fn)fn)(NULL, id, usec, error);
}
*/
import "C"

import (
	"errors"
	"os"
	"time"
	"unsafe"
)

// Where Debian 13 keeps what was in wtmp: a database that pam_wtmpdb(8) writes,
// but not for PAM's service sshd ("skip_if=sshd"), as sshd does that itself. So
// do we, by the same library where it is installed, and as with wtmp only if the
// database is there.
const (
	wtmpdbPath    = "/var/lib/wtmpdb/wtmp.db"
	wtmpdbLibrary = "libwtmpdb.so.0"
	wtmpdbService = "sshd"
)

// inWtmpdb says whether this session's record is ours to write.
func (w *worker) inWtmpdb() bool {
	if w.ttyName != sshTTY || w.service != wtmpdbService {
		return false
	}
	_, err := os.Stat(wtmpdbPath)
	return err == nil
}

// wtmpdb calls the library. It stays loaded, as PAM's modules do.
func wtmpdb(call func(function func(string) unsafe.Pointer, message **C.char) C.int64_t) error {
	name := C.CString(wtmpdbLibrary)
	defer C.free(unsafe.Pointer(name))
	lib := C.dlopen(name, C.RTLD_NOW|C.RTLD_LOCAL)
	if lib == nil {
		return errors.New(C.GoString(C.dlerror()))
	}
	missing := ""
	function := func(name string) unsafe.Pointer {
		s := C.CString(name)
		defer C.free(unsafe.Pointer(s))
		p := C.dlsym(lib, s)
		if p == nil {
			missing = name
		}
		return p
	}
	var message *C.char
	n := call(function, &message)
	defer C.free(unsafe.Pointer(message))
	switch {
	case missing != "":
		return errors.New(wtmpdbLibrary + " has no function " + missing)
	case n >= 0:
		return nil
	case message == nil:
		return errors.New("unknown error")
	}
	return errors.New(C.GoString(message))
}

// wtmpdbLogin records a session's beginning.
func wtmpdbLogin(user, line, rhost string, at time.Time) error {
	return wtmpdb(func(function func(string) unsafe.Pointer, message **C.char) C.int64_t {
		login := function("wtmpdb_login")
		if login == nil {
			return -1
		}
		var s [4]*C.char
		for i, text := range []string{user, line, rhost, wtmpdbService} {
			s[i] = C.CString(text)
			defer C.free(unsafe.Pointer(s[i]))
		}
		return C.wtmpdb_in(login, s[0], C.uint64_t(at.UnixMicro()), s[1], s[2], s[3], message)
	})
}

// wtmpdbLogout records the end of the session that began last on a line.
func wtmpdbLogout(line string, at time.Time) error {
	return wtmpdb(func(function func(string) unsafe.Pointer, message **C.char) C.int64_t {
		id, logout := function("wtmpdb_get_id"), function("wtmpdb_logout")
		if id == nil || logout == nil {
			return -1
		}
		s := C.CString(line)
		defer C.free(unsafe.Pointer(s))
		return C.wtmpdb_out(id, logout, s, C.uint64_t(at.UnixMicro()), message)
	})
}

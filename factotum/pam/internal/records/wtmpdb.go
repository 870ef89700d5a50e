package records

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// As in wtmpdb.h of libwtmpdb. A database of NULL is the system's. What is
// returned is a record's number, or negative with an error to be freed.
typedef int64_t (*login_fn)(const char *db, int type, const char *user, uint64_t usec,
	const char *tty, const char *rhost, const char *service, char **error);
typedef int64_t (*get_id_fn)(const char *db, const char *tty, char **error);
typedef int (*logout_fn)(const char *db, int64_t id, uint64_t usec, char **error);

// find finds a function of the library, which stays loaded, as PAM's modules do.
static void *
find(const char *library, const char *name, char **error)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	void *fn = lib ? dlsym(lib, name) : NULL;

	if (fn == NULL)
		*error = strdup(dlerror());
	return fn;
}

static int64_t
record_login(const char *library, const char *user, uint64_t usec, const char *tty, const char *rhost,
	const char *service, char **error)
{
	login_fn login = (login_fn)find(library, "wtmpdb_login", error);

	return login == NULL ? -1 : login(NULL, 3, user, usec, tty, rhost, service, error); // USER_PROCESS
}

static int64_t
record_logout(const char *library, const char *tty, uint64_t usec, char **error)
{
	get_id_fn get_id = (get_id_fn)find(library, "wtmpdb_get_id", error);
	logout_fn logout = get_id == NULL ? NULL : (logout_fn)find(library, "wtmpdb_logout", error);
	int64_t id = logout == NULL ? -1 : get_id(NULL, tty, error);

	return id < 0 ? id : logout(NULL, id, usec, error);
}
*/
import "C"

import (
	"errors"
	"time"
	"unsafe"
)

// Debian 13 keeps what was in wtmp in a database that pam_wtmpdb(8) writes, but
// not for PAM's service sshd ("skip_if=sshd"), as sshd writes that itself. So do
// we, by the same library where it is installed, and as with wtmp only if the
// database exists.
const wtmpdbService = "sshd"

// wtmpdbLibrary is the file of the library. Tests have another.
var wtmpdbLibrary = "libwtmpdb.so.0"

// wtmpdbLogin records the beginning of a session.
func wtmpdbLogin(user, line, rhost string, at time.Time) error {
	var message *C.char
	s := cStrings(wtmpdbLibrary, user, line, rhost, wtmpdbService)
	defer free(s)
	return wtmpdbError(C.record_login(s[0], s[1], C.uint64_t(at.UnixMicro()), s[2], s[3], s[4], &message), message)
}

// wtmpdbLogout records the end of the session that began last on a line.
func wtmpdbLogout(line string, at time.Time) error {
	var message *C.char
	s := cStrings(wtmpdbLibrary, line)
	defer free(s)
	return wtmpdbError(C.record_logout(s[0], s[1], C.uint64_t(at.UnixMicro()), &message), message)
}

func wtmpdbError(n C.int64_t, message *C.char) error {
	defer C.free(unsafe.Pointer(message))
	switch {
	case n >= 0:
		return nil
	case message == nil:
		return errors.New("unknown error")
	}
	return errors.New(C.GoString(message))
}

func cStrings(list ...string) []*C.char {
	c := make([]*C.char, len(list))
	for i, s := range list {
		c[i] = C.CString(s)
	}
	return c
}

func free(list []*C.char) {
	for _, s := range list {
		C.free(unsafe.Pointer(s))
	}
}

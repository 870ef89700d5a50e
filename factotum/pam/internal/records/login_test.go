package records

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/internal/logindefs"
)

// places makes empty files.
func places(t *testing.T) Places {
	return Places{Utmp: file(t), Wtmp: file(t), Btmp: file(t), Lastlog: file(t), Wtmpdb: filepath.Join(t.TempDir(), "none")}
}

var noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)

func sshLogin(p Places) Login {
	return Login{Places: p, Service: "sshd", TTY: "pts/76", SSH: true, RHost: "192.0.2.1", User: "alice", UID: 1000, PID: os.Getpid()}
}

func TestALoginIsInUtmpAndWtmp(t *testing.T) {
	// It is 0 where the session's leader lives in another pid namespace.
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ssh           bool
		tty, line, id string
	}{{true, "pts/76", "pts/76", "s/76"}, {false, "/dev/pts/77", "pts/77", "/77"}, {false, "tty1", "tty1", "1"}} {
		l := sshLogin(places(t))
		l.TTY, l.SSH = c.tty, c.ssh
		if c.ssh {
			l.BeginTerminal(noon)
		} else {
			l.Begin(l.BeforeBegin(), noon)
		}
		for _, path := range []string{l.Places.Utmp, l.Places.Wtmp} {
			all := Since(path, 0)
			if len(all) != 1 || all[0].Type != UserProcess || all[0].User != "alice" || all[0].Line != c.line || all[0].Host != "192.0.2.1" || all[0].PID != l.PID || all[0].SID != sid ||
				c.id != "" && all[0].ID != c.id {
				t.Errorf("%s: %+v", c.tty, all)
			}
		}
		l.End(l.BeforeEnd(), noon.Add(time.Hour))
		if all := Since(l.Places.Utmp, 0); len(all) != 1 || all[0].Type != DeadProcess {
			t.Errorf("utmp: %+v", all)
		}
		if all := Since(l.Places.Wtmp, 0); len(all) != 2 || all[1].Type != DeadProcess || all[1].Line != c.line {
			t.Errorf("wtmp: %+v", all)
		}
	}
}

func TestWhatAModuleHasRecordedIsNotRecordedAgain(t *testing.T) {
	l := sshLogin(places(t))
	l.TTY, l.SSH = "tty1", false
	before := l.BeforeBegin()
	append := func(typ int) {
		if err := Append(l.Places.Wtmp, Record{Type: typ, PID: l.PID, Line: "tty1", Time: noon}); err != nil {
			t.Fatal(err)
		}
	}
	append(UserProcess)
	l.Begin(before, noon)
	before = l.BeforeEnd()
	append(DeadProcess)
	l.End(before, noon)
	if n := len(Since(l.Places.Wtmp, 0)); n != 2 {
		t.Errorf("%d records", n)
	}
}

func TestWithoutATerminalThereIsNoRecord(t *testing.T) {
	for _, tty := range []string{"", SSHTTY} {
		l := sshLogin(places(t))
		l.TTY = tty
		l.Begin(l.BeforeBegin(), noon)
		if tty == "" {
			l.Failed(noon)
		}
		l.End(l.BeforeEnd(), noon)
		if text := l.Last(l.BeforeBegin(), nil, noon); text != "" {
			t.Error(text)
		}
		for _, path := range []string{l.Places.Utmp, l.Places.Wtmp, l.Places.Btmp, l.Places.Lastlog} {
			if Size(path) != 0 {
				t.Errorf("%s was written", path)
			}
		}
	}
}

func TestTheUserIsToldOfTheirLastLogin(t *testing.T) {
	l := sshLogin(places(t))
	if text := l.Last(l.BeforeBegin(), nil, noon); text != "" {
		t.Errorf("the first one: %q", text)
	}
	if text, want := l.Last(l.BeforeBegin(), nil, noon.Add(time.Hour)), "Last login: "+noon.Local().Format(time.ANSIC)+" from 192.0.2.1"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	// A module has noted it, and said so.
	before := l.BeforeBegin()
	if err := SetLastLogin(l.Places.Lastlog, l.UID, Last{"ssh", "h", noon.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if text := l.Last(before, nil, noon.Add(3*time.Hour)); text != "" {
		t.Errorf("said again: %q", text)
	}
	if text := l.Last(l.BeforeBegin(), logindefs.Defs{"LASTLOG_UID_MAX": "999"}, noon); text != "" {
		t.Errorf("beyond LASTLOG_UID_MAX: %q", text)
	}
	if last, err := LastLogin(l.Places.Lastlog, l.UID); err != nil || last.Host != "h" {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestAFailureIsInBtmp(t *testing.T) {
	l := sshLogin(places(t))
	l.TTY = SSHTTY
	l.Failed(noon)
	l.TTY = "/dev/tty1"
	l.User = "UNKNOWN"
	l.Failed(noon)
	all := Since(l.Places.Btmp, 0)
	if len(all) != 2 || all[0].Line != "ssh:notty" || all[0].User != "alice" || all[1].Line != "tty1" || all[1].User != "UNKNOWN" || all[0].Type != LoginProcess {
		t.Errorf("%+v", all)
	}
}

func TestNoRecordThatFailsPanics(t *testing.T) {
	dir := t.TempDir() // none of them is a file
	l := sshLogin(Places{Utmp: dir, Wtmp: dir, Btmp: dir, Lastlog: dir, Wtmpdb: dir})
	l.Service = "other"
	before := l.BeforeBegin()
	l.Begin(before, noon)
	l.Last(before, nil, noon)
	l.Failed(noon)
	l.End(before, noon)
}

// fakeWtmpdb has the functions of libwtmpdb, which write down their arguments. The
// login of mallory fails with a message, a logout of no session without one.
const fakeWtmpdb = `
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void note(const char *s, const char *a, const char *b, const char *c, const char *d, long n) {
	FILE *f = fopen(LOG, "a");
	fprintf(f, "%s %s %s %s %s %ld\n", s, a, b, c, d, n);
	fclose(f);
}
int64_t wtmpdb_login(const char *db, int type, const char *user, uint64_t usec, const char *tty, const char *rhost, const char *service, char **error) {
	if (strcmp(user, "mallory") == 0) { *error = strdup("no mallory"); return -1; }
	note(db ? "db" : "login", user, tty, rhost, service, (long)usec + type);
	return 5;
}
#ifndef OLD
int64_t wtmpdb_get_id(const char *db, const char *tty, char **error) { return strcmp(tty, "pts/1") == 0 ? 5 : -1; }
int wtmpdb_logout(const char *db, int64_t id, uint64_t usec, char **error) { note("logout", "", "", "", "", (long)usec + id); return 0; }
#endif
`

func TestWtmpdb(t *testing.T) {
	dir := t.TempDir()
	log, source := filepath.Join(dir, "log"), filepath.Join(dir, "fake.c")
	if err := os.WriteFile(source, []byte(fakeWtmpdb), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(name string, flags ...string) string {
		lib := filepath.Join(dir, name)
		argv := append([]string{"-shared", "-fPIC", "-w", "-DLOG=\"" + log + "\"", "-o", lib, source}, flags...)
		if out, err := exec.Command("gcc", argv...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
		return lib
	}
	defer func(name string) { wtmpdbLibrary = name }(wtmpdbLibrary)
	at := time.UnixMicro(1000)

	wtmpdbLibrary = filepath.Join(dir, "none.so")
	if err := wtmpdbLogin("alice", "pts/1", "h", at); err == nil || !strings.Contains(err.Error(), "none.so") {
		t.Errorf("no library: %v", err)
	}
	wtmpdbLibrary = build("old.so", "-DOLD")
	if err := wtmpdbLogout("pts/1", at); err == nil || !strings.Contains(err.Error(), "wtmpdb_get_id") {
		t.Errorf("no function: %v", err)
	}
	wtmpdbLibrary = build("new.so")
	if err := wtmpdbLogin("mallory", "pts/1", "h", at); err == nil || err.Error() != "no mallory" {
		t.Errorf("the library's error: %v", err)
	}
	if err := wtmpdbLogout("pts/2", at); err == nil || err.Error() != "unknown error" {
		t.Errorf("an error without words: %v", err)
	}
	// Only sshd's logins are ours to write, and only where the database exists.
	p := places(t)
	l := sshLogin(p)
	l.PID, l.TTY = 1, "pts/1"
	l.Begin(l.BeforeBegin(), at)
	l.Places.Wtmpdb = file(t)
	l.Begin(l.BeforeBegin(), at)
	l.End(l.BeforeEnd(), at)
	l.Service, l.SSH = "login", false
	l.Begin(l.BeforeBegin(), at)
	l.Service, l.TTY = "sshd", "/dev/tty1"
	l.Begin(l.BeforeBegin(), at)
	b, err := os.ReadFile(log)
	if want := "login alice pts/1 192.0.2.1 sshd 1003\nlogout     1005\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v, want %q", b, err, want)
	}
}

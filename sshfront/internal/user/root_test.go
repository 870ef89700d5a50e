package user

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/sshfront/internal/userlink"
)

// inARoot is a user process in a root directory that has masters of terminals, at the
// numbers from first on.
func inARoot(t *testing.T, settings string, first, n int) *userProcess {
	t.Helper()
	for fd := first; fd < first+n; fd++ {
		ptmx, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Skip(err)
		}
		if err := unix.Dup3(ptmx, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(ptmx)
		t.Cleanup(func() { unix.Close(fd) })
	}
	i := info(t, settings, "")
	i.Root = "/srv/jail"
	u := newUserProcess(i, nil)
	u.masters = masters(first, n+2)
	return u
}

func TestOnlyMastersAreTakenForTerminals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := unix.Dup3(int(r.Fd()), 302, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(302)
	u := inARoot(t, "", 300, 2)
	if !slices.Equal(u.masters, []int{300, 301}) {
		t.Errorf("%v", u.masters)
	}
	size := userlink.OpenPTY{Term: "x", Size: userlink.Size{Cols: 1, Rows: 1}}
	for id := range uint32(2) {
		a, err := u.handle(id+1, size)
		if err != nil {
			t.Fatal(err)
		}
		a.Files[0].Close()
	}
	if len(u.masters) != 0 {
		t.Errorf("%v are left", u.masters)
	}
}

func TestSFTPByForceGivesItsTerminalBack(t *testing.T) {
	for settings, left := range map[string]int{"ForceCommand internal-sftp -l INFO\n": 0, "ForceCommand date\n": 1, "Subsystem sftp internal-sftp\n": 1} {
		u := inARoot(t, settings, 310, 1)
		u.giveBack()
		if len(u.masters) != left {
			t.Errorf("%q: %d are left, want %d", settings, len(u.masters), left)
		}
	}
}

// TestADirectoryThatIsLeftOpenIsNoWayOut: whoever redeems chooses the descriptors below
// programFD, of which this process has one of a directory then.
func TestADirectoryThatIsLeftOpenIsNoWayOut(t *testing.T) {
	saved, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Dup3(saved, 0, 0); unix.Close(saved) }()
	dir, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if err := unix.Dup3(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	i := info(t, "", "")
	u := newUserProcess(i, nil)
	if err := u.enterRoot(); err != nil {
		t.Errorf("outside of a root: %v", err)
	}
	i.Root = "/srv/jail"
	if err := u.enterRoot(); err == nil || err.Error() != "descriptor 0 is a directory" {
		t.Errorf("in a root: %v", err)
	}
}

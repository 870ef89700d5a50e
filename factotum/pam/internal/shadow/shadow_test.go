package shadow

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
)

// TestStatusIsWhatPasswdPrints of each user of this machine.
func TestStatusIsWhatPasswdPrints(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to read the shadow file")
	}
	out, err := exec.Command("passwd", "-S", "-a").Output()
	if err != nil || len(out) == 0 {
		t.Fatal(err, string(out))
	}
	for want := range strings.Lines(string(out)) {
		user, _, _ := strings.Cut(want, " ")
		if got, err := Status(user); err != nil || got+"\n" != want {
			t.Errorf("%q, %v; passwd prints %q", got, err, want)
		}
	}
	if line, err := Status("nosuchuser"); !errors.Is(err, nss.ErrNoUser) {
		t.Errorf("nosuchuser: %q, %v", line, err)
	}
}

func TestChkpwdIsAskedAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to read the shadow file")
	}
	for _, c := range []struct {
		check pamwire.CheckPassword
		want  pamwire.Checked
	}{
		// daemon has no password that fits, and never expires.
		{pamwire.CheckPassword{User: "daemon", Option: "nullok", Password: "open-sesame"}, pamwire.Checked{Status: 7}},
		{pamwire.CheckPassword{User: "daemon", Option: "nonull"}, pamwire.Checked{Status: 7}},
		{pamwire.CheckPassword{User: "daemon", Option: "chkexpiry"}, pamwire.Checked{Status: 0, Output: "-1\n"}},
		{pamwire.CheckPassword{User: "nosuchuser", Option: "nullok", Password: "x"}, pamwire.Checked{Status: 9}},
	} {
		if got, err := Check(c.check); err != nil || got != c.want {
			t.Errorf("%v: %+v, %v, want %+v", c.check, got, err, c.want)
		}
	}
}

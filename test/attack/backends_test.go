package attack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// backends is what p9auth(7) says of the two backends, row by row, and what tests it: with
// the files the functions of tests, with the device the claims of the guest that
// test/vm/kernel boots (run: ...), or functions that have a backend which binds nothing.
var backends = map[string]struct{ files, device []string }{
	"works once, for its uid, until it expires or is revoked": {
		[]string{"internal/capfs TestACapabilityWorksOnce", "internal/capfs TestExpiryIsToldApart", "internal/capfs TestRevocationKillsACapability", "internal/capfs TestAStrangersCapabilityIsRefusedAndKept"},
		[]string{"run: used: a capability works once", "run: expired: told apart for as long again, then unknown", "run: revoked: gone, and only once"},
	},
	"another uid's try leaves the capability as it is": {
		[]string{"internal/capfs TestAStrangersCapabilityIsRefusedAndKept"},
		[]string{"run: stolen: another uid is refused, and the capability is spent"},
	},
	"the user's ids, groups and keyring, no right of anybody's": {
		[]string{"internal/capfs TestARedeemerIsTheTarget"},
		[]string{"run: a redeemer is the target, with nothing else"},
	},
	"no_new_privs and tracers are refused, at no cost": {
		[]string{"internal/capfs TestNoNewPrivsIsNamedAndCostsNothing"},
		[]string{"run: no_new_privs and a tracer are refused, at no cost"},
	},
	"a user with too many keys is let in": {
		[]string{"internal/capfs TestTooManyKeysDoNotKeepAUserOut"},
		[]string{"run: ssh: a user who may have no more keys is let in"},
	},
	"the audit login uid is the user's": {
		[]string{"internal/capfs TestARedeemerIsTheTarget"},
		[]string{"run: ssh: a real client logs alice in with her key"},
	},
	"nothing of the redeemer's process goes along": {
		[]string{"internal/capfs TestTheRedeemerOfABoundGrantSetsNothing", "internal/capfs TestSignalsThatTheRedeemerBlocksOrIgnoresAreNotTheUsers"},
		[]string{"run: a redeemer is the target, with nothing else"}, // and runs what it likes
	},
	"sshfront becomes its user process, with settings": {
		[]string{"test/attack/ssh TestAKeyForOneCommandGivesNoShell", "sshfront TestTheOwnerOfTheFrontEndGetsNoMoreThanARestrictedLogin"},
		[]string{"run: factotum says that the device binds nothing"},
	},
	"login becomes the user's own shell": {
		[]string{"test/attack/pam TestTheOwnerOfLoginsUIDGetsTheUsersOwnShellOnly"},
		[]string{"run: factotum says that the device binds nothing"},
	},
	"forced commands, restricted keys: sshfront is honest": {
		[]string{"test/restrict TestTheOptionsOfAllKeysOfALoginHold"},
		[]string{"run: ssh: sshfront enforces a forced command and restrict"},
	},
	"the same: an attacker owns sshfront": {
		[]string{"sshfront TestTheOwnerOfTheFrontEndGetsNoMoreThanARestrictedLogin"},
		[]string{"run: factotum says that the device binds nothing"},
	},
	"ChrootDirectory": {
		[]string{"test/restrict TestARootDirectoryIsAsWithSSHD"},
		[]string{"run: ssh: a login into a root directory is refused", "factotum/internal/daemon TestRestrictedLoginsThatTheDeviceCannotBind"},
	},
	"RequireBoundGrants yes refuses restricted logins": {
		[]string{"factotum/internal/daemon TestRestrictedLoginsThatTheDeviceCannotBind"},
		[]string{"run: RequireBoundGrants refuses restricted logins, and no others", "factotum/internal/daemon TestRestrictedLoginsThatTheDeviceCannotBind"},
	},
}

// TestWhatHoldsWithEachBackendIsTested holds the table of p9auth(7) to the tests.
func TestWhatHoldsWithEachBackendIsTested(t *testing.T) {
	page, err := os.ReadFile(top + "/man/p9auth.7")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n.Ss The two backends\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It (.+) Ta (yes|no.*|if unset|refused) Ta (yes|no.*|if unset|refused)$`).FindAllStringSubmatch(section, -1) {
		rows[m[1]] = true
	}
	var guest strings.Builder
	files, _ := filepath.Glob(top + "/test/vm/kernel/guest/*.go")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		guest.Write(b)
	}
	for row := range rows {
		if backends[row].files == nil {
			t.Errorf("p9auth(7) has %q, of which no test is known", row)
		}
	}
	for row, c := range backends {
		if !rows[row] {
			t.Errorf("p9auth(7) does not have %q", row)
		}
		for _, name := range append(c.files, c.device...) {
			if claim, ok := strings.CutPrefix(name, "run: "); ok {
				if !strings.Contains(guest.String(), `run("`+claim+`"`) {
					t.Errorf("%s: the guest does not claim %q", row, claim)
				}
				continue
			}
			folder, name, _ := strings.Cut(name, " ")
			if !testsOf(t, folder)[name] {
				t.Errorf("%s: %s has no %s", row, folder, name)
			}
		}
	}
}

package records

import "testing"

func TestAuditStringsAreOneQuotedWordOrHex(t *testing.T) {
	for s, want := range map[string]string{
		"alice": `"alice"`, `CORP\alice`: `"CORP\alice"`, "": `""`,
		"a b": "612062", `a"b`: "612262", "a\nres=success": "610a7265733d73756363657373", "é": "c3a9",
	} {
		if got := auditString(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// A host that is not an address, or that could be taken for another field, is not
// named.
func TestAnAuditRecordNamesAnAddressOnly(t *testing.T) {
	for _, c := range []struct{ who, tty, rhost, want string }{
		{"id=1000", "ssh", "192.0.2.1", `op=login id=1000 exe="/x" hostname=? addr=192.0.2.1 terminal=ssh res=success`},
		{"id=0", "/dev/tty1", "", `op=login id=0 exe="/x" hostname=? addr=? terminal=tty1 res=success`},
		{"id=0", "", "somewhere", `op=login id=0 exe="/x" hostname=? addr=? terminal=? res=success`},
		{"id=0", "tty1", "1.2.3.4 res=failed", `op=login id=0 exe="/x" hostname=? addr=? terminal=tty1 res=success`},
	} {
		if got := auditText(c.who, "/x", c.tty, c.rhost, "success"); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

package main

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

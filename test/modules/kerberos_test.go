package modules

import "testing"

// unpacked lays what scripts/deps unpacks over the testbed's /usr.
func unpacked(t *testing.T, s *site) {
	t.Helper()
	s.Unpacked(t)
}

// kerberos starts a KDC in which alice has the password that the tests type.
func kerberos(t *testing.T, s *site) {
	t.Helper()
	s.Kerberos(t, password, "alice", "bob")
	s.Sh(t, "mkdir -m 1777 /run/caches")
}

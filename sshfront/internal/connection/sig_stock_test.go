//go:build !sshsig

package connection

import "testing"

func TestABuildWithoutThePatchRefusesKeysAndSaysWhy(t *testing.T) {
	can, logged, login := keyLogin(t, nil)
	if can || logged != errNoSignatures || login == nil {
		t.Errorf("can %v, logged %v, login: %v", can, logged, login)
	}
}

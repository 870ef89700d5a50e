//go:build sshsig

package connection

import (
	"errors"
	"testing"
)

func TestTheVerdictOnTheSignatureDecides(t *testing.T) {
	for _, verdict := range []error{nil, errors.New("no")} {
		can, logged, login := keyLogin(t, verdict)
		if !can || logged != verdict || (login == nil) != (verdict == nil) {
			t.Errorf("verdict %v: can %v, logged %v, login: %v", verdict, can, logged, login)
		}
	}
}

package channels

import (
	"bytes"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/match"
)

// A client that knows the host by one key learns the others, and forgets those that
// are gone, so that an administrator can exchange keys: UpdateHostKeys in
// ssh_config(5). The server names its keys after authentication, and the client has
// those proven that it does not know: OpenSSH's PROTOCOL, section 2.5.
const (
	ourHostKeys   = "hostkeys-00@openssh.com"
	proveHostKeys = "hostkeys-prove-00@openssh.com"
)

// failsOnHostKeys are software versions of clients that cannot cope with our keys
// (compat.c of OpenSSH).
const failsOnHostKeys = "Cisco-1.*,TTSSH/1.5*,TTSSH/2.1*,TTSSH/2.2*,TTSSH/2.3*,TTSSH/2.4*,TTSSH/2.5*,TTSSH/2.6*,TTSSH/2.70*,TTSSH/2.71*,TTSSH/2.72*"

// announceHostKeys names the host keys to the client.
func (s *service) announceHostKeys() {
	_, software, _ := bytes.Cut(bytes.TrimPrefix(s.conn.ClientVersion(), []byte("SSH-")), []byte("-"))
	if len(s.opt.HostKeys) == 0 || match.List(string(software), failsOnHostKeys) == match.Matched {
		return
	}
	var keys []byte
	for _, k := range s.opt.HostKeys {
		keys = appendString(keys, k)
	}
	s.conn.SendRequest(ourHostKeys, false, keys) // where it fails, the connection ends
}

// proveHostKeys answers a list of host keys with the list of their signatures. A key
// that is not ours, or that comes twice, gets the whole list refused.
func (s *service) proveHostKeys(payload []byte) (ok bool, signatures []byte) {
	keys, ok := cutStrings(payload, len(s.opt.HostKeys))
	if !ok {
		return false, nil
	}
	for i, k := range keys {
		is := func(other []byte) bool { return bytes.Equal(k, other) }
		if !slices.ContainsFunc(s.opt.HostKeys, is) || slices.ContainsFunc(keys[:i], is) {
			return false, nil
		}
		sig, err := s.opt.Prove(k)
		if err != nil {
			s.log("the host keys are not proven to the client: %v", err)
			return false, nil
		}
		signatures = appendString(signatures, sig)
	}
	return true, signatures
}

// appendString appends a string as RFC 4251 section 5 has it.
func appendString(b, s []byte) []byte {
	return append(b, ssh.Marshal(struct{ S []byte }{s})...)
}

// cutStrings reads strings of RFC 4251 section 5, at least one and at most n, and
// nothing after them.
func cutStrings(b []byte, n int) (list [][]byte, ok bool) {
	for len(b) > 0 {
		var m struct {
			S    []byte
			Rest []byte `ssh:"rest"`
		}
		if len(list) == n || ssh.Unmarshal(b, &m) != nil {
			return nil, false
		}
		list = append(list, m.S)
		b = m.Rest
	}
	return list, len(list) > 0
}

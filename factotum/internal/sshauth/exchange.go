package sshauth

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // for crypto.Hash
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// A Nonce is the cookie of the server's SSH_MSG_KEXINIT (RFC 4253, section 7.1)
// in one key exchange. factotum chooses it.
type Nonce [16]byte

// MaxTranscript bounds the transcript of a key exchange, in bytes. The largest
// of real clients have 8,000.
const MaxTranscript = 20 << 10

// An Exchange is a key exchange, as its server saw it.
type Exchange struct {
	transcript []byte
	hash       crypto.Hash
	nonce      Nonce
	version    []byte // V_S
	hostKey    []byte // K_S
	values     []byte // of the method, after K_S

	clientLists, serverLists [][]byte // of I_C and I_S: methods, host key algorithms, ...
}

// hashes are those of the key exchange methods that are offered.
var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// ParseExchange reads the input of an exchange hash (RFC 4253, section 8): V_C,
// V_S, I_C, I_S and K_S, each as a string, and then the values of the method.
// Those are two public values and the shared secret (RFC 4253, RFC 5656, RFC
// 8731, the hybrid methods), or three numbers, the group, and the same (RFC
// 4419), and nothing after. The transcript is not copied.
func ParseExchange(transcript []byte, hash string) (*Exchange, error) {
	if len(transcript) > MaxTranscript {
		return nil, fmt.Errorf("a transcript of %d bytes", len(transcript))
	}
	h, ok := hashes[hash]
	if !ok {
		return nil, fmt.Errorf("%.20q is not the hash of a key exchange", hash)
	}
	e := &Exchange{transcript: transcript, hash: h}
	f, rest, ok := cutStrings(transcript, 5)
	if !ok {
		return nil, errors.New("the transcript is cut short")
	}
	var clientInit, serverInit []byte
	clientVersion := f[0]
	e.version, clientInit, serverInit, e.hostKey = f[1], f[2], f[3], f[4]
	if !bytes.HasPrefix(clientVersion, []byte("SSH-")) || len(clientVersion) > 255 || bytes.ContainsAny(clientVersion, "\x00\r\n") {
		return nil, errors.New("V_C is not the version of an SSH client") // RFC 4253, section 4.2
	}
	if _, e.clientLists, ok = kexInit(clientInit); !ok {
		return nil, errors.New("I_C is not a SSH_MSG_KEXINIT")
	}
	if e.nonce, e.serverLists, ok = kexInit(serverInit); !ok {
		return nil, errors.New("I_S is not a SSH_MSG_KEXINIT")
	}
	e.values = rest
	_, three := valuesOf(rest, 3)
	_, five := valuesOf(rest[min(12, len(rest)):], 5)
	if !three && !five {
		return nil, errors.New("after K_S there are not the values of a key exchange method")
	}
	return e, nil
}

// cutStrings cuts n strings (RFC 4251, section 5) off b.
func cutStrings(b []byte, n int) (fields [][]byte, rest []byte, ok bool) {
	for range n {
		if len(b) < 4 {
			return nil, nil, false
		}
		size := binary.BigEndian.Uint32(b)
		if b = b[4:]; uint64(size) > uint64(len(b)) {
			return nil, nil, false
		}
		fields = append(fields, b[:size])
		b = b[size:]
	}
	return fields, b, true
}

// kexInit reads a SSH_MSG_KEXINIT (RFC 4253, section 7.1): its type, the cookie, ten
// lists of names, a boolean and a reserved number, and nothing after.
func kexInit(init []byte) (n Nonce, lists [][]byte, ok bool) {
	const typeOf = 20
	if len(init) < 1+len(n) || init[0] != typeOf {
		return n, nil, false
	}
	copy(n[:], init[1:])
	lists, rest, ok := cutStrings(init[1+len(n):], 10)
	for _, l := range lists {
		// US-ASCII (RFC 4251, section 5).
		if bytes.ContainsFunc(l, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return n, nil, false
		}
	}
	return n, lists, ok && len(rest) == 1+4
}

// valuesOf reads n strings, none of them empty, and nothing after them.
func valuesOf(b []byte, n int) (values [][]byte, ok bool) {
	values, rest, ok := cutStrings(b, n)
	return values, ok && len(rest) == 0 && !slices.ContainsFunc(values, func(v []byte) bool { return len(v) == 0 })
}

// Check says what is wrong with the exchange as one of a server that announces
// that version, whose SSH_MSG_KEXINIT has that nonce, and which shows that host
// key or certificate.
func (e *Exchange) Check(version string, nonce Nonce, hostKey []byte) error {
	switch {
	case string(e.version) != version:
		return errors.New("V_S is not the version of this server")
	case e.nonce != nonce:
		return errors.New("the cookie of I_S is not the nonce that factotum gave for it")
	case !bytes.Equal(e.hostKey, hostKey):
		return errors.New("K_S is not the host key that is to sign")
	}
	return nil
}

// Hash is the exchange hash.
func (e *Exchange) Hash() []byte {
	h := e.hash.New()
	h.Write(e.transcript)
	return h.Sum(nil)
}

// SignsFor says whether a host key or certificate of that type signs in format
// alg for one of the offered algorithms, which are HostKeyAlgorithms.
func SignsFor(keyType, alg string, offered []string) bool {
	return slices.ContainsFunc(AlgorithmsOf(keyType), func(a string) bool {
		return SignatureFormat(a) == alg && slices.Contains(offered, a)
	})
}

// ProofAlgorithm is the algorithm in which a host key of that type proves that a
// server has it, to a client whose key exchange was signed in exchange: of an RSA key
// that one if it is RSA's, otherwise the first of those that are offered
// (HostKeyAlgorithms), or "" if none is (serverloop.c of OpenSSH).
func ProofAlgorithm(keyType, exchange string, offered []string) string {
	can := AlgorithmsOf(keyType)
	i := slices.IndexFunc(offered, func(a string) bool { return slices.Contains(can, a) })
	switch {
	case i < 0:
		return ""
	case slices.Contains(can, exchange):
		return exchange
	}
	return offered[i]
}

// HostKeyProof is what a host key signs to prove to a client that a server has it
// (OpenSSH's PROTOCOL, section 2.5).
func HostKeyProof(sessionID, hostKey []byte) []byte {
	return ssh.Marshal(struct {
		Request            string
		SessionID, HostKey []byte
	}{"hostkeys-prove-00@openssh.com", sessionID, hostKey})
}

package connection

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
)

// serverConfig is the configuration of the library: algorithms and host keys,
// and authentication as factotum has it.
func (c *connection) serverConfig(server *capproto.SSHServer) (*ssh.ServerConfig, error) {
	s := c.address
	sc := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: s.KexAlgorithms, Ciphers: s.Ciphers, MACs: s.MACs, RekeyThreshold: rekeyThreshold(s.RekeyLimit),
		},
		ServerVersion:           s.ServerVersion(),
		PublicKeyAuthAlgorithms: s.PubkeyAcceptedAlgorithms,
		KexCookie:               c.cookies(server.Nonce),
		BannerCallback: func(m ssh.ConnMetadata) string {
			c.name(m)
			return c.greeting
		},
	}
	if len(s.MACs) == 0 {
		sc.MACs = []string{"none"} // which the library leaves out; of an empty list it would make its own
	}
	shown := map[string]bool{} // types of keys
	for _, blob := range server.HostKeys {
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			return nil, fmt.Errorf("host key from factotum: %w", err)
		}
		if c.addHostKey(sc, shown, key) {
			c.hostKeys = append(c.hostKeys, blob)
		}
	}
	for _, blob := range server.HostCerts {
		cert, err := parseCertificate(blob)
		if err != nil {
			return nil, err
		}
		c.addHostKey(sc, shown, cert)
	}
	c.authenticate(sc)
	return sc, nil
}

const leastRekey = 256 // bytes, of the library

// rekeyThreshold is a limit as the library takes it.
func rekeyThreshold(r sshdconf.Rekey) uint64 {
	if r.Bytes > 0 {
		return max(r.Bytes, leastRekey)
	}
	return 0
}

func parseCertificate(blob []byte) (*ssh.Certificate, error) {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("host certificate from factotum: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("factotum sent a host certificate that is not a certificate")
	}
	return cert, nil
}

// addHostKey adds a host key or certificate, if it is of a type that is to be offered,
// and reports whether it is. Of several keys of one type key exchanges show the first,
// as with sshd(8); the others are there to be learnt.
func (c *connection) addHostKey(sc *ssh.ServerConfig, shown map[string]bool, key ssh.PublicKey) bool {
	h := &hostKey{key, c.address.HostKeyAlgorithms, c.factotum}
	if len(h.Algorithms()) == 0 {
		return false
	}
	if !shown[key.Type()] {
		shown[key.Type()] = true
		sc.AddHostKey(h)
	}
	return true
}

// cookies gives the library the cookie of each of our SSH_MSG_KEXINITs. They are
// factotum's nonces: it signs nothing else.
func (c *connection) cookies(first [16]byte) func() ([16]byte, error) {
	begun := false // the library calls in one goroutine at a time
	return func() ([16]byte, error) {
		if begun {
			return c.factotum.Nonce()
		}
		begun = true
		return first, nil
	}
}

// A hostKey is a host key or a certificate, and signs with the key, which
// factotum keeps.
type hostKey struct {
	key      ssh.PublicKey
	offered  []string // HostKeyAlgorithms
	factotum *capproto.Client
}

func (h *hostKey) PublicKey() ssh.PublicKey { return h.key }

// Algorithms are those in which the key signs for what is to be offered.
func (h *hostKey) Algorithms() []string {
	cert, isCert := h.key.(*ssh.Certificate)
	plain := h.key.Type()
	if isCert {
		plain = cert.Key.Type()
	}
	can := []string{plain}
	if plain == ssh.KeyAlgoRSA {
		can = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	return slices.DeleteFunc(can, func(a string) bool {
		if isCert {
			a = strings.TrimSuffix(a, "@openssh.com") + certSuffix
		}
		return !slices.Contains(h.offered, a)
	})
}

// certSuffix makes the name of a key type or algorithm that of its certificates.
const certSuffix = "-cert-v01@openssh.com"

var errOnlyExchanges = errors.New("a host key signs key exchanges only")

// Sign is never called, as SignExchange takes its place.
func (h *hostKey) Sign(io.Reader, []byte) (*ssh.Signature, error) { return nil, errOnlyExchanges }

// SignWithAlgorithm is never called, as SignExchange takes its place.
func (h *hostKey) SignWithAlgorithm(io.Reader, []byte, string) (*ssh.Signature, error) {
	return nil, errOnlyExchanges
}

// hashNames are the rpc's.
var hashNames = map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}

// SignExchange implements [ssh.ExchangeSigner].
func (h *hostKey) SignExchange(transcript []byte, hash crypto.Hash, alg string) (*ssh.Signature, error) {
	b, err := h.factotum.Sign(h.key.Marshal(), alg, hashNames[hash], transcript)
	if err != nil {
		return nil, err
	}
	sig := new(ssh.Signature)
	return sig, ssh.Unmarshal(b, sig)
}

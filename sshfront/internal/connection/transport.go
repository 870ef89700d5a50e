package connection

import (
	"bytes"
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
		ServerVersion: capproto.SSHVersion,
		BannerCallback: func(m ssh.ConnMetadata) string {
			c.name(m)
			return c.greeting
		},
	}
	if s.VersionAddendum != "" {
		sc.ServerVersion += " " + s.VersionAddendum
	}
	for _, blob := range server.HostKeys {
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			return nil, fmt.Errorf("host key from factotum: %w", err)
		}
		signer := &hostKey{key: key, offered: s.HostKeyAlgorithms, factotum: c.factotum}
		for _, blob := range server.HostCerts {
			cert, err := parseCertificate(blob)
			if err != nil {
				return nil, err
			}
			if bytes.Equal(cert.Key.Marshal(), key.Marshal()) {
				cs, err := ssh.NewCertSigner(cert, signer)
				if err != nil {
					return nil, fmt.Errorf("host certificate: %w", err)
				}
				sc.AddHostKey(cs)
			}
		}
		if len(signer.Algorithms()) > 0 {
			sc.AddHostKey(signer)
		}
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

// plainAlgorithms are those that the library is to let through: it compares
// the algorithm of a certificate's key. factotum compares the full name.
func plainAlgorithms(accepted []string) []string {
	var plain []string
	for _, a := range ssh.SupportedAlgorithms().PublicKeyAuths {
		if slices.ContainsFunc(accepted, func(x string) bool {
			return x == a || strings.TrimSuffix(x, "@openssh.com") == strings.TrimSuffix(a, "@openssh.com")+"-cert-v01"
		}) {
			plain = append(plain, a)
		}
	}
	return plain
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

// A hostKey signs with a key that factotum keeps.
type hostKey struct {
	key      ssh.PublicKey
	offered  []string // HostKeyAlgorithms
	factotum *capproto.Client
}

func (h *hostKey) PublicKey() ssh.PublicKey { return h.key }

// Algorithms are those that the key can sign in and that are to be offered.
func (h *hostKey) Algorithms() []string {
	can := []string{h.key.Type()}
	if h.key.Type() == ssh.KeyAlgoRSA {
		can = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return slices.DeleteFunc(can, func(a string) bool { return !slices.Contains(h.offered, a) })
}

func (h *hostKey) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return h.SignWithAlgorithm(rand, data, "")
}

func (h *hostKey) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (*ssh.Signature, error) {
	if alg == "" {
		alg = h.key.Type()
	}
	b, err := h.factotum.Sign(h.key.Marshal(), alg, data)
	if err != nil {
		return nil, err
	}
	sig := new(ssh.Signature)
	return sig, ssh.Unmarshal(b, sig)
}

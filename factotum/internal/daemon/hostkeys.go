package daemon

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/sshauth"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// An sshServer is what factotum needs for SSH: the configuration and the host
// keys. It does not change once made; a reload makes another.
type sshServer struct {
	conf   *sshdconf.Config
	keys   []ssh.AlgorithmSigner
	certs  []*ssh.Certificate
	syslog *syslog
	unused []error // why host keys are left out
}

// loadSSH reads sshd_config and the host keys, if a front end is for ssh.
func loadSSH(c config.Config, log *slog.Logger) (*sshServer, error) {
	if !c.ForSSH() {
		return nil, nil
	}
	conf, err := sshdconf.Parse(c.SSHDConfig, nil)
	if err != nil {
		return nil, err
	}
	for _, n := range conf.Notes() {
		log.Warn("the SSH configuration has a line that is worth a look", "what", n)
	}
	s := &sshServer{conf: conf, syslog: newSyslog(c.Syslog, log)}
	g := conf.Global()
	agent := ""
	if g.HostKeyAgent != "" {
		if agent, err = agentSocket(g.HostKeyAgent); err != nil {
			log.Error("there is no agent for host keys", "why", err)
		}
	}
	for _, path := range g.HostKeys {
		k, err := loadHostKey(path, agent, g.SecurityKeyProvider)
		switch {
		case err == nil:
			s.keys = append(s.keys, k)
		case g.HostKeysGiven || !errors.Is(err, fs.ErrNotExist):
			s.unused = append(s.unused, fmt.Errorf("host key: %w", err))
		}
	}
	switch {
	case len(s.keys) > 0:
	case len(s.unused) > 0:
		return nil, s.unused[0]
	default:
		return nil, errors.New("no host keys: make them with ssh-keygen -A, or name them with HostKey in " + c.SSHDConfig)
	}
	// As with sshd, a key that cannot be used does not keep the others from it.
	for _, err := range s.unused {
		log.Error("a host key is left out", "why", err)
	}
	for _, path := range g.HostCertificates {
		cert, err := readHostCert(path)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(s.keys, func(k ssh.AlgorithmSigner) bool {
			return bytes.Equal(k.PublicKey().Marshal(), cert.Key.Marshal())
		}) {
			return nil, fmt.Errorf("%s: no host key matches this certificate", path)
		}
		s.certs = append(s.certs, cert)
	}
	return s, nil
}

// maxKeyFile bounds the file of a host key, in bytes.
const maxKeyFile = 64 << 10

// loadHostKey reads a private key, or a public one if there is an agent.
func loadHostKey(path, agent, provider string) (ssh.AlgorithmSigner, error) {
	k, err := readHostKey(path, provider)
	if err != nil && agent != "" {
		return readAgentKey(path, agent)
	}
	return k, err
}

// readHostKey reads a private key that nobody but its owner may read. provider is
// SecurityKeyProvider.
func readHostKey(path, provider string) (ssh.AlgorithmSigner, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: permissions %#o are too open; chmod 600 it", path, st.Mode().Perm())
	}
	b := make([]byte, maxKeyFile) // one buffer, to be cleared: it is a secret
	defer clear(b)
	n, err := f.Read(b)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(b[:n])
	if err != nil {
		if sk, e := skKey(b[:n], provider); e == nil {
			return sk, nil
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	as, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("%s: keys of type %s cannot be host keys", path, signer.PublicKey().Type())
	}
	return as, nil
}

func readHostCert(path string) (*ssh.Certificate, error) {
	b, err := sys.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert {
		return nil, fmt.Errorf("%s is not a host certificate", path)
	}
	return cert, nil
}

// sign signs an exchange hash with the host key that a key exchange shows, or
// with the key of the host certificate, in an algorithm that is the key's own
// and that is among those offered (HostKeyAlgorithms).
func (s *sshServer) sign(shown []byte, alg string, offered []string, hash []byte) (*ssh.Signature, error) {
	bare, keyType := shown, ""
	for _, c := range s.certs {
		if bytes.Equal(c.Marshal(), shown) {
			bare, keyType = c.Key.Marshal(), c.Type()
		}
	}
	for _, k := range s.keys {
		if !bytes.Equal(k.PublicKey().Marshal(), bare) {
			continue
		}
		if keyType == "" {
			keyType = k.PublicKey().Type()
		}
		if !slices.Contains(sshauth.AlgorithmsOf(k.PublicKey().Type()), alg) {
			return nil, fmt.Errorf("a host key of type %s does not sign in algorithm %.60q", k.PublicKey().Type(), alg)
		}
		if !sshauth.SignsFor(keyType, alg, offered) {
			return nil, fmt.Errorf("algorithm %s of %s is not in HostKeyAlgorithms", alg, keyType)
		}
		return k.SignWithAlgorithm(rand.Reader, hash, alg)
	}
	return nil, errors.New("there is no such host key")
}

// prove signs with a host key, and not for a certificate, that the server of a
// session has it. exchange is the algorithm of the session's last key exchange: a
// client that knows the host by an RSA key takes no other of another RSA key.
func (s *sshServer) prove(hostKey []byte, exchange string, offered []string, sessionID []byte) (*ssh.Signature, error) {
	i := slices.IndexFunc(s.keys, func(k ssh.AlgorithmSigner) bool { return bytes.Equal(k.PublicKey().Marshal(), hostKey) })
	if i < 0 {
		return nil, errors.New("there is no such host key")
	}
	alg := sshauth.ProofAlgorithm(s.keys[i].PublicKey().Type(), exchange, offered)
	if alg == "" {
		return nil, fmt.Errorf("no algorithm of %s is in HostKeyAlgorithms", s.keys[i].PublicKey().Type())
	}
	return s.keys[i].SignWithAlgorithm(rand.Reader, sshauth.HostKeyProof(sessionID, hostKey), alg)
}

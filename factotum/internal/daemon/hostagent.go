package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/factotum/internal/sshauth"
	"p9auth/internal/sys"
)

// A keyElsewhere is a host key whose private half somebody else has: an ssh-agent or a
// security key. It implements [ssh.AlgorithmSigner].
type keyElsewhere struct {
	who string // we ask
	pub ssh.PublicKey
	ask func(data []byte, alg string) (*ssh.Signature, error)
}

// A signerError is why somebody else, whom we asked, has not signed.
type signerError struct {
	who string
	err error
}

func (e *signerError) Error() string { return fmt.Sprintf("%s: %v", e.who, e.err) }

func (k *keyElsewhere) PublicKey() ssh.PublicKey { return k.pub }

// Sign implements [ssh.Signer].
func (k *keyElsewhere) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(nil, data, k.pub.Type())
}

// SignWithAlgorithm has somebody else sign. Nobody sees a signature that does not verify:
// an agent may be anybody's.
func (k *keyElsewhere) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (*ssh.Signature, error) {
	sig, err := k.ask(data, alg)
	if err == nil && sig.Format != alg {
		err = fmt.Errorf("it signs in format %.60q, and not %s", sig.Format, alg)
	}
	if err == nil {
		err = sshauth.VerifyHostKey(k.pub, data, sig)
	}
	if err != nil {
		return nil, &signerError{k.who, err}
	}
	return sig, nil
}

const (
	agentTime = 10 * time.Second // for the whole of a signature; a TPM takes a second
	maxAnswer = 16 << 10         // bytes; an RSA signature has at most 2 KiB
)

// Of the agent's protocol (draft-ietf-sshm-ssh-agent, section 6).
const (
	agentSignRequest  = 13
	agentSignResponse = 14
	agentRSASHA256    = 2
	agentRSASHA512    = 4
)

// agentSocket is the socket that HostKeyAgent names, if somebody listens there.
func agentSocket(named string) (string, error) {
	if named == "SSH_AUTH_SOCK" {
		named = os.Getenv(named)
	}
	c, err := net.DialTimeout("unix", named, agentTime)
	if err != nil {
		return "", &signerError{"HostKeyAgent " + named, err}
	}
	return named, c.Close()
}

// readAgentKey reads the public key in the file that HostKey names, or beside it.
func readAgentKey(path, socket string) (*keyElsewhere, error) {
	for _, p := range []string{path, path + ".pub"} {
		b, err := sys.ReadFile(p, maxKeyFile)
		if err != nil {
			continue
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(b)
		if _, isCert := pub.(*ssh.Certificate); err == nil && !isCert {
			return agentKey(socket, pub), nil
		}
	}
	return nil, fmt.Errorf("%s: neither it nor %s.pub is a public key", path, path)
}

// agentKey is a host key that the agent at a socket has (HostKeyAgent), such as one that is
// in a TPM. Each signature is a connection of its own, so an agent may be started again at
// any time.
func agentKey(socket string, pub ssh.PublicKey) *keyElsewhere {
	return &keyElsewhere{"HostKeyAgent " + socket, pub, func(data []byte, alg string) (*ssh.Signature, error) {
		return askAgent(socket, pub, data, alg)
	}}
}

func askAgent(socket string, pub ssh.PublicKey, data []byte, alg string) (*ssh.Signature, error) {
	c, err := net.DialTimeout("unix", socket, agentTime)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(agentTime))
	flags := map[string]uint32{ssh.KeyAlgoRSASHA256: agentRSASHA256, ssh.KeyAlgoRSASHA512: agentRSASHA512}[alg]
	request := ssh.Marshal(struct {
		Type      byte
		Key, Data []byte
		Flags     uint32
	}{agentSignRequest, pub.Marshal(), data, flags})
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)); err != nil {
		return nil, err
	}
	answer, err := readFramed(c)
	if err != nil {
		return nil, err
	}
	return agentSignature(answer)
}

// readFramed reads a message of an agent or of ssh-sk-helper, without its length.
func readFramed(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	_, err := io.ReadFull(r, answer)
	return answer, err
}

// agentSignature is the signature in the answer of an agent.
func agentSignature(answer []byte) (*ssh.Signature, error) {
	if len(answer) == 0 || answer[0] != agentSignResponse {
		return nil, errors.New("it does not sign with this key")
	}
	var m struct{ Signature []byte }
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal(answer[1:], &m); err != nil {
		return nil, err
	}
	return sig, ssh.Unmarshal(m.Signature, sig)
}

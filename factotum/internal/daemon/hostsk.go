package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/factotum/internal/sshauth"
	"p9auth/internal/sshkey"
)

// An skKey is a host key that a security key has. ssh-sk-helper(8) of OpenSSH has it
// sign, by the library that SecurityKeyProvider names: that runs in a process of its own,
// and only where HostKey names such a key.
type skKey struct {
	provider string
	pub      ssh.PublicKey
	private  []byte // which only names the key to the security key
}

const (
	skHelper    = "/usr/lib/openssh/ssh-sk-helper"
	skVersion   = 5                // of the helper's protocol (ssh-sk.h of OpenSSH)
	skSign      = 1                // its request, and the answer to it
	skTime      = 10 * time.Second // for a signature, and the start of the helper
	skPresence  = 1                // flag: somebody must touch it (PROTOCOL.u2f)
	skKeyMagic  = "openssh-key-v1\x00"
	skBlockType = "OPENSSH PRIVATE KEY"
)

// parseSK reads a private key of a security key that has no passphrase (OpenSSH's
// PROTOCOL.key). As sshd(8) does, it asks for no touch.
func parseSK(file []byte, provider string) (*skKey, error) {
	block, _ := pem.Decode(file)
	if block == nil || block.Type != skBlockType || !bytes.HasPrefix(block.Bytes, []byte(skKeyMagic)) {
		return nil, errors.New("not a private key of OpenSSH")
	}
	r := sshkey.Reader{Rest: block.Bytes[len(skKeyMagic):]}
	cipher := string(r.Str())
	r.Str() // kdf
	r.Str()
	n, blob := r.U32(), r.Str()
	private := sshkey.Reader{Rest: r.Str()}
	if r.Bad || n != 1 || cipher != "none" {
		return nil, errors.New("not one private key without a passphrase")
	}
	pub, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, err
	}
	private.U32() // the check numbers, which are for a passphrase
	private.U32()
	whole := private.Rest
	switch string(private.Str()) {
	case ssh.KeyAlgoSKED25519:
	case ssh.KeyAlgoSKECDSA256:
		private.Str() // curve
	default:
		return nil, errors.New("not a security key's")
	}
	private.Str() // public key
	private.Str() // application
	flags := len(whole) - len(private.Rest)
	private.U8()
	private.Str() // handle
	private.Str() // reserved
	if private.Bad {
		return nil, errors.New("a private key that is cut")
	}
	whole = bytes.Clone(whole[:len(whole)-len(private.Rest)])
	whole[flags] &^= skPresence
	return &skKey{provider, pub, whole}, nil
}

func (k *skKey) PublicKey() ssh.PublicKey { return k.pub }

// Sign implements [ssh.Signer].
func (k *skKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(nil, data, k.pub.Type())
}

// SignWithAlgorithm has the helper sign.
func (k *skKey) SignWithAlgorithm(_ io.Reader, data []byte, alg string) (*ssh.Signature, error) {
	sig, err := k.ask(data)
	if err == nil && sig.Format != alg {
		err = fmt.Errorf("it signs in format %.60q, and not %s", sig.Format, alg)
	}
	if err == nil {
		err = sshauth.VerifyHostKey(k.pub, data, sig)
	}
	if err != nil {
		return nil, &signerError{skHelper, err}
	}
	return sig, nil
}

func (k *skKey) ask(data []byte) (*ssh.Signature, error) {
	request := ssh.Marshal(struct {
		Version       byte
		Type          uint32
		Log           bool
		LogLevel      uint32
		Key           []byte
		Provider      string
		Data          []byte
		Algorithm     string
		Compatibility uint32
		PIN           string
	}{skVersion, skSign, false, 0, k.private, k.provider, data, "", 0, ""})
	ctx, cancel := context.WithTimeout(context.Background(), skTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, skHelper)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...))
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	starting.Lock()
	err = cmd.Start()
	starting.Unlock()
	if err != nil {
		return nil, err
	}
	answer, err := readFramed(out)
	cancel()
	cmd.Wait()
	if err != nil {
		return nil, err
	}
	return skSignature(answer)
}

// skSignature is the signature in the helper's answer.
func skSignature(answer []byte) (*ssh.Signature, error) {
	r := sshkey.Reader{Rest: answer}
	if version, what := r.U8(), r.U32(); version != skVersion || what != skSign {
		return nil, fmt.Errorf("an answer of version %d and type %d: it did not sign", version, what)
	}
	sig := new(ssh.Signature)
	return sig, ssh.Unmarshal(r.Str(), sig)
}

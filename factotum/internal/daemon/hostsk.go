package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshkey"
)

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
// PROTOCOL.key). The private half only names the key to the security key. As sshd(8)
// does, it asks for no touch.
func parseSK(file []byte) (pub ssh.PublicKey, half []byte, err error) {
	block, _ := pem.Decode(file)
	if block == nil || block.Type != skBlockType || !bytes.HasPrefix(block.Bytes, []byte(skKeyMagic)) {
		return nil, nil, errors.New("not a private key of OpenSSH")
	}
	r := sshkey.Reader{Rest: block.Bytes[len(skKeyMagic):]}
	cipher := string(r.Str())
	r.Str() // kdf
	r.Str()
	n, blob := r.U32(), r.Str()
	private := sshkey.Reader{Rest: r.Str()}
	if r.Bad || n != 1 || cipher != "none" {
		return nil, nil, errors.New("not one private key without a passphrase")
	}
	if pub, err = ssh.ParsePublicKey(blob); err != nil {
		return nil, nil, err
	}
	private.U32() // the check numbers, which are for a passphrase
	private.U32()
	whole := private.Rest
	switch string(private.Str()) {
	case ssh.KeyAlgoSKED25519:
	case ssh.KeyAlgoSKECDSA256:
		private.Str() // curve
	default:
		return nil, nil, errors.New("not a security key's")
	}
	private.Str() // public key
	private.Str() // application
	flags := len(whole) - len(private.Rest)
	private.U8()
	private.Str() // handle
	private.Str() // reserved
	if private.Bad {
		return nil, nil, errors.New("a private key that is cut")
	}
	whole = bytes.Clone(whole[:len(whole)-len(private.Rest)])
	whole[flags] &^= skPresence
	return pub, whole, nil
}

// skKey is a host key that a security key has, in a private key's file.
func skKey(file []byte, provider string) (*keyElsewhere, error) {
	pub, half, err := parseSK(file)
	if err != nil {
		return nil, err
	}
	return &keyElsewhere{skHelper, pub, func(data []byte, _ string) (*ssh.Signature, error) {
		return askHelper(provider, half, data)
	}}, nil
}

// askHelper has ssh-sk-helper(8) of OpenSSH sign, by the library that SecurityKeyProvider
// names: that runs in a process of its own, and only where HostKey names such a key.
func askHelper(provider string, half, data []byte) (*ssh.Signature, error) {
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
	}{skVersion, skSign, false, 0, half, provider, data, "", 0, ""})
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

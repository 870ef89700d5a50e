package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The module and the version of it that the edits were made for.
const (
	modulePath    = "golang.org/x/crypto"
	moduleVersion = "v0.58.0"
)

// An edit replaces a piece of a file, which must be there exactly once.
type edit struct {
	file string // relative to the module
	what string // a name for the piece, for errors
	old  string
	new  string
}

// edits is all that is changed in the library.
var edits = []edit{
	{
		file: "ssh/server.go",
		what: "the field ServerConfig.VerifiedPublicKeyCallback",
		old: `
	VerifiedPublicKeyCallback func(conn ConnMetadata, key PublicKey, permissions *Permissions,
		signatureAlgorithm string) (*Permissions, error)
`,
		new: `
	VerifiedPublicKeyCallback func(conn ConnMetadata, key PublicKey, permissions *Permissions,
		signatureAlgorithm string) (*Permissions, error)

	// VerifySignatureCallback, if non-nil, decides on a signature in place of
	// pubKey.Verify, which is then not called: the user presence flag of a
	// security key's signature is the callback's business too. It is called
	// once for each request with a signature, after PublicKeyCallback has
	// accepted the key, with the name of the algorithm as requested, the key
	// or certificate, the bytes that the signature must be over (RFC 4252
	// section 7; they end with the key's blob as the client sent it), and the
	// signature, not verified yet. Its format is known to fit algo.
	//
	// With nil the request goes on as with a good signature. An error fails
	// this attempt, not the connection. PartialSuccessError and BannerError
	// mean what they mean from PublicKeyCallback.
	VerifySignatureCallback func(conn ConnMetadata, algo string, pubKey PublicKey, signedData []byte, sig *Signature) error

	// UserCallback, if non-nil, is called at the client's first request, when
	// conn has the user's name, before BannerCallback. It may change config
	// for this connection: the callbacks of authentication, MaxAuthTries,
	// PublicKeyAuthAlgorithms, and RekeyThreshold, which counts from the next
	// key exchange on.
	UserCallback func(conn ConnMetadata, config *ServerConfig)
`,
	},
	{
		file: "ssh/server.go",
		what: "where the user's name is known",
		old: `
		s.user = userAuthReq.User

		if !calledBannerCallback`,
		new: `
		s.user = userAuthReq.User

		if authAttempts == 1 && config.UserCallback != nil {
			config.UserCallback(s, config)
			authConfig = ServerAuthCallbacks{
				PasswordCallback:            config.PasswordCallback,
				PublicKeyCallback:           config.PublicKeyCallback,
				KeyboardInteractiveCallback: config.KeyboardInteractiveCallback,
				GSSAPIWithMICConfig:         config.GSSAPIWithMICConfig,
			}
		}

		if !calledBannerCallback`,
	},
	{
		file: "ssh/connection.go",
		what: "the type connection",
		old: `
type connection struct {
	transport connTransport
`,
		new: `
// RequestKeyExchange starts a key exchange, unless one is under way.
func (c *connection) RequestKeyExchange() {
	if t, ok := c.transport.(*handshakeTransport); ok {
		t.requestKeyExchange()
	}
}

type connection struct {
	transport connTransport
`,
	},
	{
		file: "ssh/server.go",
		what: "the call of Verify for the publickey method",
		old: `
				if err := pubKeyForVerify.Verify(signedData, sig); err != nil {
					return nil, err
				}
`,
		new: `
				if config.VerifySignatureCallback != nil {
					err := candidate.result
					if _, partial := err.(*PartialSuccessError); err == nil || partial {
						err = config.VerifySignatureCallback(s, algo, pubKey, signedData, sig)
					}
					if err != nil {
						authErr = err
						break
					}
				} else if err := pubKeyForVerify.Verify(signedData, sig); err != nil {
					return nil, err
				}
`,
	},
	{
		// Only data waits while keys are exchanged. The library has every
		// packet wait once 64 are held back: then the goroutine that reads,
		// and answers a channel's close, waits for the end of an exchange
		// that it would have to read, and the connection hangs.
		file: "ssh/handshake.go",
		what: "the bound of packets held back in a key exchange",
		old: `
		if len(t.pendingPackets) < maxPendingPackets {
`,
		new: `
		isData := p[0] == msgChannelData || p[0] == msgChannelExtendedData
		if len(t.pendingPackets) >= 64*maxPendingPackets {
			t.writeError = errors.New("ssh: too many packets in a key exchange")
			t.writeCond.Broadcast()
			return t.writeError
		}
		if len(t.pendingPackets) < maxPendingPackets || !isData {
`,
	},
}

// checkModule tells whether the edits were made for this module.
func checkModule(m *module) error {
	if m.Version != moduleVersion {
		return fmt.Errorf("go.mod has %s %s, but the edits of tools/sshpatch/patch.go were made for %s: read the publickey method in ssh/server.go of the new version, then change moduleVersion and what of the edits must change",
			modulePath, m.Version, moduleVersion)
	}
	if m.Replace != nil {
		return fmt.Errorf("go.mod replaces %s by %s, which the edits of tools/sshpatch/patch.go were not made for: take the replace out", modulePath, m.Replace.Path)
	}
	return nil
}

// copyModule copies what a build needs of the module in src, writable, to dst.
func copyModule(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case !d.Type().IsRegular() || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// patch applies the edits to a copy of the module.
func patch(dir string) error {
	for _, e := range edits {
		name := filepath.Join(dir, e.file)
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s, err := e.apply(string(b))
		if err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(s), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// apply returns src, which the file holds, with the edit in it.
func (e edit) apply(src string) (string, error) {
	if n := strings.Count(src, e.old); n != 1 {
		return "", fmt.Errorf("%s %s: %s: %s found %d times, not once: the library has changed; make the edit in tools/sshpatch/patch.go fit it",
			modulePath, moduleVersion, e.file, e.what, n)
	}
	return strings.Replace(src, e.old, e.new, 1), nil
}

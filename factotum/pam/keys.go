package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/krl"
	"p9auth/internal/sshdconf"
)

// maxKeyFiles bounds what the patterns of AuthorizedKeysFile may match.
const maxKeyFiles = 64

// Bounds of what the names of a user's groups take in an answer, which has
// other attributes, and may quote each byte of a name.
const (
	maxNames     = capproto.MaxAttrs - 8
	maxNamesSize = (capproto.MaxReply - 32<<10) / 2
)

// lookup finds the account and, if factotum wants that, the client's name.
func (w *worker) lookup(p capproto.Packet) (capproto.Msg, error) {
	m := capproto.NewMsg("nouser")
	a, err := lookup(p.Get("user"))
	switch {
	case errors.Is(err, errNoUser):
	case err != nil:
		return m, err
	default:
		groups, err := a.groups()
		if err != nil {
			return m, err
		}
		m = capproto.NewMsg("account", "uid", utoa(a.uid), "gid", utoa(a.gid), "home", a.home, "shell", a.shell)
		// Half of a name, or a name left out, would be a rule not obeyed. Only
		// where there are rules about groups does factotum mind.
		names, err := groupNames(groups, maxNames, maxNamesSize)
		if err != nil {
			m.Add("nogroups", err.Error())
		}
		for _, name := range names {
			m.Add("group", name)
		}
		w.acct = a
	}
	if addr := p.Get("addr"); addr != "" {
		m.Add("host", hostOf(addr))
	}
	return m, nil
}

// hostOf is the client's name if it leads back to its address, as UseDNS wants
// it, and "" otherwise.
func hostOf(addr string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	names, err := net.DefaultResolver.LookupAddr(ctx, addr)
	if err != nil || len(names) == 0 {
		return ""
	}
	there, err := net.DefaultResolver.LookupHost(ctx, names[0])
	if err != nil || !slices.Contains(there, addr) {
		return ""
	}
	return string(bytes.ToLower(bytes.TrimSuffix([]byte(names[0]), []byte("."))))
}

// A keyCheck finds out whether a key may log an account in.
type keyCheck struct {
	acct   *account
	conf   *sshdconf.Settings
	client authkeys.Client
	key    ssh.PublicKey
	ends   string   // the token %C
	notes  []string // for the log
}

func (k *keyCheck) note(format string, args ...any) {
	if len(k.notes) < 32 {
		k.notes = append(k.notes, clean(fmt.Sprintf(format, args...), 512))
	}
}

// key answers whether a key may log the account in, were a signature of it
// presented.
func (w *worker) key(m capproto.Msg) (capproto.Msg, error) {
	k := &keyCheck{acct: w.acct, conf: new(sshdconf.Settings), ends: m.Get("ends")}
	blob, err := capproto.UnB64(m.Get("key"))
	if err != nil {
		return capproto.Msg{}, err
	}
	if k.key, err = ssh.ParsePublicKey(blob); err != nil {
		return capproto.Msg{}, err
	}
	if err := json.Unmarshal([]byte(m.Get("settings")), k.conf); err != nil {
		return capproto.Msg{}, fmt.Errorf("settings: %w", err)
	}
	addr, err := netip.ParseAddr(m.Get("addr"))
	if err != nil {
		return capproto.Msg{}, err
	}
	k.client = authkeys.Client{Host: m.Get("host"), Addr: addr, Now: time.Now()}
	options, ok := k.allowed()
	answer := capproto.NewMsg("denied")
	if ok {
		b, err := json.Marshal(options)
		if err != nil {
			return capproto.Msg{}, err
		}
		answer = capproto.NewMsg("allowed", "options", string(b))
	}
	for _, n := range k.notes {
		answer.Add("note", n)
	}
	return answer, nil
}

// allowed looks where sshd(8) looks, in the same order: the revoked keys, the
// user's own files, the certificate authorities, and AuthorizedKeysCommand.
func (k *keyCheck) allowed() (authkeys.Options, bool) {
	if k.revoked() {
		return authkeys.Options{}, false
	}
	cert, isCert := k.key.(*ssh.Certificate)
	if isCert {
		if cert.CertType != ssh.UserCert {
			k.note("Refusing a certificate that is not for users")
			return authkeys.Options{}, false
		}
		if !slices.Contains(k.conf.CASignatureAlgorithms, cert.Signature.Format) {
			k.note("Refusing certificate ID %q: signed with %s, which CASignatureAlgorithms does not list", cert.KeyId, cert.Signature.Format)
			return authkeys.Options{}, false
		}
	}
	if o, ok := k.userFiles(cert); ok {
		return o, true
	}
	if isCert {
		if o, ok := k.trustedCA(cert); ok {
			return o, true
		}
	}
	return k.keysCommand(cert)
}

// userFiles looks into the files of AuthorizedKeysFile.
func (k *keyCheck) userFiles(cert *ssh.Certificate) (authkeys.Options, bool) {
	files, err := k.conf.KeysFiles(k.acct.name, k.acct.home, k.acct.uid)
	if err != nil {
		k.note("AuthorizedKeysFile: %v", err)
		return authkeys.Options{}, false
	}
	var options authkeys.Options
	found := false
	for _, path := range k.paths(files) {
		k.userFile(path, func(f *os.File) {
			options, found = k.keysFile(path, f, cert)
		})
		if found {
			break
		}
	}
	return options, found
}

// keysCommand looks into what AuthorizedKeysCommand prints.
func (k *keyCheck) keysCommand(cert *ssh.Certificate) (authkeys.Options, bool) {
	const keyword = "AuthorizedKeysCommand"
	if k.conf.AuthorizedKeysCommand == "" {
		return authkeys.Options{}, false
	}
	argv, err := k.conf.KeysCommand(k.tokens())
	if err != nil {
		k.note("%s: %v", keyword, err)
		return authkeys.Options{}, false
	}
	if len(argv) == 1 {
		argv = append(argv, k.acct.name)
	}
	out := k.output(keyword, argv, k.conf.AuthorizedKeysCommandUser)
	return k.keysFile(keyword, bytes.NewReader(out), cert)
}

// principalsCommand looks into what AuthorizedPrincipalsCommand prints.
func (k *keyCheck) principalsCommand(cert *ssh.Certificate) (authkeys.Options, string, bool) {
	const keyword = "AuthorizedPrincipalsCommand"
	argv, err := k.conf.PrincipalsCommand(k.tokens())
	if err != nil {
		k.note("%s: %v", keyword, err)
		return authkeys.Options{}, "", false
	}
	out := k.output(keyword, argv, k.conf.AuthorizedPrincipalsCommandUser)
	return k.principalsFile(keyword, bytes.NewReader(out), cert)
}

// tokens are the values of the tokens of both commands; those of a certificate
// are there for a certificate only.
func (k *keyCheck) tokens() sshdconf.Tokens {
	t := sshdconf.Tokens{
		'C': k.ends, 'D': "", 'U': utoa(k.acct.uid), 'u': k.acct.name, 'h': k.acct.home,
		't': k.key.Type(), 'f': k.fingerprint(plain(k.key)), 'k': base64.StdEncoding.EncodeToString(k.key.Marshal()),
	}
	if cert, ok := k.key.(*ssh.Certificate); ok {
		t['T'], t['F'] = cert.SignatureKey.Type(), k.fingerprint(cert.SignatureKey)
		t['K'] = base64.StdEncoding.EncodeToString(cert.SignatureKey.Marshal())
		t['i'], t['s'] = cert.KeyId, strconv.FormatUint(cert.Serial, 10)
	}
	return t
}

// fingerprint is a key's fingerprint by FingerprintHash.
func (k *keyCheck) fingerprint(key ssh.PublicKey) string {
	return authkeys.Fingerprint(key, k.conf.FingerprintHash)
}

// revoked looks into RevokedKeys. A list that cannot be read revokes all keys.
func (k *keyCheck) revoked() bool {
	for _, path := range k.conf.RevokedKeys {
		f, err := os.Open(path)
		if err == nil {
			var list *krl.List
			list, err = krl.Read(f)
			f.Close()
			if err == nil {
				if list.IsRevoked(k.key) {
					k.note("Authentication key %s %s revoked by file %s", k.key.Type(), k.fingerprint(plain(k.key)), path)
					return true
				}
				continue
			}
		}
		k.note("error checking authentication key %s in revoked keys file %s: %v", k.fingerprint(plain(k.key)), path, err)
		return true
	}
	return false
}

// plain is a certificate's key, or the key.
func plain(key ssh.PublicKey) ssh.PublicKey {
	if c, ok := key.(*ssh.Certificate); ok {
		return c.Key
	}
	return key
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// trustedCA checks a certificate against TrustedUserCAKeys, the user's
// AuthorizedPrincipalsFile and AuthorizedPrincipalsCommand.
func (k *keyCheck) trustedCA(cert *ssh.Certificate) (authkeys.Options, bool) {
	none := authkeys.Options{}
	if k.conf.TrustedUserCAKeys == "" {
		return none, false
	}
	f, err := os.Open(k.conf.TrustedUserCAKeys)
	if err != nil {
		k.note("Could not open TrustedUserCAKeys: %v", err)
		return none, false
	}
	defer f.Close()
	entries, _, err := authkeys.Read(f)
	if err != nil {
		k.note("TrustedUserCAKeys %s: %v", k.conf.TrustedUserCAKeys, err)
		return none, false
	}
	if !slices.ContainsFunc(entries, func(e authkeys.Entry) bool { return sameKey(e.Key, cert.SignatureKey) }) {
		return none, false
	}
	line, _, _ := authkeys.ParseOptions("")
	file, given, err := k.conf.PrincipalsFile(k.acct.name, k.acct.home, k.acct.uid)
	if err != nil {
		k.note("AuthorizedPrincipalsFile: %v", err)
		return none, false
	}
	principal := k.acct.name
	line.NoTouchRequired = true // there is no line: the certificate alone decides
	if command := k.conf.AuthorizedPrincipalsCommand != ""; given || command {
		found := false
		if given {
			k.userFile(file.Path, func(f *os.File) {
				line, principal, found = k.principalsFile(file.Path, f, cert)
			})
		}
		if !found && command {
			line, principal, found = k.principalsCommand(cert)
		}
		if !found {
			k.note("Certificate does not contain an authorized principal")
			return none, false
		}
	}
	return k.certificate(cert, principal, line)
}

// principalsFile finds a line of authorized_principals that names one of the
// certificate's principals.
func (k *keyCheck) principalsFile(path string, r io.Reader, cert *ssh.Certificate) (authkeys.Options, string, bool) {
	lines, _, err := authkeys.ReadPrincipals(r)
	if err != nil {
		k.note("%s: %v", path, err)
		return authkeys.Options{}, "", false
	}
	for _, l := range lines {
		if !slices.Contains(cert.ValidPrincipals, l.Name) {
			continue
		}
		if err := l.Options.Check(k.client, false); err != nil {
			k.note("%s:%d: %v", path, l.Line, err)
			continue
		}
		return l.Options, l.Name, true
	}
	return authkeys.Options{}, "", false
}

// keysFile looks for the key, or the certificate's authority, in
// authorized_keys.
func (k *keyCheck) keysFile(path string, r io.Reader, cert *ssh.Certificate) (authkeys.Options, bool) {
	entries, _, err := authkeys.Read(r)
	if err != nil {
		k.note("%s: %v", path, err)
		return authkeys.Options{}, false
	}
	for _, e := range entries {
		want := k.key
		if cert != nil {
			want = cert.SignatureKey
		}
		if e.Options.CertAuthority != (cert != nil) || !sameKey(e.Key, want) {
			continue
		}
		if err := e.Options.Check(k.client, cert != nil); err != nil {
			k.note("%s:%d: %v", path, e.Line, err)
			continue
		}
		if cert == nil {
			return e.Options, true
		}
		if !e.Options.HasPrincipal(cert, k.acct.name) {
			k.note("%s:%d: Certificate does not contain an authorized principal", path, e.Line)
			continue
		}
		principal := k.acct.name
		for _, p := range e.Options.Principals {
			if slices.Contains(cert.ValidPrincipals, p) {
				principal = p
			}
		}
		if o, ok := k.certificate(cert, principal, e.Options); ok {
			return o, true
		}
	}
	return authkeys.Options{}, false
}

// certificate checks all of a certificate but who its authority is, and merges
// its options with those of the line that trusts it.
func (k *keyCheck) certificate(cert *ssh.Certificate, principal string, line authkeys.Options) (authkeys.Options, bool) {
	refuse := func(err error) (authkeys.Options, bool) {
		k.note("Refusing certificate ID %q serial=%d: %v", cert.KeyId, cert.Serial, err)
		return authkeys.Options{}, false
	}
	if len(cert.ValidPrincipals) == 0 {
		return refuse(errors.New("certificate lacks principal list"))
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{"force-command", "source-address", "verify-required"}}
	if err := checker.CheckCert(principal, cert); err != nil {
		return refuse(err)
	}
	own, err := authkeys.FromCertificate(cert)
	if err != nil {
		return refuse(err)
	}
	if err := own.Check(k.client, false); err != nil {
		return refuse(err)
	}
	merged, err := authkeys.Merge(line, own)
	if err != nil {
		return refuse(err)
	}
	k.note("Accepted certificate ID %q (serial %d) signed by %s CA %s", cert.KeyId, cert.Serial, cert.SignatureKey.Type(), k.fingerprint(cert.SignatureKey))
	return merged, true
}

// paths expands the patterns of AuthorizedKeysFile, as the user.
func (k *keyCheck) paths(files []sshdconf.UserFile) []string {
	var paths []string
	for _, f := range files {
		if !f.Glob {
			paths = append(paths, f.Path)
			continue
		}
		asUser(k.acct, func() error {
			found, err := filepath.Glob(f.Path)
			paths = append(paths, found...)
			return err
		})
	}
	if len(paths) > maxKeyFiles {
		k.note("AuthorizedKeysFile: %d files, only %d are read", len(paths), maxKeyFiles)
		paths = paths[:maxKeyFiles]
	}
	return paths
}

// userFile opens a file with the user's rights and reads it so.
func (k *keyCheck) userFile(path string, read func(*os.File)) {
	err := asUser(k.acct, func() error {
		f, err := authkeys.Open(path, k.acct.home, k.acct.uid, k.conf.StrictModes)
		if err != nil {
			return err
		}
		defer f.Close()
		read(f)
		return nil
	})
	if err != nil && !authkeys.IsMissing(err) {
		k.note("Authentication refused: %v", err)
	}
}

// asUser calls f with the fsuid, fsgid and groups of the user on this thread,
// which is the main one and locked. The capabilities that root has over files
// go with the fsuid, see capabilities(7).
func asUser(a *account, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	groups, err := a.groups()
	if err != nil {
		return err
	}
	before, err := unix.Getgroups()
	if err != nil {
		return err
	}
	old := make([]uint32, len(before))
	for i, g := range before {
		old[i] = uint32(g)
	}
	if err := threadGroups(groups); err != nil {
		return err
	}
	defer func() {
		if err := threadGroups(old); err != nil {
			panic(err) // with the wrong groups this process must not go on
		}
	}()
	unix.SetfsgidRetGid(int(a.gid))
	unix.SetfsuidRetUid(int(a.uid))
	defer func() {
		unix.SetfsuidRetUid(0)
		unix.SetfsgidRetGid(0)
	}()
	// setfsuid(2) does not tell of errors: ask what is set now.
	if uid, _ := unix.SetfsuidRetUid(-1); uid != int(a.uid) {
		return fmt.Errorf("setfsuid to %d did not work", a.uid)
	}
	if gid, _ := unix.SetfsgidRetGid(-1); gid != int(a.gid) {
		return fmt.Errorf("setfsgid to %d did not work", a.gid)
	}
	return f()
}

// threadGroups sets the groups of this thread alone: the C library's
// setgroups(2) would set them in all threads.
func threadGroups(gids []uint32) error {
	var p unsafe.Pointer
	if len(gids) > 0 {
		p = unsafe.Pointer(&gids[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(p), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	return nil
}

package capproto

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sizes and bounds of a capability. The kernel device has the same.
const (
	KeySize   = 32    // bytes of a Key
	HashSize  = 32    // bytes of a Hash
	MaxGroups = 4096  // groups in an Identity, the primary group included
	MaxCap    = 65536 // bytes of a capability's text form
)

// NoID is the id that no user and no group has: (uid_t)-1, see setreuid(2).
const NoID = 1<<32 - 1

// keyText is the length of a Key in base64url without padding.
const keyText = 43

var (
	// ErrSyntax is wrapped by every error that says that bytes are not a
	// capability. It corresponds to EINVAL at the capuse file.
	ErrSyntax = errors.New("not a capability")

	b64 = base64.RawURLEncoding.Strict()
)

// A Grant is what a capability allows: a process of real uid From may become
// uid To with the groups Groups, of which the first is the primary group.
// Groups has 1 to MaxGroups elements.
type Grant struct {
	From   uint32
	To     uint32
	Groups []uint32
}

// A Key is the secret of a capability: 32 random bytes. It never prints.
type Key [KeySize]byte

// A Hash is what factotum keeps and caphash takes: HMAC-SHA256 of the grant's
// text under the key.
type Hash [HashSize]byte

// A Cap is a capability: a grant and the key that proves it. Only String
// shows the key; a Cap in a log record or behind %v does not.
type Cap struct {
	Grant Grant
	Key   Key
}

// New makes a capability for g with a fresh key from the system's random
// number generator.
func New(g Grant) (Cap, error) {
	if err := g.check(); err != nil {
		return Cap{}, err
	}
	c := Cap{Grant: g}
	rand.Read(c.Key[:]) // never fails: crypto/rand aborts the program instead
	return c, nil
}

func (g Grant) check() error {
	if g.From == NoID || g.To == NoID {
		return fmt.Errorf("%w: uid %d is nobody's", ErrSyntax, uint32(NoID))
	}
	if len(g.Groups) == 0 {
		return fmt.Errorf("%w: no primary group", ErrSyntax)
	}
	if len(g.Groups) > MaxGroups {
		return fmt.Errorf("%w: %d groups, at most %d", ErrSyntax, len(g.Groups), MaxGroups)
	}
	for _, gid := range g.Groups {
		if gid == NoID {
			return fmt.Errorf("%w: gid %d is nobody's", ErrSyntax, uint32(NoID))
		}
	}
	return nil
}

// Text is the grant's text form, from@to@gid[,gid...], the message that the
// hash authenticates.
func (g Grant) Text() string {
	b := make([]byte, 0, 24+11*len(g.Groups))
	b = strconv.AppendUint(b, uint64(g.From), 10)
	b = append(b, '@')
	b = strconv.AppendUint(b, uint64(g.To), 10)
	for i, gid := range g.Groups {
		if i == 0 {
			b = append(b, '@')
		} else {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(gid), 10)
	}
	return string(b)
}

// Reveal is the capability's text form, key and all: what is written to
// capuse. It is a secret for as long as the capability lives.
func (c Cap) Reveal() string {
	return c.Grant.Text() + "@" + b64.EncodeToString(c.Key[:])
}

// Hash is the hash of the capability, for caphash.
func (c Cap) Hash() Hash {
	m := hmac.New(sha256.New, c.Key[:])
	m.Write([]byte(c.Grant.Text()))
	var h Hash
	m.Sum(h[:0])
	return h
}

// Equal compares two hashes in constant time.
func (h Hash) Equal(o Hash) bool { return subtle.ConstantTimeCompare(h[:], o[:]) == 1 }

// String shows the grant and hides the key.
func (c Cap) String() string { return c.Grant.Text() + "@(secret)" }

// GoString is String: %#v hides the key too.
func (c Cap) GoString() string { return c.String() }

// MarshalText is String: log/slog hides the key too.
func (c Cap) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String hides the key.
func (Key) String() string { return "(secret)" }

// GoString hides the key.
func (Key) GoString() string { return "(secret)" }

// Parse reads a capability's text form. It is strict: ids are decimal with no
// sign and no leading zero, there are no spaces, the key is 43 characters of
// base64url (RFC 4648, section 5) with no padding and no stray bits. The
// errors wrap ErrSyntax and never quote the key.
func Parse(s string) (Cap, error) {
	var c Cap
	if len(s) > MaxCap {
		return c, fmt.Errorf("%w: longer than %d bytes", ErrSyntax, MaxCap)
	}
	f := strings.Split(s, "@")
	if len(f) != 4 {
		return c, fmt.Errorf("%w: %d fields, not from@to@groups@key", ErrSyntax, len(f))
	}
	var err error
	if c.Grant.From, err = parseID(f[0]); err != nil {
		return Cap{}, fmt.Errorf("%w: source uid: %v", ErrSyntax, err)
	}
	if c.Grant.To, err = parseID(f[1]); err != nil {
		return Cap{}, fmt.Errorf("%w: target uid: %v", ErrSyntax, err)
	}
	if n := strings.Count(f[2], ",") + 1; n > MaxGroups {
		return Cap{}, fmt.Errorf("%w: %d groups, at most %d", ErrSyntax, n, MaxGroups)
	}
	for g := range strings.SplitSeq(f[2], ",") {
		gid, err := parseID(g)
		if err != nil {
			return Cap{}, fmt.Errorf("%w: group: %v", ErrSyntax, err)
		}
		c.Grant.Groups = append(c.Grant.Groups, gid)
	}
	if len(f[3]) != keyText {
		return Cap{}, fmt.Errorf("%w: key of %d characters, not %d", ErrSyntax, len(f[3]), keyText)
	}
	// The decoder passes over newlines; nothing else here may.
	if strings.ContainsAny(f[3], "\r\n") {
		return Cap{}, fmt.Errorf("%w: key with a newline in it", ErrSyntax)
	}
	if n, err := b64.Decode(c.Key[:], []byte(f[3])); err != nil || n != KeySize {
		return Cap{}, fmt.Errorf("%w: key is not base64url", ErrSyntax)
	}
	return c, nil
}

// parseID reads a uid or gid.
func parseID(s string) (uint32, error) {
	if s == "" {
		return 0, errors.New("empty")
	}
	if len(s) > 10 {
		return 0, errors.New("too long")
	}
	for _, b := range []byte(s) {
		if b < '0' || b > '9' {
			return 0, errors.New("not decimal")
		}
	}
	if s[0] == '0' && s != "0" {
		return 0, errors.New("leading zero")
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == NoID {
		return 0, errors.New("out of range")
	}
	return uint32(n), nil
}

package capproto

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const (
	testCap  = "1500@2000@2000,2001@AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	testText = "1500@2000@2000,2001"
)

func TestParseReadsWhatRevealWrites(t *testing.T) {
	for _, g := range []Grant{
		{1500, 2000, []uint32{2000, 2001}},
		{0, 0, []uint32{0}},
		{4294967294, 1, []uint32{4294967294}},
		{1, 2, make([]uint32, MaxGroups)},
	} {
		c, err := New(g)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(c.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if d.Reveal() != c.Reveal() || !d.Hash().Equal(c.Hash()) {
			t.Errorf("%v came back as %v", c, d)
		}
	}
}

func TestNewKeysDiffer(t *testing.T) {
	g := Grant{1, 2, []uint32{3}}
	a, _ := New(g)
	b, _ := New(g)
	if a.Key == b.Key || a.Hash().Equal(b.Hash()) {
		t.Error("two capabilities with one key")
	}
}

const wantHash = "a190b4af52bdf7a484a33c57163c5404511a9addd070ae295beb7012367be741"

// The value was computed with
// printf 1500@2000@2000,2001 | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...1f
func TestHashIsHMACSHA256(t *testing.T) {
	c, err := Parse(testCap)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", c.Hash()); got != wantHash {
		t.Errorf("hash %s, want %s", got, wantHash)
	}
}

func TestOneBitChangesTheHash(t *testing.T) {
	c, _ := Parse(testCap)
	h := c.Hash()
	for i := range KeySize * 8 {
		d := c
		d.Key[i/8] ^= 1 << (i % 8)
		if d.Hash().Equal(h) {
			t.Errorf("bit %d of the key does not matter", i)
		}
	}
	for _, g := range []Grant{
		{1501, 2000, []uint32{2000, 2001}}, {1500, 2001, []uint32{2000, 2001}},
		{1500, 2000, []uint32{2000}}, {1500, 2000, []uint32{2001, 2000}},
	} {
		if (Cap{g, c.Key}).Hash().Equal(h) {
			t.Errorf("%v has the hash of %v", g, c.Grant)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	key := testCap[len(testText)+1:]
	for _, s := range []string{
		"", "@", "@@@", "1@2@" + key, "1@2@3@4@" + key,
		"01@2@3@" + key, "+1@2@3@" + key, "-1@2@3@" + key, " 1@2@3@" + key, "1 @2@3@" + key,
		"1@2@@" + key, "1@2@3,@" + key, "1@2@,3@" + key, "1@2@3,03@" + key,
		"4294967295@2@3@" + key, "1@4294967295@3@" + key, "1@2@4294967295@" + key,
		"1@2@4294967296@" + key, "1@2@99999999999999999999@" + key, "0x1@2@3@" + key, "1e0@2@3@" + key, "١@2@3@" + key,
		"1@2@3@" + key + "=", "1@2@3@" + key + "\n", "1@2@3@" + key[:42], "1@2@3@" + key[:42] + "\n",
		"1@2@3@" + key[:42] + "9", "1@2@3@" + key[:42] + "+", "1@2@3@" + key[:42] + "/",
		"1@2@" + strings.Repeat("1,", MaxGroups) + "1@" + key,
		"1@2@" + strings.Repeat("1,", MaxCap) + "1@" + key,
	} {
		if c, err := Parse(s); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.60q: %v, %v", s, c, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, g := range []Grant{
		{1, 2, nil}, {NoID, 2, []uint32{1}}, {1, NoID, []uint32{1}}, {1, 2, []uint32{NoID}},
		{1, 2, make([]uint32, MaxGroups+1)},
	} {
		if c, err := New(g); !errors.Is(err, ErrSyntax) {
			t.Errorf("New(%d groups) = %v, %v", len(g.Groups), c, err)
		}
	}
}

func TestTheKeyNeverPrints(t *testing.T) {
	c, _ := Parse(testCap)
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "cap", c, "key", c.Key, "in", struct{ C Cap }{c})
	fmt.Fprintf(&b, "%v %+v %#v %s %v %#v", c, c, c, c, c.Key, c.Key)
	if s := b.String(); strings.Contains(s, "AAECAw") || strings.Contains(s, "3 4 5 6") || strings.Contains(s, "0x3, 0x4") {
		t.Errorf("the key is in %s", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(testCap)
	f.Add("0@0@0@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("1@2@3,4294967294@_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-8")
	f.Add("1@2@3@\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if c.Reveal() != s {
			t.Fatalf("%q means %q too", s, c.Reveal())
		}
		if err := c.Grant.check(); err != nil {
			t.Fatal(err)
		}
	})
}

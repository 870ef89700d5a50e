package channels

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/crypto/ssh"
)

// provers has two host keys, of which the second cannot be proven.
func provers() *service {
	return &service{opt: Options{
		HostKeys: [][]byte{[]byte("one"), []byte("two"), []byte("three")},
		Log:      func(string, ...any) {},
		Prove: func(k []byte) ([]byte, error) {
			if string(k) == "two" {
				return nil, errors.New("factotum has gone")
			}
			return append([]byte("sig of "), k...), nil
		},
	}}
}

func TestAListOfHostKeysIsProvenWholeOrNotAtAll(t *testing.T) {
	list := func(keys ...string) (b []byte) {
		for _, k := range keys {
			b = appendString(b, []byte(k))
		}
		return b
	}
	for _, c := range []struct {
		what    string
		payload []byte
		want    []byte // nil: refused
	}{
		{"a key", list("one"), list("sig of one")},
		{"two keys in another order", list("three", "one"), list("sig of three", "sig of one")},
		{"no key", nil, nil},
		{"a stranger's key", list("four"), nil},
		{"a stranger's key beside ours", list("one", "four"), nil},
		{"an empty key", list(""), nil},
		{"a key twice", list("one", "one"), nil},
		{"more keys than there are", list("one", "three", "two", "one"), nil},
		{"a key that factotum does not prove", list("one", "two"), nil},
		{"a key that is cut short", list("one")[:6], nil},
		{"a length that is cut short", list("one")[:2], nil},
		{"a byte after the key", append(list("one"), 0), nil},
	} {
		ok, got := provers().proveHostKeys(c.payload)
		if ok != (c.want != nil) || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v %q", c.what, ok, got)
		}
	}
}

func FuzzHostKeys(f *testing.F) {
	f.Add(appendString(nil, []byte("one")))
	f.Add(appendString(appendString(nil, []byte("three")), []byte("one")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'o'})
	f.Fuzz(func(t *testing.T, payload []byte) {
		ok, sigs := provers().proveHostKeys(payload)
		if !ok {
			if sigs != nil {
				t.Fatalf("refused with %q", sigs)
			}
			return
		}
		var m struct {
			Keys []byte `ssh:"rest"`
		}
		if err := ssh.Unmarshal(payload, &m); err != nil {
			t.Fatal(err)
		}
		keys, _ := cutStrings(payload, 3)
		var again, want []byte
		for _, k := range keys {
			again = appendString(again, k)
			want = appendString(want, append([]byte("sig of "), k...))
		}
		if !bytes.Equal(again, payload) || !bytes.Equal(sigs, want) {
			t.Fatalf("%q is answered by %q", payload, sigs)
		}
	})
}

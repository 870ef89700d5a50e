package pack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name string
	N    int
}

type sample struct {
	On      bool
	N       int
	Big     uint64
	Level   inner
	List    []string
	Lists   [][]string
	Inners  []inner
	Limit   *[2]uint64
	Timeout time.Duration
	Until   time.Time
	Addr    netip.AddrPort
}

var format = Format[sample]{"sample", 3}

func full() *sample {
	return &sample{
		On: true, N: -5, Big: 1<<64 - 1, Level: inner{"é\x00", 7}, List: []string{}, Lists: [][]string{nil, {}, {"a", ""}},
		Inners: []inner{{"x", 1}}, Limit: &[2]uint64{1, 2}, Timeout: time.Hour, Until: time.Unix(1700000000, 0).UTC(),
		Addr: netip.MustParseAddrPort("[fe80::1%eth0]:22"),
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	for _, v := range []*sample{{}, full()} {
		got, err := format.Decode(format.Encode(v))
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("got %+v, %v, want %+v", got, err, v)
		}
	}
}

func TestNilAndEmptyAreTwoThings(t *testing.T) {
	v := full()
	v.List = nil
	got, err := format.Decode(format.Encode(v))
	if err != nil || got.List != nil || got.Lists[0] != nil || got.Lists[1] == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEveryCutAndEveryAdditionIsAnError(t *testing.T) {
	b := format.Encode(full())
	for n := range b {
		if _, err := format.Decode(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(b))
		}
	}
	if _, err := format.Decode(append(b, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestANumberWithNeedlessBytesIsAnError(t *testing.T) {
	f := Format[struct{ N uint64 }]{"n", 1}
	v := struct{ N uint64 }{5}
	b := f.Encode(&v)
	long := append(b[:len(b)-1:len(b)-1], 0x85, 0)
	if _, err := f.Decode(long); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestAnotherVersionIsSaidToBeOlderOrNewer(t *testing.T) {
	for version, want := range map[uint16]string{
		2: "factotum is older than sshfront; restart it (sample: version 2 and not 3)",
		4: "sshfront is older than factotum; restart it (sample: version 4 and not 3)",
	} {
		b := Format[sample]{"sample", version}.Encode(full())
		_, err := format.Decode(b)
		if err = Between(err, "factotum", "sshfront"); err.Error() != want {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func TestWhatProgramsSentBeforeThereWereVersionsIsOlder(t *testing.T) {
	_, err := format.Decode([]byte(`{"On":true}`))
	if err = Between(err, "factotum", "sshfront"); err.Error() != "factotum is older than sshfront; restart it (sample: version 0 and not 3)" {
		t.Error(err)
	}
}

// A program whose struct differs in any way must not misread the bytes.
func TestAnotherStructOfTheSameVersionIsRefused(t *testing.T) {
	refuses := func(err error) {
		t.Helper()
		var v *VersionError
		if !errors.As(err, &v) || !strings.HasPrefix(Between(err, "a", "b").Error(), "a and b are of different builds; restart both (x: ") {
			t.Error(err)
		}
	}
	b := Format[inner]{"x", 1}.Encode(&inner{"a", 1})
	_, err := Format[struct {
		Nome string
		N    int
	}]{"x", 1}.Decode(b)
	refuses(err)
	_, err = Format[struct {
		N    int
		Name string
	}]{"x", 1}.Decode(b)
	refuses(err)
	_, err = Format[struct {
		Name string
		N    uint64
	}]{"x", 1}.Decode(b)
	refuses(err)
	_, err = Format[struct {
		Name string
		N    int
		M    bool
	}]{"x", 1}.Decode(b)
	refuses(err)
}

func TestALongListIsNotBelieved(t *testing.T) {
	f := Format[struct{ L []string }]{"l", 1}
	b := append(f.Encode(&struct{ L []string }{})[:headerSize], 0xff, 0xff, 0xff, 0xff, 0x0f)
	if _, err := f.Decode(b); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// The bytes are fixed: a change of the encoding is a change of every wire.
func TestTheEncodingIsTheDocumentedOne(t *testing.T) {
	f := Format[inner]{"inner", 2}
	b := f.Encode(&inner{"ab", -1})
	if got := hex.EncodeToString(b[:2]) + " " + hex.EncodeToString(b[headerSize:]); got != "0002 02616201" {
		t.Error(got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(format.Encode(full())[headerSize:])
	f.Add(format.Encode(new(sample))[headerSize:])
	head := format.Encode(new(sample))[:headerSize]
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append(bytes.Clone(head), body...)
		v, err := format.Decode(b)
		if err == nil && !bytes.Equal(format.Encode(v), b) {
			t.Error("two encodings of one value")
		}
	})
}

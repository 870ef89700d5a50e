package becomerecord

import (
	"reflect"
	"testing"
)

func TestRecordComesBack(t *testing.T) {
	for _, r := range []Record{
		{UID: 1000, Groups: []uint32{1000, 27}, LoginUID: true},
		{UID: 0, Groups: []uint32{0}},
		{UID: 4294967294, Groups: make([]uint32, MaxGroups)},
	} {
		b := r.Append(nil)
		n, err := Size(b[len(b)-TrailerSize:])
		if err != nil || n != len(b) {
			t.Errorf("size %d, %v of %d", n, err, len(b))
		}
		got, err := Parse(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := Record{UID: 1, Groups: []uint32{1, 2}}.Append(nil)
	for _, b := range [][]byte{
		nil, good[1:], good[4:], good[:len(good)-1], append([]byte{0, 0, 0, 0}, good...),
		Record{UID: 1}.Append(nil), Record{UID: 1, Groups: make([]uint32, MaxGroups+1)}.Append(nil),
	} {
		if r, err := Parse(b); err == nil {
			t.Errorf("%v is %+v", b, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Record{UID: 1000, Groups: []uint32{1, 2}, LoginUID: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err == nil && string(r.Append(nil)) != string(b) {
			t.Fatalf("%x is not what %+v writes", b, r)
		}
	})
}

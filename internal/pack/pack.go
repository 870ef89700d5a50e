// Package pack encodes plain Go structs for the wires between our programs:
// settings, the options of a key, what the user process is told.
//
// An encoding is positional. It begins with the version and a fingerprint of the
// Go type, so two programs whose structs differ in a field's name, type or place
// refuse each other's bytes instead of misreading them. No field can be missing,
// unknown or doubled, and each value has one encoding only.
//
//	encoding    = version fingerprint value
//	version     = 2 bytes, big-endian
//	fingerprint = 4 bytes
//	bool        = 0 | 1
//	int         = varint of encoding/binary, unsigned ones uvarint
//	string      = uvarint length, bytes
//	slice       = 0 for nil, else uvarint of the length plus 1, elements
//	pointer     = 0 for nil, else 1, value
//	struct      = its fields, in order
//	array       = its elements
//
// Types with AppendBinary and UnmarshalBinary (time.Time, netip.AddrPort) are
// strings that hold what these give. Other kinds are a programmer's mistake and
// panic.
//
// The package is pure: it reads no file and no socket. Decode's input may come
// from anyone: memory use is bounded by its length.
package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// A Format is one structure of a wire. Name is for errors. A change of the
// structure must raise Version, so that the programs can say which one is older;
// Fingerprint is there for a test to hold that up.
type Format[T any] struct {
	Name    string
	Version uint16
}

// ErrMalformed is wrapped by every error that says that bytes are no encoding.
var ErrMalformed = errors.New("malformed")

// A VersionError says that the bytes come from a program of another version.
type VersionError struct {
	Name      string
	Got, Want uint16 // equal where two builds of one version differ
}

func (e *VersionError) Error() string {
	if e.Got == e.Want {
		return fmt.Sprintf("%s: version %d of another build", e.Name, e.Got)
	}
	return fmt.Sprintf("%s: version %d and not %d", e.Name, e.Got, e.Want)
}

// Between tells the administrator which of two programs to restart: the sender of
// the bytes, or the receiver, which is this program.
func (e *VersionError) Between(sender, receiver string) error {
	older, newer := sender, receiver
	switch {
	case e.Got > e.Want:
		older, newer = receiver, sender
	case e.Got == e.Want:
		return fmt.Errorf("%s and %s are of different builds; restart both (%w)", sender, receiver, e)
	}
	return fmt.Errorf("%s is older than %s; restart it (%w)", older, newer, e)
}

// Between adds which of two programs is to be restarted, where err is about
// their versions.
func Between(err error, sender, receiver string) error {
	var v *VersionError
	if errors.As(err, &v) {
		return v.Between(sender, receiver)
	}
	return err
}

const headerSize = 6

// Encode returns v's encoding.
func (f Format[T]) Encode(v *T) []byte {
	t := reflect.TypeFor[T]()
	b := binary.BigEndian.AppendUint16(nil, f.Version)
	b = binary.BigEndian.AppendUint32(b, f.Fingerprint())
	return appendValue(b, reflect.ValueOf(v).Elem(), t)
}

// Decode reads an encoding. The error is a *VersionError or wraps ErrMalformed,
// and quotes no values.
func (f Format[T]) Decode(b []byte) (*T, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("%s: %w: too short", f.Name, ErrMalformed)
	}
	version, print := binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])
	if b[0] == '{' {
		version = 0 // JSON, which programs sent before there were versions
	}
	if version != f.Version || print != f.Fingerprint() {
		return nil, &VersionError{f.Name, version, f.Version}
	}
	v := new(T)
	rest, err := readValue(b[headerSize:], reflect.ValueOf(v).Elem())
	if err == nil && len(rest) > 0 {
		err = errors.New("bytes after the end")
	}
	// A number with needless zero bytes, say, decodes too.
	if err == nil && !bytes.Equal(f.Encode(v), b) {
		err = errors.New("not the one encoding of its value")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", f.Name, ErrMalformed, err)
	}
	return v, nil
}

var prints sync.Map // of reflect.Type and uint32

// Fingerprint is 4 bytes of a hash over the names and types of T's fields.
func (f Format[T]) Fingerprint() uint32 {
	t := reflect.TypeFor[T]()
	if v, ok := prints.Load(t); ok {
		return v.(uint32)
	}
	var s strings.Builder
	describe(&s, t)
	sum := sha256.Sum256([]byte(s.String()))
	print := binary.BigEndian.Uint32(sum[:])
	prints.Store(t, print)
	return print
}

func describe(s *strings.Builder, t reflect.Type) {
	if isBinary(t) {
		s.WriteString(t.String())
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		s.WriteString("{")
		for i := range t.NumField() {
			s.WriteString(t.Field(i).Name + " ")
			describe(s, t.Field(i).Type)
			s.WriteString(";")
		}
		s.WriteString("}")
	case reflect.Slice, reflect.Pointer:
		s.WriteString(t.Kind().String() + " ")
		describe(s, t.Elem())
	case reflect.Array:
		fmt.Fprintf(s, "[%d]", t.Len())
		describe(s, t.Elem())
	default:
		s.WriteString(t.Kind().String())
	}
}

// isBinary reports whether a type has an encoding of its own.
func isBinary(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[encoding.BinaryAppender]()) && reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.BinaryUnmarshaler]())
}

func appendValue(b []byte, v reflect.Value, t reflect.Type) []byte {
	if isBinary(t) {
		own, err := v.Interface().(encoding.BinaryAppender).AppendBinary(nil)
		if err != nil {
			panic(fmt.Sprintf("pack: %v: %v", t, err))
		}
		return append(binary.AppendUvarint(b, uint64(len(own))), own...)
	}
	switch t.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int64, reflect.Int32:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		return append(binary.AppendUvarint(b, uint64(v.Len())), v.String()...)
	case reflect.Slice:
		if v.IsNil() {
			return append(b, 0)
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		for i := range v.Len() {
			b = appendValue(b, v.Index(i), t.Elem())
		}
		return b
	case reflect.Array:
		for i := range v.Len() {
			b = appendValue(b, v.Index(i), t.Elem())
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem(), t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			b = appendValue(b, v.Field(i), t.Field(i).Type)
		}
		return b
	}
	panic("pack: no encoding for " + t.String())
}

var errShort = errors.New("it ends too early")

// readValue reads a value into v and returns the bytes after it.
func readValue(b []byte, v reflect.Value) ([]byte, error) {
	t := v.Type()
	if isBinary(t) {
		own, b, err := readBytes(b)
		if err == nil {
			err = v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(own)
		}
		if err == nil {
			_, err = v.Interface().(encoding.BinaryAppender).AppendBinary(nil) // Encode relies on it
		}
		return b, err
	}
	switch t.Kind() {
	case reflect.Bool:
		if len(b) == 0 {
			return b, errShort
		}
		if b[0] > 1 {
			return b, errors.New("a flag that is neither 0 nor 1")
		}
		v.SetBool(b[0] == 1)
		return b[1:], nil
	case reflect.Int, reflect.Int64, reflect.Int32:
		n, size := binary.Varint(b)
		if size <= 0 || v.OverflowInt(n) {
			return b, errNumber
		}
		v.SetInt(n)
		return b[size:], nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, size := binary.Uvarint(b)
		if size <= 0 || v.OverflowUint(n) {
			return b, errNumber
		}
		v.SetUint(n)
		return b[size:], nil
	case reflect.String:
		s, b, err := readBytes(b)
		v.SetString(string(s))
		return b, err
	case reflect.Slice:
		return readSlice(b, v)
	case reflect.Array:
		var err error
		for i := range v.Len() {
			if b, err = readValue(b, v.Index(i)); err != nil {
				return b, err
			}
		}
		return b, nil
	case reflect.Pointer:
		if len(b) == 0 {
			return b, errShort
		}
		switch b[0] {
		case 0:
			return b[1:], nil
		case 1:
			v.Set(reflect.New(t.Elem()))
			return readValue(b[1:], v.Elem())
		}
		return b, errors.New("a pointer that is neither 0 nor 1")
	case reflect.Struct:
		var err error
		for i := range v.NumField() {
			if b, err = readValue(b, v.Field(i)); err != nil {
				return b, err
			}
		}
		return b, nil
	}
	panic("pack: no encoding for " + t.String())
}

var errNumber = errors.New("a number that cannot be read")

func readBytes(b []byte) (s, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return nil, b, errNumber
	}
	if b = b[size:]; n > uint64(len(b)) {
		return nil, b, errShort
	}
	return b[:n], b[n:], nil
}

func readSlice(b []byte, v reflect.Value) ([]byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return b, errNumber
	}
	if b = b[size:]; n == 0 {
		return b, nil
	}
	// Each element has a byte at least, so the input bounds the memory.
	if n--; n > uint64(len(b)) {
		return b, errShort
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for range n {
		e := reflect.New(v.Type().Elem()).Elem()
		var err error
		if b, err = readValue(b, e); err != nil {
			return b, err
		}
		v.Set(reflect.Append(v, e))
	}
	return b, nil
}

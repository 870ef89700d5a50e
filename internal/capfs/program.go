package capfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A program is the become program, ready to be given a record. Its last
// segment, which is read only and the end of the file, is the record's place:
// see internal/become/become.ld.
type program struct {
	code []byte // the file up to the record
}

// elfHeader and elfSegment are Elf64_Ehdr and Elf64_Phdr of elf(5). Package
// debug/elf, which has them too, brings 280 kB along.
type elfHeader struct {
	Ident                 [16]byte
	Type, Machine         uint16
	Version               uint32
	Entry, Phoff, Shoff   uint64
	Flags                 uint32
	Ehsize                uint16
	Phentsize, Phnum      uint16
	Shentsize, Shnum, Ndx uint16
}

type elfSegment struct {
	Type, Flags          uint32
	Off, Vaddr, Paddr    uint64
	Filesz, Memsz, Align uint64
}

const (
	elfHeaderSize  = 64
	elfSegmentSize = 56
	headersSize    = elfHeaderSize + 3*elfSegmentSize

	typeExec  = 2
	ptLoad    = 1
	ptStack   = 0x6474e551
	flagsRX   = 5
	flagsR    = 4
	flagsRW   = 6
	recordSeg = 1 // the number of the record's segment
)

// machines are the numbers in an ELF header, for the machines of become.
var machines = map[string]uint16{"amd64": 62, "arm64": 183}

var errProgram = errors.New("the become program has not the segments of one: code, a record, a stack")

// newProgram reads the become program and makes sure that this is one: for the
// machine (as Go calls it), static, with nothing writable, and with a place for a
// record.
func newProgram(file []byte, goarch string) (program, error) {
	if len(file) < headersSize || string(file[:7]) != "\x7fELF\x02\x01\x01" {
		return program{}, errors.New("the become program is not a 64-bit ELF file")
	}
	var h elfHeader
	var seg [3]elfSegment
	if _, err := binary.Decode(file, binary.LittleEndian, &h); err != nil {
		return program{}, err
	}
	if h.Type != typeExec || h.Machine != machines[goarch] {
		return program{}, fmt.Errorf("the become program is not a static executable for %s", goarch)
	}
	if h.Phoff != elfHeaderSize || h.Phentsize != elfSegmentSize || h.Phnum != uint16(len(seg)) {
		return program{}, errProgram
	}
	if _, err := binary.Decode(file[elfHeaderSize:], binary.LittleEndian, &seg); err != nil {
		return program{}, err
	}
	code, record, stack := seg[0], seg[recordSeg], seg[2]
	if code.Type != ptLoad || code.Flags != flagsRX || code.Off != 0 ||
		record.Type != ptLoad || record.Flags != flagsR || stack.Type != ptStack || stack.Flags != flagsRW ||
		record.Off < headersSize || record.Off < code.Filesz || record.Off > uint64(len(file)) {
		return program{}, errProgram
	}
	// The sections come after the record, and are left away.
	h.Shoff, h.Shnum, h.Ndx = 0, 0, 0
	p := program{slices.Clone(file[:record.Off])}
	_, err := binary.Encode(p.code, binary.LittleEndian, h)
	return p, err
}

// with returns the file of a one-time executable: the program with a record.
func (p program) with(record []byte) []byte {
	const filesz = elfHeaderSize + recordSeg*elfSegmentSize + 32 // and memsz after it
	b := slices.Concat(p.code, record)
	binary.LittleEndian.PutUint64(b[filesz:], uint64(len(record)))
	binary.LittleEndian.PutUint64(b[filesz+8:], uint64(len(record)))
	return b
}

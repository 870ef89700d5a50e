// Package logindefs reads login.defs(5), for the few settings that a login
// without privileges still decides for itself.
package logindefs

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"p9auth/internal/sys"
)

// Path is where the file is.
const Path = "/etc/login.defs"

const maxSize = 1 << 20

// Defs are the settings by name.
type Defs map[string]string

// Read reads a login.defs file. A missing file is an empty one.
func Read(path string) (Defs, error) {
	b, err := sys.ReadFile(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Defs{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(bytes.NewReader(b))
}

func parse(r io.Reader) (Defs, error) {
	d := Defs{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			d[line] = ""
			continue
		}
		d[line[:i]] = strings.Trim(strings.TrimSpace(line[i:]), `"`)
	}
	return d, s.Err()
}

// String is the setting, or def where it is not set.
func (d Defs) String(name, def string) string {
	if v, ok := d[name]; ok && v != "" {
		return v
	}
	return def
}

// Bool is the setting, which is yes or no.
func (d Defs) Bool(name string, def bool) bool {
	v, ok := d[name]
	if !ok {
		return def
	}
	return strings.EqualFold(v, "yes")
}

// Int is the setting as a number: decimal, octal after 0, hex after 0x.
func (d Defs) Int(name string, def int) int {
	n, err := strconv.ParseInt(d[name], 0, 32)
	if err != nil {
		return def
	}
	return int(n)
}

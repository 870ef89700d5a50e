package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// An archive is an initramfs: cpio's "newc" form, see the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	buf   bytes.Buffer
	have  map[string]bool
	links map[string]string // symbolic links, for the paths below them
	ino   int
}

func newArchive() *archive { return &archive{have: map[string]bool{}, links: map[string]string{}} }

const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

// add adds an entry, and its parents before it. What is there already stays.
func (a *archive) add(name string, mode, owner int, data []byte) {
	name = strings.Trim(filepath.Clean(name), "/")
	// Below /bin, where that is a link to usr/bin.
	if top, rest, ok := strings.Cut(name, "/"); ok && a.links[top] != "" {
		name = a.links[top] + "/" + rest
	}
	if name == "." || a.have[name] {
		return
	}
	if dir := filepath.Dir(name); dir != "." {
		a.add(dir, modeDir|0o755, 0, nil)
	}
	a.have[name] = true
	a.entry(name, mode, owner, data)
}

func (a *archive) entry(name string, mode, owner int, data []byte) {
	a.ino++
	fmt.Fprintf(&a.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, owner, owner, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *archive) dir(name string, mode, owner int) { a.add(name, modeDir|mode, owner, nil) }

func (a *archive) file(name string, mode int, data string) {
	a.add(name, modeFile|mode, 0, []byte(data))
}

func (a *archive) link(name, to string) {
	a.add(name, modeLink|0o777, 0, []byte(to))
	if n := strings.Trim(name, "/"); !strings.Contains(n, "/") {
		a.dir(to, 0o755, 0)
		a.links[n] = strings.Trim(to, "/")
	}
}

// copy adds a file of the host under another name.
func (a *archive) copy(name, path string, mode int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	a.add(name, modeFile|mode, 0, b)
	return nil
}

// below adds what is at a path of a system whose root directory is root: a file, a
// directory with all that is in it, or a symbolic link and what it leads to; nothing if
// there is no such path, as another Debian has other files. Set-user-ID bits are lost.
// It tells each regular file to seen, if there is one.
func (a *archive) below(root, path string, seen func(string)) error {
	full := filepath.Join(root, path)
	st, err := os.Lstat(full)
	if err != nil {
		return nil
	}
	switch mode := st.Mode(); {
	case mode&os.ModeSymlink != 0:
		to, err := os.Readlink(full)
		if err != nil {
			return err
		}
		a.add(path, modeLink|0o777, 0, []byte(to))
		if root != "/" {
			return nil // the whole system is added
		}
		if full, err = filepath.EvalSymlinks(full); err != nil {
			return nil
		}
		return a.below(root, full, seen)
	case st.IsDir():
		a.dir(path, int(mode.Perm()), 0)
		list, err := os.ReadDir(full)
		for _, e := range list {
			if err := a.below(root, filepath.Join(path, e.Name()), seen); err != nil {
				return err
			}
		}
		return err
	case mode.IsRegular():
		if seen != nil {
			seen(full)
		}
		return a.copy(path, full, int(mode.Perm()))
	}
	return nil
}

// bytes is the whole archive.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, 0, nil)
	return a.buf.Bytes()
}

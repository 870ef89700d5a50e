//go:build !capdev

package daemon

import (
	"os"
	"path/filepath"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/capfs"
)

// needsBecome is whether this factotum can do nothing without become.
const needsBecome = true

func openCapHash(c config.Config, log status.Log, gone func(error)) (*backend, error) {
	return mountCapFiles(c, log, gone)
}

// MountCaps mounts the capability files at dir, and nothing else is served. The
// function that it returns takes them away.
func MountCaps(dir string) (unmount func() error, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	become, err := os.ReadFile(config.Default().Become)
	if err != nil {
		return nil, err
	}
	fs, err := capfs.Mount(dir, capfs.Options{Become: become})
	if err != nil {
		return nil, err
	}
	return func() error { return fs.Unmount(dir) }, nil
}

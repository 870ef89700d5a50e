//go:build !capdev

package daemon

import (
	"io"
	"os"
	"path/filepath"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/capfs"
)

const backend = "fuse"

// openCapHash mounts the capability files and opens caphash, before anything
// else is done. Of the functions that it returns one binds capabilities, the
// other takes the files away. It calls gone when the files are lost for good.
func openCapHash(c config.Config, log status.Log, gone func(error)) (io.Writer, bindFunc, func(), error) {
	become, err := os.ReadFile(c.Become)
	if err != nil {
		return nil, nil, nil, err
	}
	fs, err := capfs.Mount(c.CapDir, capfs.Options{
		Become: become, MaxCaps: c.MaxCapabilities, Lifetime: c.CapabilityLifetime, Log: log.Logger,
		Redeemed: func(args ...any) { log.Event(status.CapabilityRedeemed, args...) },
		Refused:  func(args ...any) { log.Event(status.CapabilityRefused, args...) },
		Lost:     func(reason string) { log.Event(status.CapabilitiesLost, "dir", c.CapDir, "reason", reason) },
		Gone:     gone,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := fs.OpenHash()
	if err != nil {
		fs.Unmount(c.CapDir)
		return nil, nil, nil, err
	}
	return f, fs.Bind, func() {
		f.Close()
		if err := fs.Unmount(c.CapDir); err != nil {
			log.Error("unmount the capability files", "error", err.Error())
		}
	}, nil
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

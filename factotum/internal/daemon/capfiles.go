package daemon

import (
	"fmt"
	"io"
	"os"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
	"p9auth/internal/capfs"
)

const fuse = "fuse"

// A backend is what makes capabilities of what factotum writes.
type backend struct {
	name  string // fuse or capdev
	hash  io.Writer
	bind  bindFunc // nil where it cannot bind
	close func()   // takes what it serves away
}

// mountCapFiles mounts the capability files and opens caphash, before anything
// else is done. It calls gone when the files are lost for good.
func mountCapFiles(c config.Config, log status.Log, gone func(error)) (*backend, error) {
	become, err := os.ReadFile(c.Become)
	if err != nil {
		return nil, err
	}
	context, err := capFilesContext(c.CapDir)
	if err != nil {
		return nil, fmt.Errorf("the security context of the capability files: %w", err)
	}
	fs, err := capfs.Mount(c.CapDir, capfs.Options{
		Become: become, Context: context, MaxCaps: c.MaxCapabilities, Lifetime: c.CapabilityLifetime, Log: log.Logger,
		Redeemed: func(args ...any) { log.Event(status.CapabilityRedeemed, args...) },
		Refused:  func(args ...any) { log.Event(status.CapabilityRefused, args...) },
		Lost:     func(reason string) { log.Event(status.CapabilitiesLost, "dir", c.CapDir, "reason", reason) },
		Gone:     gone,
	})
	if err != nil {
		return nil, err
	}
	f, err := fs.OpenHash()
	if err != nil {
		fs.Unmount(c.CapDir)
		return nil, err
	}
	return &backend{fuse, f, fs.Bind, func() {
		f.Close()
		if err := fs.Unmount(c.CapDir); err != nil {
			log.Error("unmount the capability files", "error", err.Error())
		}
	}}, nil
}

//go:build !capdev

package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"p9auth/internal/capfs"
)

const backend = "fuse"

// openCapHash mounts the capability files and opens caphash, before anything
// else is done. The function that it returns takes them away.
func openCapHash(c config, log *slog.Logger) (*os.File, func(), error) {
	become, err := os.ReadFile(c.Become)
	if err != nil {
		return nil, nil, err
	}
	fs, err := capfs.Mount(c.CapDir, capfs.Options{
		Become: become, MaxCaps: c.MaxCapabilities, Lifetime: c.CapabilityLifetime, Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.CapDir, "caphash"), os.O_WRONLY, 0)
	if err != nil {
		fs.Unmount(c.CapDir)
		return nil, nil, err
	}
	return f, func() {
		f.Close()
		if err := fs.Unmount(c.CapDir); err != nil {
			log.Error("unmount the capability files", "error", err.Error())
		}
	}, nil
}

// serveCaps serves the capability files and nothing else.
func serveCaps(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	become, err := os.ReadFile(newConfig().Become)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	fs, err := capfs.Mount(dir, capfs.Options{Become: become})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "factotum: serving caphash and capuse at %s\n", dir)
	<-signals
	return fs.Unmount(dir)
}

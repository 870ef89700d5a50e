//go:build capdev

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/status"
)

// needsBecome is whether this factotum can do nothing without become.
const needsBecome = false

// parameters is where the module p9auth shows its parameters, see p9auth(4).
const parameters = "/sys/module/p9auth/parameters/"

// openCapHash opens the kernel's device. While that is missing, as after an update of
// the kernel for which the module could not be built, it mounts the capability files
// instead: nobody could log in otherwise. They bind more than the device, not less.
func openCapHash(c config.Config, log status.Log, gone func(error)) (*backend, error) {
	b, err := openDevice(c, log)
	if err == nil || !c.CapFallback || !errors.Is(err, errNoDevice) {
		return b, err
	}
	log.Error("THE KERNEL DEVICE IS MISSING: factotum serves the capability files by FUSE instead, until it is started again with the device there",
		"error", err.Error(), "see", "CapFallback in factotum.conf(5)")
	b, fail := mountCapFiles(c, log, gone)
	if fail != nil {
		return nil, fmt.Errorf("%w; and not by FUSE either: %w", err, fail)
	}
	return b, nil
}

// errNoDevice is that there is no device: the module is not loaded.
var errNoDevice = errors.New("load the kernel module p9auth (modprobe p9auth), or use a factotum built with the FUSE backend")

// openDevice opens the kernel's caphash, which is ours alone in this user
// namespace from now on. It cannot bind capabilities.
func openDevice(c config.Config, log status.Log) (*backend, error) {
	f, err := os.OpenFile(c.CapHash, os.O_WRONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("%w: %w", err, errNoDevice)
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%w: another process has it open", err)
	case err != nil:
		return nil, err
	}
	// The bounds of the configuration are the device's to keep.
	setParameter("lifetime", int(c.CapabilityLifetime/time.Second), log.Logger)
	setParameter("max", c.MaxCapabilities, log.Logger)
	return &backend{"capdev", f, nil, func() { f.Close() }}, nil
}

// setParameter gives the module a parameter. In a container that may fail:
// the parameters are the whole machine's.
func setParameter(name string, value int, log *slog.Logger) {
	now, err := os.ReadFile(parameters + name)
	if err == nil && strings.TrimSpace(string(now)) == strconv.Itoa(value) {
		return
	}
	if err == nil {
		err = os.WriteFile(parameters+name, []byte(strconv.Itoa(value)), 0)
	}
	if err != nil {
		log.Warn("the configuration cannot be given to the kernel, its own value holds",
			"parameter", parameters+name, "value", value, "error", err.Error())
	}
}

// MountCaps is for the FUSE backend only.
func MountCaps(string) (unmount func() error, err error) {
	return nil, errors.New("this factotum is built for the kernel's capability device, which has its own files: there is nothing to serve")
}

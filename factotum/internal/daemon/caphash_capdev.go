//go:build capdev

package daemon

import (
	"errors"
	"fmt"
	"io"
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

const backend = "capdev"

// parameters is where the module p9auth shows its parameters, see p9auth(4).
const parameters = "/sys/module/p9auth/parameters/"

// openCapHash opens the kernel's caphash, which is ours alone in this user
// namespace from now on. It cannot bind capabilities. The last function that it returns
// closes it.
func openCapHash(c config.Config, log status.Log, _ func(error)) (io.Writer, bindFunc, func(), error) {
	f, err := os.OpenFile(c.CapHash, os.O_WRONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil, fmt.Errorf("%w: load the kernel module p9auth (modprobe p9auth), or use a factotum built with the FUSE backend", err)
	case errors.Is(err, unix.EBUSY):
		return nil, nil, nil, fmt.Errorf("%w: another process has it open", err)
	case err != nil:
		return nil, nil, nil, err
	}
	// The bounds of the configuration are the device's to keep.
	setParameter("lifetime", int(c.CapabilityLifetime/time.Second), log.Logger)
	setParameter("max", c.MaxCapabilities, log.Logger)
	return f, nil, func() { f.Close() }, nil
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

package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// What scripts/testbed runs, besides programs.
var testbedPrograms = strings.Fields(`
	/bin/cp /bin/ln /bin/mount /bin/readlink /bin/rmdir /usr/bin/basename /usr/bin/dirname /usr/bin/getent /usr/bin/install
	/usr/bin/mawk /usr/bin/nsenter /usr/bin/seq /usr/bin/setsid /usr/bin/tee /usr/bin/unshare
	/usr/sbin/chpasswd /usr/sbin/groupadd /usr/sbin/useradd /usr/sbin/usermod`)

// addFaults adds test/faults, its arguments, and what a testbed needs: the scripts and our
// programs where the source tree is, and overlays.
func (b *builder) addFaults(a *archive, version string) error {
	overlay := filepath.Join(b.dir, version, "overlay.ko")
	if !exists(overlay) {
		return fmt.Errorf("%s is missing: with Linux 6.1 only it can be loaded; remove %s to have it fetched", overlay, filepath.Dir(overlay))
	}
	if err := a.copy("/lib/overlay.ko", overlay, 0o644); err != nil {
		return err
	}
	if err := a.copy("/faults.test", filepath.Join(b.dir, "faults.test"), 0o755); err != nil {
		return err
	}
	a.file("/faults.arguments", 0o644, b.faults)
	a.link("/usr/bin/awk", "mawk")
	var elf []string
	for _, p := range testbedPrograms {
		if err := a.below("/", p, func(f string) { elf = append(elf, f) }); err != nil {
			return err
		}
	}
	for _, path := range append(libraries(elf), filepath.Join(b.top, "scripts"), b.bin(version)) {
		if err := a.below("/", path, nil); err != nil {
			return err
		}
	}
	a.link(filepath.Join(b.top, "bin"), b.bin(version))
	return nil
}

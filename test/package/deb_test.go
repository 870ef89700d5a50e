// Package package_test is tested here: what is in the Debian package. That it works is
// tested by `make vm-boot`.
package package_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lines of an output or a file, without empty ones.
func lines(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}

func TestDebianPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package, which links all programs")
	}
	tmp := t.TempDir()
	// A clock that is an hour late is as one that goes right and a commit of an hour later:
	// dpkg-deb leaves files that are older than that as they are.
	t.Setenv("SOURCE_DATE_EPOCH", strconv.FormatInt(time.Now().Unix()+3600, 10))
	run(t, "make", "-C", "../..", "deb", "OUT="+tmp, "BIN="+tmp+"/bin", "VERSION=0.test")
	deb := run(t, "sh", "-c", "ls "+tmp+"/p9auth_0.test_*.deb")
	deb = strings.TrimSpace(deb)

	t.Run("Debian's checker finds nothing in it", func(t *testing.T) {
		if out := run(t, "make", "-C", "../..", "-s", "-o", "deb", "lintian", "OUT="+tmp, "VERSION=0.test"); out != "" {
			t.Errorf("it says: %s", out)
		}
	})
	t.Run("it is the same whatever the umask and the clock", func(t *testing.T) {
		again := t.TempDir()
		run(t, "sh", "-c", "umask 077; make -C ../.. deb OUT="+again+" BIN="+tmp+"/bin VERSION=0.test")
		if read(t, deb) != read(t, filepath.Join(again, filepath.Base(deb))) {
			t.Errorf("it is not: %s", run(t, "sh", "-c", "dpkg-deb -c "+deb+" >"+again+"/a; dpkg-deb -c "+again+"/*.deb | diff "+again+"/a - || true"))
		}
	})
	t.Run("no file has rights, and only root can change one", func(t *testing.T) {
		n, hidden := 0, 0
		for _, l := range lines(run(t, "dpkg-deb", "-c", deb)) {
			if l[0] == 'l' { // the kernel asks for the mode of what a link names
				continue
			}
			if strings.HasSuffix(l, "/p9auth/login") || strings.HasSuffix(l, "/p9auth/sshfront") {
				hidden++
				if !strings.HasPrefix(l, "-rwx--x--x ") {
					t.Errorf("its processes can be traced by others of the same user: %s", l)
				}
			}
			f := strings.Fields(l) // mode owner size date time name
			n++
			if strings.ContainsAny(f[0], "sStT") {
				t.Errorf("setuid, setgid or sticky: %s", l)
			}
			if f[0][5] == 'w' || f[0][8] == 'w' {
				t.Errorf("others than root can write: %s", l)
			}
			if f[1] != "root/root" {
				t.Errorf("not root's: %s", l)
			}
		}
		if n < 30 || hidden != 2 {
			t.Errorf("only %d files, %d of front ends", n, hidden)
		}
	})

	root := filepath.Join(tmp, "root")
	run(t, "dpkg-deb", "-R", deb, root)
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasPrefix(path, root+"/DEBIAN/") {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("the programs that manual pages name are in /usr/sbin", func(t *testing.T) {
		for _, name := range []string{"factotum", "sshfront", "p9auth-switch"} {
			if st, err := os.Stat(root + "/usr/sbin/" + name); err != nil || st.Mode()&0o111 == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("every file under /etc is a conffile", func(t *testing.T) {
		conf := "\n" + read(t, root+"/DEBIAN/conffiles")
		for _, f := range files {
			if strings.HasPrefix(f, "/etc/") && !strings.Contains(conf, "\n"+f+"\n") {
				t.Errorf("%s is none", f)
			}
		}
		for _, f := range lines(conf) {
			if _, err := os.Stat(root + f); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("every file is in the manual", func(t *testing.T) {
		pages, err := filepath.Glob("../../man/*")
		if err != nil || len(pages) == 0 {
			t.Fatal(err)
		}
		var manual strings.Builder
		for _, p := range pages {
			manual.WriteString(read(t, p))
		}
		for _, f := range files {
			if strings.HasPrefix(f, "/usr/share/") {
				continue
			}
			if !strings.Contains(manual.String(), f) {
				t.Errorf("%s is not", f)
			}
		}
	})
	t.Run("the units name programs that are there", func(t *testing.T) {
		units, _ := filepath.Glob("../../dist/systemd/*")
		for _, u := range units {
			for _, w := range strings.FieldsFunc(read(t, u), func(r rune) bool { return strings.ContainsRune("= \n\"", r) }) {
				if strings.HasPrefix(w, "/usr/lib/p9auth/") {
					if st, err := os.Stat(root + w); err != nil || st.Mode()&0o111 == 0 {
						t.Errorf("%s: %s: not a program of the package", u, w)
					}
				}
			}
		}
		if len(units) == 0 {
			t.Error("no units")
		}
	})
	t.Run("its copyright file has all that is linked, and nothing else", func(t *testing.T) { testCopyright(t, root, runtime.GOARCH) })
	t.Run("its version is that of its programs and of its changelog", func(t *testing.T) { testVersions(t, root, "0.test") })
	t.Run("each manual page of section 1 is of a program", func(t *testing.T) {
		pages, _ := filepath.Glob(root + "/usr/share/man/man1/*")
		for _, p := range pages {
			name, _, _ := strings.Cut(filepath.Base(p), ".")
			if st, err := os.Stat(root + "/usr/bin/" + name); err != nil || st.Mode()&0o111 == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(pages) < 4 {
			t.Errorf("only %d", len(pages))
		}
	})
	t.Run("its scripts are such for sh", func(t *testing.T) {
		for _, s := range []string{"DEBIAN/postinst", "DEBIAN/prerm", "DEBIAN/postrm", "usr/sbin/p9auth-switch"} {
			run(t, "dash", "-n", filepath.Join(root, s))
		}
	})
	t.Run("make install has everything below another PREFIX", func(t *testing.T) {
		dest := filepath.Join(tmp, "local")
		run(t, "make", "-C", "../..", "install", "DESTDIR="+dest, "PREFIX=/usr/local", "BIN="+tmp+"/bin")
		n := 0
		err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			n++
			place := strings.TrimPrefix(path, dest)
			if !strings.HasPrefix(place, "/usr/local/") && !strings.HasPrefix(place, "/etc/p9auth/") {
				t.Errorf("%s is elsewhere", place)
			}
			if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o022 != 0 {
				t.Errorf("%s: %v, others than root can write", place, err)
			}
			// What is there when the package is not must not be named.
			if strings.Contains(read(t, path), "/usr/lib/p9auth/") {
				t.Errorf("%s names /usr/lib/p9auth", place)
			}
			return nil
		})
		if err != nil || n < 25 {
			t.Errorf("%d files: %v", n, err)
		}
		if read(t, dest+"/usr/local/share/doc/p9auth/copyright") != read(t, root+"/usr/share/doc/p9auth/copyright") {
			t.Error("the copyright file is another one than the package's")
		}
	})
	t.Run("make install does not replace a configuration", func(t *testing.T) {
		conf := root + "/etc/p9auth/factotum.conf"
		if err := os.WriteFile(conf, []byte("# mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, "make", "-C", "../..", "install", "DESTDIR="+root, "BIN="+tmp+"/bin")
		if got := read(t, conf); got != "# mine\n" {
			t.Errorf("it is %q now", got)
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

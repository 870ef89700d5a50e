package modules

import (
	"path/filepath"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// unpacked lays the modules and servers that scripts/deps unpacks over the testbed's
// /usr. They are not installed, as they would be asked about this machine's users.
func unpacked(t *testing.T, s *site) {
	t.Helper()
	s.Sh(t, "cd "+filepath.Join(s.Dir, "overlay")+" && mkdir usr.up usr.work && mount -t overlay modules -o lowerdir="+
		filepath.Join(s.Top, "build", "pam", "usr")+":/usr,upperdir=usr.up,workdir=usr.work /usr; ldconfig")
}

// kerberos starts a KDC in which alice has the password that the tests type.
func kerberos(t *testing.T, s *site) {
	t.Helper()
	unpacked(t, s)
	s.Write(t, "/etc/krb5.conf", strings.ReplaceAll(`[libdefaults]
default_realm = P9AUTH.TEST
dns_lookup_kdc = false
dns_lookup_realm = false
[realms]
P9AUTH.TEST = {
	kdc = 127.0.0.1:PORT
	database_name = /run/kdc/principal
	key_stash_file = /run/kdc/stash
	kdc_listen = 127.0.0.1:PORT
	kdc_tcp_listen = 127.0.0.1:PORT
}
[logging]
kdc = FILE:/run/kdc/log
`, "PORT", testbed.FreePort(t)))
	s.Sh(t, `mkdir -m 700 /run/kdc; mkdir -m 1777 /run/caches; export KRB5_KDC_PROFILE=/etc/krb5.conf
kdb5_util create -s -P master >/dev/null
kadmin.local addprinc -pw `+password+` alice >/dev/null 2>&1
krb5kdc -P /run/kdc/pid >/dev/null 2>&1`)
	t.Cleanup(func() { s.Sh(t, `kill "$(cat /run/kdc/pid)"`) })
}

package testbed

import (
	"path/filepath"
	"strings"
	"testing"
)

// Unpacked lays the modules and servers that scripts/deps unpacks over the testbed's
// /usr. They are not installed, as they would be asked about this machine's users.
func (b *Bed) Unpacked(tb testing.TB) {
	tb.Helper()
	b.Sh(tb, "cd "+filepath.Join(b.Dir, "overlay")+" && mkdir usr.up usr.work && mount -t overlay modules -o lowerdir="+
		filepath.Join(b.Top, "build", "pam", "usr")+":/usr,upperdir=usr.up,workdir=usr.work /usr; ldconfig")
}

// Kerberos starts a KDC with the principals of people, who have that password. Names are
// taken as they are, without DNS.
func (b *Bed) Kerberos(tb testing.TB, password string, people ...string) {
	tb.Helper()
	b.Unpacked(tb)
	b.Write(tb, "/etc/krb5.conf", strings.ReplaceAll(`[libdefaults]
default_realm = P9AUTH.TEST
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
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
`, "PORT", FreePort(tb)))
	b.Sh(tb, `mkdir -m 700 /run/kdc; export KRB5_KDC_PROFILE=/etc/krb5.conf
kdb5_util create -s -P master >/dev/null
for p in `+strings.Join(people, " ")+`; do kadmin.local addprinc -pw `+password+` $p; done >/dev/null 2>&1
krb5kdc -P /run/kdc/pid >/dev/null 2>&1`)
	tb.Cleanup(func() { b.Sh(tb, `kill "$(cat /run/kdc/pid)"`) })
}

// HostKeytab makes this machine a host of the realm, with its key in /etc/krb5.keytab, and
// returns its name.
func (b *Bed) HostKeytab(tb testing.TB) string {
	tb.Helper()
	return b.Sh(tb, `export KRB5_KDC_PROFILE=/etc/krb5.conf; host=$(hostname)
echo "127.0.0.1 $host" >>/etc/hosts
{ kadmin.local addprinc -randkey host/$host; kadmin.local ktadd -k /etc/krb5.keytab host/$host; } >/dev/null 2>&1
chmod 600 /etc/krb5.keytab; printf %s "$host"`)
}

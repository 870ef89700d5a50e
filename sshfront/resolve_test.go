package main

import (
	"fmt"
	"strings"
	"testing"
)

// nssModule is a source of hosts that only the C library can ask: one name, which is
// this host's.
const nssModule = `
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <string.h>
#include <sys/socket.h>

enum nss_status _nss_p9test_gethostbyname2_r(const char *name, int af, struct hostent *h, char *buf, size_t len, int *err, int *herr)
{
	struct result { char addr[4]; char *list[2]; char *none[1]; char name[64]; } *r = (void *)(((unsigned long)buf + 7) & ~7ul);

	if (strcmp(name, "printer.p9test") || af != AF_INET) {
		*err = ENOENT;
		*herr = HOST_NOT_FOUND;
		return NSS_STATUS_NOTFOUND;
	}
	if (len < sizeof(*r) + 8) {
		*err = ERANGE;
		*herr = NETDB_INTERNAL;
		return NSS_STATUS_TRYAGAIN;
	}
	memcpy(r->addr, "\x7f\0\0\1", 4);
	strcpy(r->name, name);
	r->list[0] = r->addr;
	r->list[1] = r->none[0] = 0;
	h->h_name = r->name;
	h->h_aliases = r->none;
	h->h_addrtype = AF_INET;
	h->h_length = 4;
	h->h_addr_list = r->list;
	return NSS_STATUS_SUCCESS;
}
`

// A forward goes to the host that sshd would find.
func TestAForwardFindsItsHostByNSSAsWithSshd(t *testing.T) {
	need(t, "ssh", "gcc", "getent", "python3")
	s := newSite(t)
	s.Write(t, "/run/nss.c", nssModule)
	s.Sh(t, `lib=$(dirname "$(ldconfig -p | sed -n 's/.*libc\.so\.6.*x86-64.*=> //p; s/.*libc\.so\.6.*AArch64.*=> //p' | head -1)")
lib=$(realpath "$lib")
mkdir /run/nss && mount -t tmpfs nss /run/nss && mkdir /run/nss/up /run/nss/work && mount -t overlay nss -o lowerdir="$lib",upperdir=/run/nss/up,workdir=/run/nss/work "$lib"
gcc -shared -fPIC -o "$lib/libnss_p9test.so.2" /run/nss.c
sed -i 's/^hosts:.*/hosts: files p9test/' /etc/nsswitch.conf
getent ahostsv4 printer.p9test`)
	theirs, _ := s.sshd(t, "MaxStartups 100")
	open := `/usr/bin/python3 - <<'E'
import os, socket, paramiko
t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(os.environ["port"]))))
t.start_client()
t.auth_publickey("alice", paramiko.Ed25519Key.from_private_key_file(os.environ["keys"] + "/alice"))
for host in ("printer.p9test", "scanner.p9test", "", "127.0.0.1", "--help"):
    try:
        c = t.open_channel("direct-tcpip", (host, int(os.environ["target"])), ("127.0.0.1", 1))
        print(repr(host), c.recv(8).decode())
    except paramiko.ChannelException as e:
        print(repr(host), e.code)
t.close()
E`
	var got [2]string
	for i, port := range []string{s.port, theirs} {
		out, err := s.run(t, fmt.Sprintf("export port=%s target=%s; %s", port, theirs, open))
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got[i] = out
	}
	if got[0] != got[1] || strings.Count(got[1], "SSH-2.0-") != 2 {
		t.Errorf("got %s, with sshd %s", got[0], got[1])
	}
	s.noneLeft(t)
}

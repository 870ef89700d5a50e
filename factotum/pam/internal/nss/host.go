package nss

/*
#include <sys/types.h>
#include <sys/socket.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
*/
import "C"

import (
	"net/netip"
	"slices"
	"strings"
	"unsafe"
)

// maxAddrs bounds the addresses of a name.
const maxAddrs = 1024

// HostOf returns the name of a client if the name leads back to the address, as UseDNS
// in sshd_config(5) asks for, otherwise "". It asks nobody about an invalid address.
func HostOf(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	name := nameOf(a.Unmap())
	// A name that is an address in writing is none: whoever has the address could
	// choose it.
	if _, err := netip.ParseAddr(name); name == "" || err == nil {
		return ""
	}
	if !slices.Contains(addrsOf(name), a.Unmap().WithZone("")) {
		return ""
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// nameOf is getnameinfo(3) with NI_NAMEREQD, or "".
func nameOf(a netip.Addr) string {
	var host [C.NI_MAXHOST]C.char
	var sa unsafe.Pointer
	var size C.socklen_t
	if a.Is4() {
		var in C.struct_sockaddr_in
		in.sin_family = C.AF_INET
		b := a.As4()
		C.memcpy(unsafe.Pointer(&in.sin_addr), unsafe.Pointer(&b), 4)
		sa, size = unsafe.Pointer(&in), C.sizeof_struct_sockaddr_in
	} else {
		var in6 C.struct_sockaddr_in6
		in6.sin6_family = C.AF_INET6
		b := a.As16()
		C.memcpy(unsafe.Pointer(&in6.sin6_addr), unsafe.Pointer(&b), 16)
		sa, size = unsafe.Pointer(&in6), C.sizeof_struct_sockaddr_in6
	}
	if C.getnameinfo((*C.struct_sockaddr)(sa), size, &host[0], C.NI_MAXHOST, nil, 0, C.NI_NAMEREQD) != 0 {
		return ""
	}
	return C.GoString(&host[0])
}

// addrsOf is getaddrinfo(3): the addresses of a name, without zones.
func addrsOf(name string) []netip.Addr {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	hints := C.struct_addrinfo{ai_socktype: C.SOCK_STREAM}
	var first *C.struct_addrinfo
	if C.getaddrinfo(cname, nil, &hints, &first) != 0 {
		return nil
	}
	defer C.freeaddrinfo(first)
	var addrs []netip.Addr
	for i := first; i != nil && len(addrs) < maxAddrs; i = i.ai_next {
		switch i.ai_family {
		case C.AF_INET:
			in := (*C.struct_sockaddr_in)(unsafe.Pointer(i.ai_addr))
			addrs = append(addrs, netip.AddrFrom4(*(*[4]byte)(unsafe.Pointer(&in.sin_addr))))
		case C.AF_INET6:
			in6 := (*C.struct_sockaddr_in6)(unsafe.Pointer(i.ai_addr))
			addrs = append(addrs, netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&in6.sin6_addr))).Unmap())
		}
	}
	return addrs
}

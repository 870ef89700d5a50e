package config

import "strings"

// A field is what can stand after some keywords: values that sshd takes, which
// are tried together with those of other keywords, and values that are tried alone.
type field struct {
	keywords string
	good     []string
	alone    []string
}

func words(s string) []string { return strings.Split(s, " | ") }

// fields has every keyword of sshd_config(5), those of Debian, the old names, and
// those that OpenSSH had once.
var fields = []field{
	{"KbdInteractiveAuthentication ChallengeResponseAuthentication SKeyAuthentication PubkeyAuthentication DSAAuthentication " +
		"PasswordAuthentication PermitEmptyPasswords StrictModes TCPKeepAlive KeepAlive UseDNS PrintMotd PrintLastLog " +
		"PermitTTY PermitUserRC X11Forwarding X11UseLocalhost AllowAgentForwarding DisableForwarding " +
		"StreamLocalBindUnlink ExposeAuthInfo RefuseConnection IgnoreUserKnownHosts HostbasedUsesNameFromPacketOnly " +
		"KerberosOrLocalPasswd KerberosTicketCleanup GSSAPIAuthentication GSSAPICleanupCredentials GSSAPICleanupCreds GSSAPIStrictAcceptorCheck " +
		"GSSAPIStoreCredentialsOnRekey",
		words(`yes | no | YES | "no" | yes # why`), words(`maybe | yes no | "" | #yes`)},
	{"UsePAM DebianBanner Compression HostbasedAuthentication GSSAPIKeyExchange KerberosAuthentication",
		nil, words(`yes | no | maybe | delayed | NO`)},
	{"PermitTunnel", nil, words(`no | yes | point-to-point | ethernet | x`)},
	{"IgnoreRhosts", words(`yes | no | shosts-only`), words(`maybe`)},
	{"AddressFamily", words(`any | inet | inet6 | INET`), words(`inet4 | 4`)},
	{"PermitRootLogin", words(`yes | no | prohibit-password | without-password | forced-commands-only | Yes`), words(`maybe | no-password`)},
	{"AllowTcpForwarding AllowStreamLocalForwarding", words(`yes | no | local | remote | all | Local`), words(`both | local remote`)},
	{"GatewayPorts", words(`yes | no | clientspecified | ClientSpecified`), words(`all`)},
	{"FingerprintHash", words(`sha256 | md5 | SHA256`), words(`sha1 | sha512 | sha384`)},
	{"SyslogFacility", words(`AUTH | authpriv | LOCAL7 | DAEMON | user | local0`), words(`KERN | LOCAL8 | MAIL | ""`)},
	{"LogLevel", words(`INFO | VERBOSE | debug | DEBUG1 | DEBUG3 | Quiet | FATAL | error`), words(`DEBUG4 | WARN | ""`)},

	{"X11DisplayOffset MaxAuthTries MaxSessions ClientAliveCountMax", words(`10 | 0 | 1 | 007 | 59535`),
		words(`-1 | +5 | 0x10 | 5x | 99999999999 | none | 59536 | 2147483647 | 1 2`)},
	{"RequiredRSASize", words(`1024 | 2048 | 3072 | 16384`), words(`0 | 1023 | 512 | 16385 | x`)},
	{"LoginGraceTime ClientAliveInterval", words(`0 | 30 | 45s | 2m | 1h30m | 1D | 1w2d | 007`),
		words(`-1 | 1y | m | 1s1s | 5 5 | 99999999999 | none | 1.5 | 10000w | +3 | 1mm | 1m5 | 2147483647`)},
	{"UnusedConnectionTimeout", words(`none | 0 | 5m | NONE | 1h`), words(`x | -1 | 5m 5m`)},
	{"Port", words(`22 | 2222 | 65535 | 0022`), words(`0 | -1 | 65536 | ssh | 22 23 | 22x | +22 | nosuchservice`)},
	{"ListenAddress", words(`127.0.0.1 | 127.0.0.1:2222 | [::1]:22 | ::1 | 0.0.0.0 | :: | [::1] | localhost:24`),
		words(`127.0.0.1:0 | 127.0.0.1:x | [::1 | ::1:22:z | 1.2.3.4.5 | 127.0.0.1 rdomain x | 127.0.0.1 x | */22 | 127.1 | a:b:c | 127.0.0.1:ssh | [127.0.0.1]:22 | 127.0.0.1/22`)},
	{"MaxStartups", words(`10 | 10:30:100 | 1:1:1 | 5:100:5`), words(`0 | 10:30 | 10:0:100 | 10:101:100 | 20:30:10 | x | -1 | 10:30:60:90 | 10:30:x`)},
	{"PerSourceMaxStartups", words(`none | 1 | 100 | 0`), words(`x | -1 | None | 5 5`)},
	{"PerSourceNetBlockSize", words(`24:56 | 0:0 | 32:128`), words(`33:128 | 32:129 | x | 24: | :56 | -1:5 | 24`)},
	{"PerSourcePenalties", words(`yes | no | authfail:10 | crash:1m noauth:2 | max:1h min:5 | overflow:deny-all | overflow:deny-all overflow6:permissive | max-sources4:100 max-sources6:5 | grace-exceeded:20s refuseconnection:1h`),
		words(`maybe | authfail | authfail:x | yes authfail:5 | authfail:5 no | foo:5 | max-sources4:x | overflow:x | AUTHFAIL:5 | authfail:5 authfail:6 | invaliduser:5 | authfail:0.5`)},
	{"PerSourcePenaltyExemptList", words(`10.0.0.0/8 | 10.0.0.0/8,192.0.2.1,2001:db8::/32 | !10.0.0.1,10.0.0.0/8 | 10.* | none`),
		words(`10.0.0.1/8 | 10.0.0.0/33 | a,,b | host.example.org`)},
	{"PidFile", words(`/run/x.pid | none | NONE | "/run/a b" | x/y.pid`), words(`/a /b | "" | ~/x`)},
	{"Banner XAuthLocation TrustedUserCAKeys", words(`/x/file | none | "/x/a b" | x/y | None`), words(`/a /b | "" | ~/x`)},
	{"RevokedKeys", words(`/x/file | none | "/x/a b" | x/y`), words(`/a /b | none /b`)},
	{"ModuliFile SshdSessionPath SshdAuthPath", nil, words(`/x/file | none`)},
	{"VersionAddendum", words(`none | None | hello  world | Debian-7 # why | "quoted"`), words(`#x`)},
	{"HostKey", words(`/etc/ssh/ssh_host_ed25519_key | /etc/ssh/ssh_host_rsa_key | "/etc/ssh/ssh_host_ecdsa_key"`),
		words(`/etc/ssh/ssh_host_rsa_key /x | ""`)},
	{"HostDSAKey", nil, words(`/etc/ssh/ssh_host_ed25519_key`)},
	{"HostCertificate", nil, words(`"" | none none`)},
	{"HostKeyAgent", words(`none | SSH_AUTH_SOCK | /run/agent | None | run/agent`), words(`/a /b | "" | ~/x`)},
	{"SecurityKeyProvider", words(`internal | /usr/lib/x.so | none | x.so`), words(`/a /b | "" | ~/x`)},
	{"PAMServiceName", nil, words(`sshd | other | ""`)},
	{"RDomain", nil, words(`none | %D | 1`)},

	{"Ciphers", words(`aes256-gcm@openssh.com | aes128-ctr,aes256-ctr | +aes128-cbc | -aes* | ^aes256-ctr | chacha20-poly1305@openssh.com,aes128-ctr | -chacha20-poly1305@openssh.com`),
		words(`nosuch | aes128-ctr,nosuch | +nosuch | -nosuch | aes* | -* | "" | aes128-ctr, | ,aes128-ctr | + | - | ^ | 3des-cbc | aes128-ctr aes256-ctr | aes128-ctr,aes128-ctr | AES128-CTR | none | +aes* | aes192-cbc,aes256-ctr | aes256-cbc | rijndael-cbc@lysator.liu.se`)},
	{"MACs", words(`hmac-sha2-256 | hmac-sha2-512-etm@openssh.com,hmac-sha2-256 | -hmac-sha1 | ^hmac-sha2-512 | -*sha1* | +hmac-sha1-96`),
		words(`nosuch | -* | hmac-md5 | umac-64@openssh.com | umac-64@openssh.com,hmac-sha2-256 | hmac-ripemd160 | +hmac-ripemd160 | hmac* | hmac-sha1-etm@openssh.com`)},
	{"KexAlgorithms", words(`curve25519-sha256 | curve25519-sha256@libssh.org,ecdh-sha2-nistp256 | -ecdh* | ^ecdh-sha2-nistp521 | +diffie-hellman-group14-sha256 | diffie-hellman-group16-sha512,diffie-hellman-group-exchange-sha256 | -*nistp*,mlkem*`),
		words(`nosuch | sntrup761x25519-sha512@openssh.com | sntrup761x25519-sha512@openssh.com,curve25519-sha256 | diffie-hellman-group1-sha1 | diffie-hellman-group18-sha512 | curve* | +diffie-hellman-group14-sha1 | mlkem768x25519-sha256 | kex-strict-s-v00@openssh.com | ext-info-s`)},
	{"HostKeyAlgorithms PubkeyAcceptedAlgorithms PubkeyAcceptedKeyTypes", words(`ssh-ed25519 | rsa-sha2-512,rsa-sha2-256,ssh-ed25519 | -ecdsa* | ^rsa-sha2-512 | -*cert* | ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp256`),
		words(`nosuch | ssh-rsa | +ssh-rsa | ssh-rsa,rsa-sha2-512 | ssh-dss | +ssh-dss | ssh-dss,ssh-ed25519 | rsa* | +ssh-rsa* | sk-ssh-ed25519@openssh.com | sk-ssh-ed25519@openssh.com,ssh-ed25519 | webauthn-sk-ecdsa-sha2-nistp256@openssh.com | webauthn-sk-ecdsa-sha2-nistp256@openssh.com,ssh-ed25519 | *ed25519* | -* | sk* | ssh-rsa-cert-v01@openssh.com,ssh-ed25519`)},
	{"HostbasedAcceptedAlgorithms HostbasedAcceptedKeyTypes", words(`ssh-ed25519 | -ecdsa* | ^rsa-sha2-512`), words(`nosuch | +ssh-rsa | rsa*`)},
	{"CASignatureAlgorithms", words(`ssh-ed25519 | -rsa* | ^rsa-sha2-512 | ecdsa-sha2-nistp256,rsa-sha2-256`),
		words(`nosuch | ssh-rsa | +ssh-rsa | ssh-ed25519-cert-v01@openssh.com | ssh-dss | sk-ssh-ed25519@openssh.com | rsa*`)},
	{"GSSAPIKexAlgorithms", words(`gss-curve25519-sha256- | gss-group14-sha256-,gss-nistp256-sha256-`), words(`nosuch | gss-*`)},

	{"RekeyLimit", words(`default | default none | 1G | 512M 1h | 16 | 0 0 | 1T | 500k none | 1048576 30`),
		words(`1 | 15 | x | 1X | 1G 1y | 1G 1h x | default x | -1 | 1.5G | 9999999T | 8E | none | 1P`)},
	{"IPQoS", words(`af21 cs1 | ef | 0x10 | le | none | cs0 cs7 | EF af11 | 184 0xb8`),
		words(`lowdelay | throughput | lowdelay throughput | reliability | foo | 256 | 300 1 | af21 cs1 x | va | ef lowdelay | -1`)},
	{"ChannelTimeout", words(`none | session=5m | *=1h global=2h | x11-connection=30 session=0`), words(`session | session=x | none session=5m | session=5m none | =5m | session:*=5m`)},
	{"LogVerbose", words(`none | kex.c:*:1000,*:kex_exchange_identification():*,packet.c:* | a b`), words(`"" | none a`)},

	{"AuthenticationMethods", words(`any | publickey | publickey,password | publickey,password publickey,keyboard-interactive | publickey,publickey | "password" | gssapi-with-mic | publickey,gssapi-with-mic`),
		words(`none | any publickey | publickey any | nosuch | publickey,nosuch | hostbased | gssapi-keyex | keyboard-interactive:pam | keyboard-interactive:bsdauth | keyboard-interactive:x | publickey, | ,publickey | "" | publickey,none | none publickey | PublicKey | publickey,hostbased publickey | any any | password:pam`)},
	{"AllowUsers DenyUsers", words(`alice | alice bob@192.0.2.0/24 | *@*.example.org,!bad.example.org | "a b" | a\b | alice@10.0.0.0/8,2001:db8::/32 | alice@`),
		words(`"" | alice@10.0.0.1/8 | !root | *,!root | alice@10.0.0.0/99 | a@b@c | @host | alice@!10.0.0.1,10.0.0.0/8 | !alice@10.0.0.0/8`)},
	{"AllowGroups DenyGroups", words(`wheel | a b c | "domain users" | *admin*`), words(`"" | !root | *,!root`)},
	{"AuthorizedKeysFile", words(`.ssh/authorized_keys | /etc/keys/%u .ssh/x | none | /etc/keys/%U/%h | "/a b/%%" | NONE | .ssh/keys.d/*`),
		words(`"" | ~/x | none .ssh/x | /etc/%z | .ssh/x ~/y | /etc/%`)},
	{"AuthorizedPrincipalsFile", words(`none | /etc/p/%u | .ssh/principals | None`), words(`"" | ~/x | /etc/%z | /a /b`)},
	{"ChrootDirectory", words(`none | /srv/%u | %h | "/srv/a b" | None | /srv/%%`), words(`"" | /a /b | /srv/%z | relative | ~/x`)},
	{"PubkeyAuthOptions", words(`none | touch-required | verify-required touch-required | TOUCH-required | none touch-required`), words(`x | touch-required x`)},
	{"AcceptEnv", words(`LANG LC_* | X # why | "A B"`), words(`A=B | "" | LANG "" | #`)},
	{"SetEnv", words(`A=b | A="b c" D=e A=again | A= | "A=b c"`), words(`A | "" | =b | A=b C`)},
	{"PermitUserEnvironment", words(`yes | no | LANG,LC_* | "A,B"`), words(`Yes | "" | a b | NO`)},
	{"ForceCommand", words(`none | None | /bin/true | echo "hi   there" # kept | internal-sftp -l INFO | "a b" c | internal-sftp`), words(`internal-sftp -Z | "a | a 'b | none x`)},
	{"Subsystem", words(`sftp internal-sftp | sftp /usr/lib/openssh/sftp-server -f AUTH -l INFO | x /bin/y "a b" | sftp "/x y/z" -l 'q"r' | sftp internal-sftp -u 0027`),
		words(`sftp | "" x | sftp "" | sftp internal-sftp -Z`)},
	{"StreamLocalBindMask", words(`0177 | 000 | 0777 | 22`), words(`0778 | 8 | 1000 | x | -1 | 07x | 0x1`)},
	{"PermitOpen", words(`any | none | a:1 | a:1 [::1]:* *:80 | host:http | 127.0.0.1:22 | *:* | Host:5`),
		words(`a | a:0 | a:x | :22 | any a:1 | a:1 any | none a:1 | ::1:22 | [::1]:x | "" | a:65536 | a:1:2 | any any | Any | a/22 | a:* b`)},
	{"PermitListen", words(`any | none | 8080 | localhost:8080 *:9 | 80 [::1]:81 | *:* | 0.0.0.0:22 | *.example.org:1 | http`),
		words(`a:0 | x | any 1 | 1 any | :22 | a:x | none none | ""`)},
	{"AuthorizedKeysCommand AuthorizedPrincipalsCommand", words(`none`), words(`x | "" | "/bin/true" | relative/x | /bin/true %z | none x | /bin/true`)},
	{"AuthorizedKeysCommandUser AuthorizedPrincipalsCommandUser", words(`none | nobody | alice | %u | nosuch`), words(`"" | root | a b | %z`)},

	{"Protocol UsePrivilegeSeparation UseLogin CheckMail RSAAuthentication RhostsRSAAuthentication RhostsAuthentication " +
		"KerberosTgtPassing AFSTokenPassing ServerKeyBits KeyRegenerationInterval PAMAuthenticationViaKbdInt AuthorizedKeysFile2 " +
		"VerifyReverseMapping ReverseMappingCheck PermitBlacklistedKeys GSSUseSessionCCache GSSAPIUseSessionCredCache KerberosGetAFSToken",
		words(`yes | 2 | any thing "at all"`), nil},
	{"NoSuchKeyword GSSAPIDelegateCredentials X11UseForwarding IdentityFile HashKnownHosts SmartcardDevice Tag", nil, words(`yes`)},
	{"Include", words(`/c/nothing/*.conf | "/c/no such" | none /y/*`), words(`"" | ~nosuch/x`)},
}

// until10 are values that OpenSSH 9 took and 10 refuses, as sshfront does.
var until10 = words(`+3 | session=5m none | #`)

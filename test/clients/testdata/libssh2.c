// libssh2.
#include <fcntl.h>
#include <libssh2.h>
#include <libssh2_sftp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static LIBSSH2_SESSION *s;

static void need(int ok, const char *what)
{
	char *text = "";
	if (ok)
		return;
	if (s)
		libssh2_session_last_error(s, &text, NULL, 0);
	fprintf(stderr, "%s: %s\n", what, text);
	exit(1);
}

static int dial(const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	need(connect(fd, (void *)&to, sizeof to) == 0, "connect");
	return fd;
}

static int by_key(const char *name)
{
	char path[4096], pub[4200];
	snprintf(path, sizeof path, "%s/%s", getenv("keys"), name);
	snprintf(pub, sizeof pub, "%s.pub", path);
	return libssh2_userauth_publickey_fromfile(s, "alice", pub, path, NULL);
}

static LIBSSH2_USERAUTH_KBDINT_RESPONSE_FUNC(answer)
{
	(void)name, (void)name_len, (void)instruction, (void)instruction_len, (void)prompts, (void)abstract;
	for (int i = 0; i < num_prompts; i++) {
		responses[i].text = strdup(getenv("password"));
		responses[i].length = strlen(responses[i].text);
	}
}

static void drain(LIBSSH2_CHANNEL *c, int stream)
{
	char b[4096];
	ssize_t n;
	while ((n = libssh2_channel_read_ex(c, stream, b, sizeof b)) > 0)
		fwrite(b, 1, n, stdout);
}

static LIBSSH2_CHANNEL *command(const char *text)
{
	LIBSSH2_CHANNEL *c = libssh2_channel_open_session(s);
	need(c && libssh2_channel_exec(c, text) == 0, "exec");
	return c;
}

static void copy(LIBSSH2_SFTP *f, const char *from, const char *to, int up)
{
	static char b[1 << 20];
	ssize_t n, m;
	int local = open(up ? from : to, up ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
	LIBSSH2_SFTP_HANDLE *remote = libssh2_sftp_open(f, up ? to : from,
		up ? LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_TRUNC : LIBSSH2_FXF_READ, 0600);
	need(local >= 0 && remote, "open");
	while ((n = up ? read(local, b, sizeof b) : libssh2_sftp_read(remote, b, sizeof b)) > 0)
		for (char *p = b; n > 0; p += m, n -= m)
			need((m = up ? libssh2_sftp_write(remote, p, n) : write(local, p, n)) > 0, "write");
	need(n == 0 && libssh2_sftp_close(remote) == 0 && close(local) == 0, "copy");
}

int main(int argc, char **argv)
{
	const char *op = argv[1], *password = getenv("password");
	if (strcmp(op, "version") == 0) {
		printf("libssh2_%s\n", libssh2_version(0));
		return 0;
	}
	need(libssh2_init(0) == 0, "libssh2_init");
	int fd = dial(getenv("port"));
	need((s = libssh2_session_init()) != NULL, "session");
	need(libssh2_session_handshake(s, fd) == 0, "handshake");
	need(libssh2_userauth_list(s, "alice", 5) != NULL, "methods");
	if (strcmp(op, "password") == 0) {
		need(libssh2_userauth_password(s, "alice", password) == 0, "password");
	} else if (strcmp(op, "both") == 0) {
		need(by_key("right") != 0 && !libssh2_userauth_authenticated(s), "a key is enough");
		need(libssh2_userauth_keyboard_interactive(s, "alice", &answer) == 0, "keyboard-interactive");
	} else {
		if (strcmp(op, "keys") == 0)
			need(by_key("wrong") != 0, "wrong key");
		need(by_key("right") == 0, "key");
	}
	if (strcmp(op, "exec") == 0) {
		LIBSSH2_CHANNEL *c = command(getenv("command"));
		need(libssh2_channel_write(c, "in\n", 3) == 3 && libssh2_channel_send_eof(c) == 0, "write");
		drain(c, 0);
		drain(c, SSH_EXTENDED_DATA_STDERR);
		need(libssh2_channel_close(c) == 0 && libssh2_channel_wait_closed(c) == 0, "close");
		printf("%d\n", libssh2_channel_get_exit_status(c));
	} else if (strcmp(op, "sftp") == 0) {
		LIBSSH2_SFTP *f = libssh2_sftp_init(s);
		need(f != NULL, "sftp");
		copy(f, "data", "copy", 1);
		copy(f, "copy", "back", 0);
	} else if (strcmp(op, "forward") == 0) {
		LIBSSH2_CHANNEL *c = libssh2_channel_direct_tcpip(s, "127.0.0.1", atoi(getenv("target")));
		need(c != NULL, "forward");
		drain(c, 0);
	} else if (strcmp(op, "back") == 0) {
		char text[200], b[4096];
		ssize_t n;
		LIBSSH2_LISTENER *l = libssh2_channel_forward_listen_ex(s, "127.0.0.1", atoi(getenv("free")), NULL, 1);
		need(l != NULL, "listen");
		snprintf(text, sizeof text, "exec 3<>/dev/tcp/127.0.0.1/%s; cat <&3", getenv("free"));
		LIBSSH2_CHANNEL *c = command(text), *in = libssh2_channel_forward_accept(l);
		need(in != NULL, "accept");
		fd = dial(getenv("target"));
		while ((n = read(fd, b, sizeof b)) > 0)
			need(libssh2_channel_write(in, b, n) == n, "relay");
		need(libssh2_channel_close(in) == 0, "close");
		drain(c, 0);
	} else {
		drain(command("id -un"), 0);
	}
	libssh2_session_disconnect(s, "done");
	return 0;
}

// libssh.
#include <fcntl.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static ssh_session s;

static void need(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, s ? ssh_get_error(s) : "");
	exit(1);
}

static int by_key(const char *name)
{
	char path[4096];
	ssh_key k;
	snprintf(path, sizeof path, "%s/%s", getenv("keys"), name);
	need(ssh_pki_import_privkey_file(path, NULL, NULL, NULL, &k) == SSH_OK, path);
	return ssh_userauth_publickey(s, NULL, k);
}

static void drain(ssh_channel c, int is_stderr)
{
	char b[4096];
	int n;
	while ((n = ssh_channel_read(c, b, sizeof b, is_stderr)) > 0)
		fwrite(b, 1, n, stdout);
}

static ssh_channel command(const char *text)
{
	ssh_channel c = ssh_channel_new(s);
	need(ssh_channel_open_session(c) == SSH_OK && ssh_channel_request_exec(c, text) == SSH_OK, "exec");
	return c;
}

static void copy(sftp_session f, const char *from, const char *to, int up)
{
	static char b[32768];
	ssize_t n;
	int local = open(up ? from : to, up ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
	sftp_file remote = sftp_open(f, up ? to : from, up ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0600);
	need(local >= 0 && remote, "open");
	while ((n = up ? read(local, b, sizeof b) : sftp_read(remote, b, sizeof b)) > 0)
		need(n == (up ? sftp_write(remote, b, n) : write(local, b, n)), "write");
	need(n == 0 && sftp_close(remote) == SSH_OK && close(local) == 0, "copy");
}

// back relays one connection to the forwarded port, and shows what a command there reads.
static void back(void)
{
	char text[200], b[4096];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(getenv("target"))), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int n, fd = socket(AF_INET, SOCK_STREAM, 0);
	need(ssh_channel_listen_forward(s, "127.0.0.1", atoi(getenv("free")), NULL) == SSH_OK, "listen");
	snprintf(text, sizeof text, "exec 3<>/dev/tcp/127.0.0.1/%s; cat <&3", getenv("free"));
	ssh_channel c = command(text), in = ssh_channel_accept_forward(s, 20000, NULL);
	need(in && connect(fd, (void *)&to, sizeof to) == 0, "accept");
	while ((n = read(fd, b, sizeof b)) > 0)
		need(ssh_channel_write(in, b, n) == n, "relay");
	ssh_channel_send_eof(in);
	ssh_channel_close(in);
	drain(c, 0);
}

int main(int argc, char **argv)
{
	const char *op = argv[1], *password = getenv("password");
	if (strcmp(op, "version") == 0) {
		printf("libssh_%.*s\n", (int)strcspn(ssh_version(0), "/"), ssh_version(0));
		return 0;
	}
	need((s = ssh_new()) != NULL, "ssh_new");
	ssh_options_set(s, SSH_OPTIONS_HOST, "127.0.0.1");
	ssh_options_set(s, SSH_OPTIONS_PORT_STR, getenv("port"));
	ssh_options_set(s, SSH_OPTIONS_USER, "alice");
	ssh_options_set(s, SSH_OPTIONS_PROCESS_CONFIG, &(int){ 0 });
	ssh_options_set(s, SSH_OPTIONS_NODELAY, &(int){ 1 });
	need(ssh_connect(s) == SSH_OK, "connect");
	if (strcmp(op, "password") == 0) {
		need(ssh_userauth_password(s, NULL, password) == SSH_AUTH_SUCCESS, "password");
	} else if (strcmp(op, "both") == 0) {
		int r;
		need(by_key("right") == SSH_AUTH_PARTIAL, "key");
		while ((r = ssh_userauth_kbdint(s, NULL, NULL)) == SSH_AUTH_INFO)
			for (int i = 0; i < ssh_userauth_kbdint_getnprompts(s); i++)
				ssh_userauth_kbdint_setanswer(s, i, password);
		need(r == SSH_AUTH_SUCCESS, "keyboard-interactive");
	} else {
		if (strcmp(op, "keys") == 0)
			need(by_key("wrong") == SSH_AUTH_DENIED, "wrong key");
		need(by_key("right") == SSH_AUTH_SUCCESS, "key");
	}
	if (strcmp(op, "exec") == 0) {
		ssh_channel c = command(getenv("command"));
		need(ssh_channel_write(c, "in\n", 3) == 3 && ssh_channel_send_eof(c) == SSH_OK, "write");
		drain(c, 0);
		drain(c, 1);
		printf("%d\n", ssh_channel_get_exit_status(c));
	} else if (strcmp(op, "sftp") == 0) {
		sftp_session f = sftp_new(s);
		need(f && sftp_init(f) == SSH_OK, "sftp");
		copy(f, "data", "copy", 1);
		copy(f, "copy", "back", 0);
	} else if (strcmp(op, "forward") == 0) {
		ssh_channel c = ssh_channel_new(s);
		need(ssh_channel_open_forward(c, "127.0.0.1", atoi(getenv("target")), "127.0.0.1", 1) == SSH_OK, "forward");
		drain(c, 0);
	} else if (strcmp(op, "back") == 0) {
		back();
	} else {
		drain(command("id -un"), 0);
	}
	ssh_disconnect(s);
	return 0;
}

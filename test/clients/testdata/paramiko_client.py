import os, socket, sys, threading, paramiko

env = os.environ
here = ("127.0.0.1", int(env["port"]))

def key(name):
    return paramiko.Ed25519Key.from_private_key_file(env["keys"] + "/" + name)

def connected():
    t = paramiko.Transport(socket.create_connection(here))
    t.start_client()
    return t

def run(t, command, input=b""):
    c = t.open_session()
    c.exec_command(command)
    if input: # which others than the command for it do not wait for
        c.sendall(input)
    c.shutdown_write()
    out = c.makefile().read() + c.makefile_stderr().read()
    return out.decode(), c.recv_exit_status()

op = sys.argv[1]
if op == "version":
    print("paramiko_" + paramiko.__version__)
    sys.exit()
t = connected()
if op == "password":
    t.auth_password("alice", env["password"])
elif op == "keys":
    try:
        t.auth_publickey("alice", key("wrong"))
    except paramiko.AuthenticationException:
        t.auth_publickey("alice", key("right"))
elif op == "both":
    t.auth_publickey("alice", key("right"))
    t.auth_interactive("alice", lambda title, text, prompts: [env["password"] for p in prompts])
else:
    t.auth_publickey("alice", key("right"))
if op == "exec":
    out, status = run(t, env["command"], b"in\n")
    print(out + str(status))
elif op == "sftp":
    f = paramiko.SFTPClient.from_transport(t)
    f.put("data", "copy")
    f.get("copy", "back")
elif op == "forward":
    c = t.open_channel("direct-tcpip", ("127.0.0.1", int(env["target"])), ("127.0.0.1", 1))
    print(c.makefile().read().decode(), end="")
elif op == "back":
    def relay(c, *a):
        s = socket.create_connection(("127.0.0.1", int(env["target"])))
        while b := s.recv(65536): c.sendall(b)
        c.close()
    t.request_port_forward("127.0.0.1", int(env["free"]), lambda c, *a: threading.Thread(target=relay, args=(c,)).start())
    print(run(t, "exec 3<>/dev/tcp/127.0.0.1/%s; cat <&3" % env["free"])[0], end="")
else:
    print(run(t, "id -un")[0], end="")
t.close()

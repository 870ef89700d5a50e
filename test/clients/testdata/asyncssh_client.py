import warnings; warnings.simplefilter("ignore")
import asyncio, os, sys, asyncssh

env = os.environ
op = sys.argv[1]

class Interactive(asyncssh.SSHClient):
    def kbdint_auth_requested(self): return ""
    def kbdint_challenge_received(self, *a): return [env["password"] for p in a[3]]

async def main():
    proof = {
        "password": dict(password=env.get("password"), client_keys=None),
        "keys": dict(client_keys=[env["keys"] + "/wrong", env["keys"] + "/right"]),
        "both": dict(client_keys=[env["keys"] + "/right"], client_factory=Interactive),
    }.get(op, dict(client_keys=[env["keys"] + "/right"]))
    async with asyncssh.connect("127.0.0.1", int(env["port"]), username="alice", known_hosts=None, agent_path=None, config=None, **proof) as c:
        if op == "exec":
            r = await c.run(env["command"], input="in\n")
            print(r.stdout + r.stderr + str(r.exit_status))
        elif op == "sftp":
            async with c.start_sftp_client() as f:
                await f.put("data", "copy")
                await f.get("copy", "back")
        elif op == "forward":
            r, w = await c.open_connection("127.0.0.1", int(env["target"]))
            print((await r.read()).decode(), end="")
        elif op == "back":
            await c.forward_remote_port("127.0.0.1", int(env["free"]), "127.0.0.1", int(env["target"]))
            print((await c.run("exec 3<>/dev/tcp/127.0.0.1/%s; cat <&3" % env["free"])).stdout, end="")
        else:
            print((await c.run("id -un")).stdout, end="")

if op == "version":
    print("AsyncSSH_" + asyncssh.__version__)
else:
    asyncio.run(main())

// JSch. It reads keys in PEM, and has neither ed25519 nor RSA with SHA-2.
import com.jcraft.jsch.*;
import java.io.*;

public class Jsch {
	static String env(String name) { return System.getenv(name); }

	static class Person implements UserInfo, UIKeyboardInteractive {
		public String getPassphrase() { return null; }
		public String getPassword() { return env("password"); }
		public boolean promptPassword(String s) { return true; }
		public boolean promptPassphrase(String s) { return false; }
		public boolean promptYesNo(String s) { return true; }
		public void showMessage(String s) { }
		public String[] promptKeyboardInteractive(String to, String name, String text, String[] prompts, boolean[] echo) {
			String[] a = new String[prompts.length];
			java.util.Arrays.fill(a, env("password"));
			return a;
		}
	}

	static String run(Session s, String command, boolean status) throws Exception {
		ChannelExec c = (ChannelExec) s.openChannel("exec");
		c.setCommand(command);
		c.setInputStream(new ByteArrayInputStream("in\n".getBytes()));
		ByteArrayOutputStream err = new ByteArrayOutputStream();
		c.setErrStream(err);
		InputStream out = c.getInputStream();
		c.connect();
		String said = new String(out.readAllBytes());
		while (!c.isClosed()) Thread.sleep(10);
		return status ? said + err + c.getExitStatus() + "\n" : said;
	}

	public static void main(String[] args) throws Exception {
		if (args[0].equals("version")) {
			System.out.println("JSch_" + JSch.VERSION);
			return;
		}
		JSch jsch = new JSch();
		String methods = "publickey";
		switch (args[0]) {
		case "password": methods = "password"; break;
		case "keys": jsch.addIdentity(env("keys") + "/wrong.pem"); jsch.addIdentity(env("keys") + "/right.pem"); break;
		case "both": methods = "publickey,keyboard-interactive"; // and the key
		default: jsch.addIdentity(env("keys") + "/right.pem");
		}
		Session s = jsch.getSession("alice", "127.0.0.1", Integer.parseInt(env("port")));
		s.setConfig("StrictHostKeyChecking", "no");
		s.setConfig("PreferredAuthentications", methods);
		s.setUserInfo(new Person());
		s.connect(30000);
		int free = Integer.parseInt(env("free")), target = Integer.parseInt(env("target"));
		switch (args[0]) {
		case "exec": System.out.print(run(s, env("command"), true)); break;
		case "sftp":
			ChannelSftp f = (ChannelSftp) s.openChannel("sftp");
			f.connect();
			f.put("data", "copy");
			f.get("copy", "back");
			break;
		case "forward":
			s.setPortForwardingL(free, "127.0.0.1", target);
			System.out.print(new String(new java.net.Socket("127.0.0.1", free).getInputStream().readAllBytes()));
			break;
		case "back":
			s.setPortForwardingR(free, "127.0.0.1", target);
			System.out.print(run(s, "exec 3<>/dev/tcp/127.0.0.1/" + free + "; cat <&3", false));
			break;
		default: System.out.print(run(s, "id -un", false));
		}
		s.disconnect();
	}
}

# Net::SSH and Net::SFTP. Net::SSH itself prints what it forwards.
require "net/ssh"
require "net/sftp"
require "socket"

$stdout = STDERR

def start(*methods, **more, &block)
  Net::SSH.start("127.0.0.1", "alice", port: ENV["port"].to_i, config: false, use_agent: false, verify_host_key: :never,
    non_interactive: true, auth_methods: methods, **more, &block)
end
right, wrong = ENV["keys"] + "/right", ENV["keys"] + "/wrong"
by_key = { keys: [right], keys_only: true }

def run(ssh, command, input = nil)
  out, err, status = +"", +"", nil
  channel = ssh.open_channel do |c|
    c.exec(command) do |c, ok|
      raise "exec" unless ok
      c.on_data { |_, d| out << d }
      c.on_extended_data { |_, _, d| err << d }
      c.on_request("exit-status") { |_, d| status = d.read_long }
      c.send_data(input) if input
      c.eof!
    end
  end
  channel.wait
  [out + err, status]
end

case ARGV[0]
when "version" then STDOUT.puts "Net::SSH_#{Net::SSH::Version::STRING}"
when "password" then start("password", password: ENV["password"]) { |s| STDOUT.print run(s, "id -un")[0] }
when "keys" then start("publickey", keys: [wrong, right], keys_only: true) { |s| STDOUT.print run(s, "id -un")[0] }
when "both" then start("publickey", "keyboard-interactive", **by_key, password: ENV["password"]) { |s| STDOUT.print run(s, "id -un")[0] }
when "exec" then start("publickey", **by_key) { |s| out, status = run(s, ENV["command"], "in\n"); STDOUT.puts out + status.to_s }
when "sftp"
  start("publickey", **by_key) do |s|
    s.sftp.upload!("data", "copy")
    s.sftp.download!("copy", "back")
  end
when "forward"
  start("publickey", **by_key) do |s|
    s.forward.local("127.0.0.1", ENV["free"].to_i, "127.0.0.1", ENV["target"].to_i)
    t = Thread.new { c = TCPSocket.new("127.0.0.1", ENV["free"].to_i); c.read }
    s.loop(0.05) { t.alive? }
    STDOUT.print t.value
  end
when "back"
  start("publickey", **by_key) do |s|
    s.forward.remote(ENV["target"].to_i, "127.0.0.1", ENV["free"].to_i, "127.0.0.1")
    s.loop { s.forward.active_remotes.empty? }
    STDOUT.print run(s, "exec 3<>/dev/tcp/127.0.0.1/#{ENV["free"]}; cat <&3")[0]
  end
end

package clients

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// crypto is the client of golang.org/x/crypto/ssh, a program of its own.
func crypto(args []string) {
	if err := cryptoDoes(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func cryptoDoes(op string) error {
	if op == "version" {
		fmt.Println("x/crypto/ssh")
		return nil
	}
	key := func(name string) (ssh.Signer, error) {
		pem, err := os.ReadFile(os.Getenv("keys") + "/" + name)
		if err != nil {
			return nil, err
		}
		return ssh.ParsePrivateKey(pem)
	}
	right, err := key("right")
	if err != nil {
		return err
	}
	wrong, err := key("wrong")
	if err != nil {
		return err
	}
	auth := []ssh.AuthMethod{ssh.PublicKeys(right)}
	switch op {
	case "password":
		auth = []ssh.AuthMethod{ssh.Password(password)}
	case "keys":
		auth = []ssh.AuthMethod{ssh.PublicKeys(wrong, right)}
	case "both":
		auth = append(auth, ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = password
			}
			return answers, nil
		}))
	}
	c, err := ssh.Dial("tcp", "127.0.0.1:"+os.Getenv("port"), &ssh.ClientConfig{User: "alice", Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return err
	}
	defer c.Close()
	target := "127.0.0.1:" + os.Getenv("target")
	command := "id -un"
	switch op {
	case "exec":
		command = os.Getenv("command")
	case "sftp":
		return cryptoCopies(c)
	case "forward":
		nc, err := c.Dial("tcp", target)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, nc)
		return err
	case "back":
		l, err := c.Listen("tcp", "127.0.0.1:"+os.Getenv("free"))
		if err != nil {
			return err
		}
		go func() {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if out, err := net.Dial("tcp", target); err == nil {
				io.Copy(in, out)
			}
			in.Close()
		}()
		command = "exec 3<>/dev/tcp/127.0.0.1/" + os.Getenv("free") + "; cat <&3"
	}
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader("in\n"), os.Stdout, &stderr
	err = s.Run(command)
	fmt.Print(stderr.String())
	if e, ok := err.(*ssh.ExitError); ok && op == "exec" {
		fmt.Println(e.ExitStatus())
		return nil
	}
	return err
}

// cryptoCopies copies data to copy, and that to back.
func cryptoCopies(c *ssh.Client) error {
	f, err := sftp.NewClient(c)
	if err != nil {
		return err
	}
	data, err := os.Open("data")
	if err != nil {
		return err
	}
	up, err := f.Create("copy")
	if err != nil {
		return err
	}
	if _, err := up.ReadFrom(data); err != nil {
		return err
	}
	if err := up.Close(); err != nil {
		return err
	}
	down, err := f.Open("copy")
	if err != nil {
		return err
	}
	back, err := os.Create("back")
	if err != nil {
		return err
	}
	if _, err := down.WriteTo(back); err != nil {
		return err
	}
	return back.Close()
}

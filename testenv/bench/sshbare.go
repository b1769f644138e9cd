package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
)

// BareServer serves SSH as the library does it by itself: listed keys log in under any name, and may open any direct-tcpip. No policy,
// no log, no limits: what a bastion costs on top of it is the bastion's own.
func BareServer(ctx context.Context, listen, hostKey, authorized string) error {
	config, err := bareConfig(hostKey, authorized)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go serveBare(conn, config)
	}
}

func bareConfig(hostKey, authorized string) (*ssh.ServerConfig, error) {
	data, err := os.ReadFile(hostKey)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(authorized)
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for len(text) > 0 {
		var key ssh.PublicKey
		if key, _, _, text, err = ssh.ParseAuthorizedKey(text); err != nil {
			return nil, err
		}
		keys[string(key.Marshal())] = true
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !keys[string(key.Marshal())] {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	return config, nil
}

func serveBare(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		go forwardBare(nc)
	}
}

func forwardBare(nc ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &to); err != nil || nc.ChannelType() != "direct-tcpip" {
		nc.Reject(ssh.Prohibited, "")
		return
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, fmt.Sprint(err))
		return
	}
	defer conn.Close()
	channel, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	go ssh.DiscardRequests(requests)
	var both sync.WaitGroup
	// Plain structs hide what a channel or a connection can do beside reading and writing: 32 KiB at a time, as everybody has it.
	both.Go(func() {
		_, _ = io.Copy(struct{ io.Writer }{conn}, channel)
		conn.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(struct{ io.Writer }{channel}, struct{ io.Reader }{conn})
		channel.CloseWrite()
	})
	both.Wait()
}

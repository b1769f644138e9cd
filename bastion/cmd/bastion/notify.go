package main

import (
	"fmt"
	"net"
	"os"
)

// notifier tells the service manager how far we are (sd_notify(3)). It is connected before the sandbox, within which no such socket
// can be made. nil tells nobody.
type notifier struct{ conn net.Conn }

// newNotifier connects to the manager that started us, if one asked for it.
func newNotifier() (*notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	// Nothing that we might start is to speak for us.
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connecting to the service manager: %w", err)
	}
	return &notifier{conn}, nil
}

func (n *notifier) ready(status string) error {
	return n.say("READY=1\nSTATUS=" + status)
}

func (n *notifier) stopping() error { return n.say("STOPPING=1") }

func (n *notifier) say(text string) error {
	if n == nil {
		return nil
	}
	if _, err := n.conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	return nil
}

func (n *notifier) close() error {
	if n == nil {
		return nil
	}
	return n.conn.Close()
}

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/bastion/agent"
	"mayfly/internal/hint"
	"mayfly/internal/sshsig"
)

// pulledCard is a card that is pulled when it is to sign.
type pulledCard struct{ key agent.Key }

func (c pulledCard) Cards(context.Context) ([]agent.CardInfo, error) {
	return []agent.CardInfo{{Reader: "r", Name: "TEST card", Serial: 7, State: "1"}}, nil
}
func (c pulledCard) Open(context.Context, agent.CardInfo) (agent.Card, error) { return c, nil }
func (c pulledCard) Serial() uint32                                           { return 0 }
func (c pulledCard) Keys() ([]agent.Key, error)                               { return []agent.Key{c.key}, nil }
func (c pulledCard) Close() error                                             { return nil }
func (c pulledCard) Sign(context.Context, agent.Key, []byte, func(int) ([]byte, error)) (*ssh.Signature, error) {
	return nil, fmt.Errorf("trans\x1bmit: %w", agent.ErrGone)
}

// TestAgentSaysWhy: what bastion-agent refuses, fleetctl tells with the reason and its mend.
func TestAgentSaysWhy(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "why-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, pub := filepath.Join(dir, "s", "agent.sock"), filepath.Join(dir, "card.pub")
	if err := os.WriteFile(pub, ssh.MarshalAuthorizedKey(key), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := agent.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.New(agent.Config{Cards: pulledCard{agent.Key{Public: key, Slot: "9a"}}, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	signer, err := loadSigner(pub, socket)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sshsig.Sign(signer, "mayfly-policy", []byte("bundle"))
	if err == nil || !strings.Contains(err.Error(), "ssh-agent did not sign: TEST card 7: trans mit: the card was taken out (card_gone)") || hint.Of(err) != "plug it in and try again" {
		t.Errorf("got %v, hint %q", err, hint.Of(err))
	}
	if extensionWhy != agent.Extension {
		t.Error("the extension has another name")
	}
}

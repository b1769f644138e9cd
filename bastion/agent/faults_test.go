package agent

import (
	"testing"
)

// TestChainRefuses: what a chained agent refuses is told as its refusal, and the connection to it is made anew for what comes next.
func TestChainRefuses(t *testing.T) {
	inner := start(t, nil)
	card := inner.cards.plug(t, 1)
	f := start(t, func(c *Config) { c.Chain = []string{inner.socket} })
	host := newHostKey(t)
	a, _ := f.client()
	if _, err := a.Extension(extensionBind, bindContents(t, host.PublicKey(), host, sessionID(1), false)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(card.public(), []byte("anything")); err == nil {
		t.Fatal("was signed")
	}
	if reason, _ := why(t, a); reason != ReasonChain {
		t.Errorf("got %s", reason)
	}
	inner.log.wait(t, "refused", string(ReasonUnknownData))
	if _, err := a.Sign(card.public(), loginData(sessionID(2), "anna", card.public(), nil)); err == nil {
		t.Fatal("the binding did not come along again")
	}
	inner.log.wait(t, "refused", string(ReasonWrongSession))
	if _, err := a.Sign(card.public(), loginData(sessionID(1), "anna", card.public(), nil)); err != nil {
		t.Error(err)
	}
}

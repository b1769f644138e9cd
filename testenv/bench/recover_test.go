package bench

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestPanicIsAnError: a panic in a client's goroutine is told like any failure, so that the servers and namespaces are ended.
func TestPanicIsAnError(t *testing.T) {
	r := &running{sshServer: bareServer{}} // without a lab
	if _, err := r.logins(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("logins: got %v", err)
	}
	if _, err := r.open(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("open: got %v", err)
	}
	if _, err := r.dial(t.Context(), netip.Addr{}); err == nil {
		t.Error("dial: no error")
	}
	if err := send(nil, 1<<20); err == nil {
		t.Error("send: no error")
	}
}

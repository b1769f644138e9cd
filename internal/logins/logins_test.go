package logins

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const print = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

func TestParse(t *testing.T) {
	peer := netip.MustParseAddrPort("10.77.0.2:40123")
	for _, tt := range []struct {
		line string
		want Accepted
	}{
		{"Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-SK " + print, Accepted{Publickey, "alice", peer, "ED25519-SK", print}},
		{"Accepted publickey for alice from 2001:db8::2 port 40123 ssh2: ED25519 " + print, Accepted{Publickey, "alice", netip.MustParseAddrPort("[2001:db8::2]:40123"), "ED25519", print}},
		{"Accepted publickey for a.b-c@corp from ::ffff:10.77.0.2 port 40123 ssh2: ECDSA-SK " + print, Accepted{Publickey, "a.b-c@corp", peer, "ECDSA-SK", print}},
		{"Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-CERT " + print + " ID anybody (serial 0) here (serial 17) CA ED25519 " + print,
			Accepted{Publickey, "alice", peer, "ED25519-CERT", print}},
		{"Accepted password for alice from 10.77.0.2 port 40123 ssh2", Accepted{Method: "password", User: "alice", Peer: peer}},
		{"Accepted keyboard-interactive/pam for alice from 10.77.0.2 port 40123 ssh2", Accepted{Method: "keyboard-interactive/pam", User: "alice", Peer: peer}},
		{"Accepted gssapi-with-mic for alice from 10.77.0.2 port 40123 ssh2: alice@EXAMPLE.COM", Accepted{Method: "gssapi-with-mic", User: "alice", Peer: peer}},
	} {
		got, ok, err := Parse(tt.line)
		if err != nil || !ok || got != tt.want {
			t.Errorf("%s\ngot  %+v, %v, %v\nwant %+v", tt.line, got, ok, err, tt.want)
		}
	}
	for _, line := range []string{
		"", "Accepted", "Server listening on 10.77.0.11 port 22.", "Connection closed by 10.77.0.2 port 1 [preauth]",
		"Invalid user Accepted publickey for alice from 10.77.0.2 port 1 ssh2: ED25519 " + print + " from 10.77.0.2 port 2",
		"Failed publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519 " + print, " Accepted publickey for alice", "Partial publickey for alice",
		"Invalid user \\nAccepted publickey for root from 10.77.0.2 port 3",
	} {
		if got, ok, err := Parse(line); ok || err != nil {
			t.Errorf("%q: got %+v, %v, %v", line, got, ok, err)
		}
	}
	good := "Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-SK " + print
	for _, line := range []string{
		"Accepted ", good + " ", good + " x", good[:len(good)-1], good + "\r", "Accepted  publickey for alice",
		strings.Replace(good, "alice", "al ice", 1), strings.Replace(good, "alice", "-alice", 1), strings.Replace(good, "alice", "al\x1bice", 1),
		strings.Replace(good, "alice", strings.Repeat("a", maxUser+1), 1), strings.Replace(good, "10.77.0.2", "bastion", 1),
		strings.Replace(good, "40123", "0", 1), strings.Replace(good, "40123", "65536", 1), strings.Replace(good, "40123", "040123", 1),
		strings.Replace(good, "ssh2:", "ssh1:", 1), strings.Replace(good, "publickey", "Public", 1), strings.Replace(good, " for ", " from ", 1),
		strings.Replace(good, "ED25519-SK", "ED25519-CERT", 1), good + " ID x (serial 1) CA ED25519 " + print,
		strings.Replace(good, "SHA256:", "MD5:", 1), strings.Replace(good, "ED25519-SK ", "", 1), "Accepted password for alice from 10.77.0.2 port 40123 tcp",
		good + strings.Repeat("x", MaxLine),
	} {
		if got, ok, err := Parse(line); !ok || err == nil {
			t.Errorf("%q: got %+v, %v, %v", line, got, ok, err)
		}
	}
}

func TestParseList(t *testing.T) {
	good := `{"logins":[{"time":"2030-01-01T00:00:00Z","server":"se-1","user":"alice","method":"publickey","key":"x","peer":"10.77.0.2:1"}]}`
	if l, err := ParseList([]byte(good)); err != nil || len(l.Logins) != 1 || l.Logins[0].Peer.Port() != 1 {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"logins":null}`, strings.Replace(good, "se-1", "", 1), strings.Replace(good, "alice", "", 1), strings.Replace(good, "10.77.0.2:1", "", 1),
		strings.Replace(good, `"2030-01-01T00:00:00Z"`, `"now"`, 1), strings.Replace(good, `"user"`, `"unread":"x","user"`, 1)} {
		if l, err := ParseList([]byte(bad)); err == nil {
			t.Errorf("%s: got %+v", bad, l)
		}
	}
}

// FuzzParse: what is read is what the line says, and nothing that a terminal would obey.
func FuzzParse(f *testing.F) {
	f.Add("Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-SK " + print)
	f.Add("Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-CERT " + print + " ID x (serial 17) CA ED25519 " + print)
	f.Add("Accepted password for alice from ::1 port 1 ssh2")
	f.Add("Accepted ")
	f.Fuzz(func(t *testing.T, line string) {
		a, ok, err := Parse(line)
		if ok != strings.HasPrefix(line, "Accepted ") {
			t.Fatalf("%q: %v", line, ok)
		}
		if !ok || err != nil {
			if a != (Accepted{}) {
				t.Fatalf("%q: refused with %+v", line, a)
			}
			return
		}
		if !a.Peer.IsValid() || a.User == "" || strings.ContainsAny(a.User+a.Method+a.Key+a.KeyType, " \r\n\x1b\"\\") || (a.Method == Publickey) == (a.Key == "") {
			t.Fatalf("%q: %+v", line, a)
		}
		// The words are the line's.
		if again := fmt.Sprintf("Accepted %s for %s from ", a.Method, a.User); !strings.HasPrefix(line, again) {
			t.Fatalf("%q: %+v", line, a)
		}
		if a.Key != "" && !strings.Contains(line, " ssh2: "+a.KeyType+" "+a.Key) {
			t.Fatalf("%q: %+v", line, a)
		}
	})
}

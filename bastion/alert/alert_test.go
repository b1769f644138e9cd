package alert

import (
	"strings"
	"testing"
	"time"
)

func example(k Kind) Alert {
	return Alert{Kind: k, Time: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC), Fleet: "lab", Bastion: "bastion.lab.internal", Severity: k.Severity(),
		Subject: "anna from office", Detail: "has not logged in from there before", Reference: "0123456789abcdef"}
}

func TestAlert(t *testing.T) {
	for _, k := range Kinds {
		line, err := example(k).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(line)
		if err != nil || back != example(k) {
			t.Errorf("%s: got %+v, %v", k, back, err)
		}
	}
	const want = `{"kind":"new_network","time":"2030-01-31T12:00:00Z","fleet":"lab","bastion":"bastion.lab.internal","severity":"info",` +
		`"subject":"anna from office","detail":"has not logged in from there before","reference":"0123456789abcdef"}`
	if line, err := example(NewNetwork).Marshal(); err != nil || string(line) != want {
		t.Errorf("got %s, %v\nwant %s", line, err, want)
	}
	for _, tt := range []struct {
		name   string
		change func(*Alert)
	}{
		{"kind", func(a *Alert) { a.Kind = "rm" }},
		{"severity", func(a *Alert) { a.Severity = Critical }},
		{"time", func(a *Alert) { a.Time = time.Time{} }},
		{"subject", func(a *Alert) { a.Subject = "" }},
		{"control character", func(a *Alert) { a.Detail = "a\nb" }},
		{"long", func(a *Alert) { a.Detail = strings.Repeat("x", maxText+1) }},
		{"repeats", func(a *Alert) { a.Repeats = -1 }},
	} {
		a := example(NewNetwork)
		tt.change(&a)
		if _, err := a.Marshal(); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		s    Settings
		want string
	}{
		{Settings{Webhook: "https://alerts.example/hook", Token: "/etc/token", CA: "/etc/ca.pem", Exec: "/usr/local/sbin/alert"}, ""},
		{Settings{Exec: "/bin/true"}, ""},
		{Settings{}, "neither"},
		{Settings{Webhook: "http://alerts.example/"}, "no https URL"},
		{Settings{Webhook: "https:///hook"}, "no https URL"},
		{Settings{Webhook: "https://user:secret@alerts.example/"}, "password or a query"},
		{Settings{Webhook: "https://alerts.example/?token=secret"}, "password or a query"},
		{Settings{Exec: "alert"}, "no absolute path"},
		{Settings{Webhook: "https://alerts.example/", Token: "token"}, "no absolute path"},
		{Settings{Exec: "/bin/true", Token: "/token"}, "without webhook"},
	} {
		err := tt.s.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.s, err, tt.want)
		}
	}
}

func TestReceipt(t *testing.T) {
	r := Receipt{Kind: AuditIll, To: "exec", Outcome: Sent}
	if got, err := ParseReceipt(r.Marshal()); err != nil || got != r {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{``, `{}`, `{"kind":"rm","to":"exec","outcome":"sent"}`, `{"kind":"audit_ill","to":"x","outcome":"sent"}`,
		`{"kind":"audit_ill","to":"exec","outcome":"x"}`, `{"kind":"audit_ill","to":"exec","outcome":"sent","more":1}`} {
		if _, err := ParseReceipt([]byte(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// FuzzParse parses what a bastion that somebody took over could write.
func FuzzParse(f *testing.F) {
	for _, k := range Kinds {
		line, err := example(k).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(`{"exec":"/bin/sh"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := Parse(line)
		if err != nil {
			return
		}
		again, err := a.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if b, err := Parse(again); err != nil || b.Subject != a.Subject || !b.Time.Equal(a.Time) {
			t.Fatalf("%s came back as %s: %v", line, again, err)
		}
	})
}

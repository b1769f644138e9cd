package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mayfly/bastion/card"
	"mayfly/internal/hint"
)

// typing is a terminal at which these lines are typed.
func typing(lines ...string) func(context.Context, string) ([]byte, error) {
	return func(context.Context, string) ([]byte, error) {
		if len(lines) == 0 {
			return nil, errors.New("nobody is there")
		}
		line := lines[0]
		lines = lines[1:]
		return []byte(line), nil
	}
}

func TestPerson(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("735192\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		p          person
		ask        card.Ask
		typed      []string
		want, fail string
	}{
		{"typed", person{}, card.Ask{Kind: "PIN"}, []string{goodPIN}, goodPIN, ""},
		{"typed twice", person{}, card.Ask{Kind: "PIN", New: true}, []string{goodPIN, goodPIN}, goodPIN, ""},
		{"mistyped", person{}, card.Ask{Kind: "PUK", New: true}, []string{goodPUK, goodPIN}, "", "the two PUKs differ"},
		{"empty", person{}, card.Ask{Kind: "PIN"}, []string{""}, "", "no PIN was given"},
		{"nobody", person{}, card.Ask{Kind: "PIN"}, nil, "", "asking for the PIN: nobody is there"},
		{"PIN's file", person{pinFile: file}, card.Ask{Kind: "PIN", New: true}, nil, "735192", ""},
		{"PUK's file", person{pukFile: file}, card.Ask{Kind: "PUK", New: true}, nil, "735192", ""},
		{"not the PUK's file", person{pinFile: file}, card.Ask{Kind: "PUK"}, []string{goodPUK}, goodPUK, ""},
		{"no file", person{pinFile: file + "x"}, card.Ask{Kind: "PIN"}, nil, "", "no such file"},
	} {
		tt.p.read = typing(tt.typed...)
		got, err := tt.p.Secret(t.Context(), tt.ask)
		if tt.fail == "" && (err != nil || got != tt.want) || tt.fail != "" && (err == nil || !strings.Contains(err.Error(), tt.fail)) {
			t.Errorf("%s: got %q, %v, want %q, %q", tt.name, got, err, tt.want, tt.fail)
		}
	}
}

func TestAgree(t *testing.T) {
	for _, tt := range []struct {
		name  string
		yes   bool
		typed []string
		ok    bool
		mend  string
	}{
		{"yes", false, []string{"yes"}, true, ""},
		{"--yes", true, nil, true, ""},
		{"no", false, []string{"no"}, false, `"yes"`},
		{"y", false, []string{"y"}, false, `"yes"`},
		{"nobody", false, nil, false, "--yes agrees"},
	} {
		var out strings.Builder
		p := &person{out: &out, yes: tt.yes, read: typing(tt.typed...)}
		err := p.Agree(t.Context(), "it DESTROYS a key\n")
		if (err == nil) != tt.ok || !strings.Contains(hint.Of(err), tt.mend) {
			t.Errorf("%s: got %v, hint %q", tt.name, err, hint.Of(err))
		}
		if out.String() != "it DESTROYS a key\n" {
			t.Errorf("%s: showed %q", tt.name, out.String())
		}
	}
}

func TestRunning(t *testing.T) {
	proc := t.TempDir()
	for pid, name := range map[string]string{"1": "init", "20": "scdaemon", "21": "scdaemon", "300": "gpg-agent", "self": "ykman", "31": strings.Repeat("x", 100), "32": "", strconv.Itoa(os.Getpid()): "bastion-agent"} {
		if err := os.Mkdir(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := running(proc, keepers), []string{"gpg-agent", "scdaemon"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(filepath.Join(proc, "1", "comm"), []byte("bastion-agent\n"), 0o644); err != nil { // not this process
		t.Fatal(err)
	}
	if got, want := running(proc, keepers), []string{"bastion-agent", "gpg-agent", "scdaemon"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRules(t *testing.T) {
	for _, text := range []string{"", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		file := filepath.Join(t.TempDir(), "issuer")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := rules(minFirmware, []string{file}); err == nil {
			t.Errorf("%q: taken for a certificate", text)
		}
	}
	if r, err := rules(minFirmware, nil); err != nil || r.Test || r.MinFirmware != minFirmware {
		t.Errorf("got %+v, %v", r, err)
	}
}
